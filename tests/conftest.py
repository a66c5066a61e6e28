"""What all tests share: the embedded model, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cyllama import LLM
from cyllama.models import TINY_CHAT


@pytest.fixture
def tiny_chat() -> Path:
    return TINY_CHAT


@pytest.fixture(scope="session")
def _loaded() -> Iterator[LLM]:
    with LLM(temperature=0, n_threads=1) as llm:  # a second thread would only wait for a busy machine's other work
        yield llm


@pytest.fixture
def llm(_loaded: LLM) -> LLM:
    """The embedded model at temperature 0, without a context."""
    _loaded.close()
    return _loaded
