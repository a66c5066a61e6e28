"""Parameters of contexts for tests."""

from __future__ import annotations

from typing import Any

from cyllama.llama.llama_cpp import LlamaContextParams


def make_params(**fields: Any) -> LlamaContextParams:
    params = LlamaContextParams()
    params.n_ctx, params.n_threads, params.n_threads_batch = 256, 1, 1  # more threads would wait for other tests
    for name, value in fields.items():
        setattr(params, name, value)
    return params
