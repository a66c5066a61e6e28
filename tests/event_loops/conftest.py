"""A model with eight places, and a reference to compare its answers with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama import LLM

from ..support.harness import (
    EXACT,
    Reference,
    Step,
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture
def eight(steps: list[Step]) -> Iterator[LLM]:
    """The embedded model for eight callers at a time."""
    with LLM(**EXACT, n_parallel=8) as llm:
        yield llm
