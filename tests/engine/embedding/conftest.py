"""Models that embed, and passes that are held up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from cyllama import (
    LLM,
)
from cyllama.models import TINY_CHAT

from ...support.random_models import (
    write_random_bert,
    write_random_model,
    write_random_t5_encoder,
)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the file of a model of that kind."""
    folder = tmp_path_factory.mktemp("embedding")
    special: dict[str, Callable[[Path], Path]] = {
        "tiny-chat": lambda path: TINY_CHAT,
        "bert": write_random_bert,
        "bert-cls": lambda path: write_random_bert(path, pooling=gguf.PoolingType.CLS),
        "bert-last": lambda path: write_random_bert(path, pooling=gguf.PoolingType.LAST),
        "bert-unnamed": lambda path: write_random_bert(path, pooling=None),
        "bert-none": lambda path: write_random_bert(path, pooling=gguf.PoolingType.NONE),
        "bert-unknown": lambda path: write_random_bert(path, pooling=99),
        "bert-causal": lambda path: write_random_bert(path, causal=None),
        "bert-nan": lambda path: write_random_bert(path, nan=True),
        "rank": lambda path: write_random_bert(path, pooling=gguf.PoolingType.RANK),
        "t5encoder": write_random_t5_encoder,
    }

    def write(kind: str) -> Path:
        path = folder / f"{kind}.gguf"
        if path.exists():
            return path
        return special[kind](path) if kind in special else write_random_model(path, kind)

    return write


@pytest.fixture
def load(models: Callable[[str], Path]) -> Iterator[Callable[..., LLM]]:
    loaded: list[LLM] = []

    def load(kind: str, **options: Any) -> LLM:
        loaded.append(LLM(models(kind), n_threads=1, temperature=0, **options))
        return loaded[-1]

    yield load
    for llm in loaded:
        llm.close()


@pytest.fixture
def bert(load: Callable[..., LLM]) -> LLM:
    return load("bert")


@pytest.fixture
def ranker(load: Callable[..., LLM]) -> LLM:
    return load("rank")
