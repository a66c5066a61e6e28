"""One small model of every kind, written once per process that needs it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import gguf

from cyllama.llama.llama_cpp import LlamaModel
from cyllama.models import TINY_CHAT

from ...support.random_models import (
    ARCHITECTURES,
    write_random_bert,
    write_random_gpt2,
    write_random_model,
    write_random_t5,
    write_random_t5_encoder,
)

N_POSITIONS = 64  # of the model "gpt2"


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cyllama-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _architecture(name: str) -> Callable[[Path], Path]:
    return lambda path: write_random_model(path, name)


_WRITERS: dict[str, Callable[[Path], Path]] = {
    **{name: _architecture(name) for name in ARCHITECTURES},
    "sentencepiece": lambda path: write_random_model(path, "llama", sentencepiece=True),
    "bert": write_random_bert,
    "rank": lambda path: write_random_bert(path, pooling=gguf.PoolingType.RANK),
    "t5encoder": write_random_t5_encoder,
    "gpt2": lambda path: write_random_gpt2(path, N_POSITIONS),
    "t5": write_random_t5,
}

MODELS = ("tiny-chat", *_WRITERS)


@cache
def model_path(name: str) -> Path:
    """Return the file of a model, one of ``MODELS``."""
    return TINY_CHAT if name == "tiny-chat" else _WRITERS[name](_folder() / f"{name}.gguf")


@cache
def open_model(name: str) -> LlamaModel:
    """Return a model that stays open."""
    return LlamaModel(model_path(name))
