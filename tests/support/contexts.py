"""Contexts of the binding: their parameters, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams

BatchOf = Callable[..., LlamaBatch]  # the fixture batch_of
NewContext = Callable[..., LlamaContext]  # the fixture new_context
TOKENS = [300, 400, 500, 301, 402, 777]


def make_params(**fields: Any) -> LlamaContextParams:
    params = LlamaContextParams()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1  # more threads would wait for other tests
    for name, value in fields.items():
        setattr(params, name, value)
    return params


def logits(context: LlamaContext, i: int = -1) -> np.ndarray:
    """Return the logits of an output of the last batch, the last one by default."""
    return np.asarray(context.get_logits_ith(i))


def logits_of(context: LlamaContext) -> np.ndarray:
    """Return the logits after ``TOKENS`` and nothing else."""
    batch = LlamaBatch(len(TOKENS))
    batch.add_sequence(TOKENS)
    context.kv_cache_clear()
    assert context.decode(batch) == 0
    return np.array(context.get_logits_ith(-1))
