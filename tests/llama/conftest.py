"""The binding alone: the embedded model, contexts and batches, tiny models made on the spot, processes to crash."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel
from cyllama.models import TINY_CHAT

from ..support.contexts import make_params
from ..support.random_models import write_one_layer

PRELUDE = """
import gc, logging, os, sys, threading, time
from cyllama.llama.llama_cpp import *
from cyllama.models import TINY_CHAT

def params(**fields):
    result = LlamaContextParams()
    result.n_ctx, result.n_threads, result.n_threads_batch = 256, 1, 1
    for name, value in fields.items():
        setattr(result, name, value)
    return result

def load(path=TINY_CHAT, **fields):
    result = LlamaModelParams()
    for name, value in fields.items():
        setattr(result, name, value)
    return LlamaModel(str(path), result)

def batch_of(tokens=(1, 2, 3), pos=0, seq_id=0, logits_last=True):
    batch = LlamaBatch(max(len(tokens), 1))
    batch.add_sequence(list(tokens), pos, seq_id, logits_last)
    return batch

def raised(function, *args):
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
"""


@pytest.fixture
def tiny_chat() -> Path:
    return TINY_CHAT


@pytest.fixture(scope="session")
def model() -> Iterator[LlamaModel]:
    with LlamaModel(TINY_CHAT) as model:
        yield model


@pytest.fixture
def new_context(model: LlamaModel) -> Iterator[Callable[..., LlamaContext]]:
    """Create a context of the embedded model, or another one, with these parameters; it is closed after the test."""
    contexts: list[LlamaContext] = []

    def create(of: LlamaModel | None = None, **fields: Any) -> LlamaContext:
        contexts.append(LlamaContext(of or model, make_params(**fields)))
        return contexts[-1]

    yield create
    for context in contexts:
        context.close()


@pytest.fixture
def context(new_context: Callable[..., LlamaContext]) -> LlamaContext:
    return new_context()


@pytest.fixture
def batch_of() -> Callable[..., LlamaBatch]:
    """Create a batch that holds exactly these tokens of one sequence."""

    def create(
        tokens: Sequence[int] = (1, 2, 3), pos: int = 0, seq_id: int = 0, logits_last: bool = True
    ) -> LlamaBatch:
        batch = LlamaBatch(max(len(tokens), 1))
        batch.add_sequence(list(tokens), pos, seq_id, logits_last)
        return batch

    return create


@pytest.fixture
def story(model: LlamaModel) -> list[int]:
    """Some text as token ids."""
    return model.vocab.tokenize("Once upon a time there was a small fox who lived in the forest with its friends.")


@pytest.fixture
def in_process() -> Callable[..., str]:
    """Run code in a process of its own, which has to end well and silently, and return what it printed."""

    def run(code: str, *, stderr: str = "", exit_code: int = 0, backtrace: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", PRELUDE + code],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ} if backtrace else {**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert (done.returncode, done.stderr) == (exit_code, stderr), done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaContext]:
    """A context of a random model of 20,000 tokens."""
    with LlamaModel(write_one_layer(tmp_path_factory.mktemp("large") / "llama.gguf", n_vocab=20_000)) as model:
        yield LlamaContext(model, make_params())
