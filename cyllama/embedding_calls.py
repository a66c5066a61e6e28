"""From the arguments of a call to a job for the embedder."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future

from .embedding_texts import max_text_tokens, pair_tokens, pooling_of, text_tokens
from .engine.embedding import EmbeddingJob
from .errors import UnsupportedModelError
from .llama.llama_cpp import LlamaPoolingType
from .runtime import Runtime


def submit_texts(
    runtime: Runtime, texts: str | Iterable[str], *, normalize: bool, truncate: bool, n_ctx: int | None
) -> Future[list[list[float]]]:
    """Begin to compute embeddings; cancelling the result ends that.

    Raises:
        CyllamaError: What :meth:`LLM.embed` raises for its arguments.
    """
    pooling = _pooling(runtime)
    if pooling == LlamaPoolingType.RANK:
        raise UnsupportedModelError(f"{runtime.name} makes no embeddings, it ranks: use rerank()")
    tokens = text_tokens(runtime.tokenizer, texts, _max_text_tokens(runtime, n_ctx), truncate=truncate)
    return _submit(runtime, EmbeddingJob(tokens, normalize=normalize), pooling)


def submit_pairs(
    runtime: Runtime, query: str, documents: Iterable[str], *, truncate: bool, n_ctx: int | None
) -> Future[list[list[float]]]:
    """Begin to compute scores, each a vector of one or more values; cancelling the result ends that.

    Raises:
        CyllamaError: What :meth:`LLM.rerank` raises for its arguments.
    """
    pooling = _pooling(runtime)
    if pooling != LlamaPoolingType.RANK:
        raise UnsupportedModelError(f"{runtime.name} does not rank: compare what embed() returns")
    pairs = pair_tokens(runtime.model, query, documents, _max_text_tokens(runtime, n_ctx), truncate=truncate)
    return _submit(runtime, EmbeddingJob(pairs, normalize=False), pooling)


def _pooling(runtime: Runtime) -> LlamaPoolingType:
    runtime.check_process()
    return pooling_of(runtime.model, runtime.config, runtime.name)


def _max_text_tokens(runtime: Runtime, n_ctx: int | None) -> int:
    merged = runtime.defaults.merge(None, {} if n_ctx is None else {"n_ctx": n_ctx})
    return max_text_tokens(runtime.model, merged.n_ctx)


def _submit(runtime: Runtime, job: EmbeddingJob, pooling: LlamaPoolingType) -> Future[list[list[float]]]:
    runtime.submit_embedding(job, pooling)
    return job.future
