"""A model with three adapters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama import (
    LLM,
)

from ...support.lora import Files, write_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write_files(tmp_path_factory.mktemp("lora"), "llama")


@pytest.fixture(scope="module")
def _loaded(files: Files) -> Iterator[LLM]:
    with files.load() as llm:
        yield llm


@pytest.fixture
def lora_llm(_loaded: LLM) -> LLM:
    """A model with adapters, without a context and without sessions."""
    _loaded.reset_context()
    return _loaded
