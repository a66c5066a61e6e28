"""What the tests of sessions share: the embedded model, and saved sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama import LLM


@pytest.fixture
def llm(llm: LLM) -> Iterator[LLM]:
    """The embedded model, without a context and without sessions."""
    llm.reset_context()
    yield llm
    llm.reset_context()
