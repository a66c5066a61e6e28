"""A context that the tests of samplers share."""

from __future__ import annotations

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaContext

from ...support.contexts import BatchOf


@pytest.fixture
def told(context: LlamaContext, batch_of: BatchOf, story: list[int]) -> LlamaContext:
    """A context with one output."""
    context.decode(batch_of(story))
    return context


@pytest.fixture
def logits(told: LlamaContext) -> np.ndarray:
    return np.asarray(told.get_logits_ith()).astype(np.float64)
