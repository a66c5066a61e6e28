"""Texts as vectors, and how well they answer a query."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import overload

from .runtime import Runtime


class Embeddings:
    """The methods of :class:`LLM` that compute embeddings and ranks.

    Args:
        runtime: The model that computes them.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @overload
    def embed(  # pyright: ignore[reportOverlappingOverload]
        self, texts: str, *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]: ...

    @overload
    def embed(
        self, texts: Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[list[float]]: ...

    def embed(
        self, texts: str | Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float] | list[list[float]]:
        """Return the embedding of a text, or those of many in their order.

        Many texts are evaluated in one pass, so that one call with all of them is faster than one call for each. Tokens
        are pooled as the model's file says; if it does not say, their mean is taken. Embeddings have a context of their
        own, created by the first call and reused, replaced and released as that of generations is.

        >>> fox, animal = llm.embed(["A fox sleeps.", "An animal rests."])
        >>> len(fox) == llm.model.n_embd
        True
        >>> cosine = sum(a * b for a, b in zip(fox, animal))

        Args:
            texts: A text, or any number of them.
            normalize: Scale every vector to the length 1, so that a dot product is the cosine of the angle.
            truncate: Leave out the tokens of a text that are too many, instead of refusing it.
            n_ctx: Most tokens of a text; by default as configured. The model's training length is always a limit.

        Returns:
            ``n_embd`` floats (``llm.model.n_embd``) for a text; for several texts, a list with such a list for each.

        Raises:
            PromptError: There is no text, or one is empty or cannot be made into tokens.
            PromptTypeError: ``texts`` is not a str or a list of them.
            ContextSizeError: A text is longer than what the model was trained for, or than ``n_ctx``.
            ConfigError: ``n_ctx`` is negative.
            ContextMemoryError: There is not enough memory for a context.
            ContextError: llama.cpp cannot create one with the options of the model.
            DecodeError: llama.cpp failed.
            EmbeddingCancelledError: ``close()`` or ``reset_context()`` was called meanwhile.
            UnsupportedModelError: The model is one that ranks, or takes no text.
            ForkedError: The process was forked after the model was loaded.
        """
        vectors = _wait_for(self._submit_texts(texts, normalize=normalize, truncate=truncate, n_ctx=n_ctx))
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    async def aembed(  # pyright: ignore[reportOverlappingOverload]
        self, texts: str, *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]: ...

    @overload
    async def aembed(
        self, texts: Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[list[float]]: ...

    async def aembed(
        self, texts: str | Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float] | list[list[float]]:
        """Return embeddings without blocking the event loop; no thread waits meanwhile.

        Arguments, results and errors are those of :meth:`embed`.

        >>> len(asyncio.run(llm.aembed("A fox sleeps."))) == llm.model.n_embd
        True
        """
        from asyncio import wrap_future  # here, since calls of threads do without

        future = self._submit_texts(texts, normalize=normalize, truncate=truncate, n_ctx=n_ctx)
        vectors = await wrap_future(future)
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(
        self, query: str, documents: Iterable[str], *, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]:
        """Return how well each document answers the query.

        >>> with LLM("reranker.gguf") as ranker:
        ...     scores = ranker.rerank("What do foxes eat?", ["Foxes eat mice.", "The sky is blue."])
        >>> len(scores)
        2

        Args:
            query: The question.
            documents: Texts to compare.
            truncate: Leave out the end of documents that are too long, instead of refusing them.
            n_ctx: Most tokens of the query with a document; by default as configured.

        Returns:
            A score for each document, in their order: the higher, the better. The scale is the model's own.

        Raises:
            UnsupportedModelError: The model does not rank.
            CyllamaError: Everything else that :meth:`embed` raises.
        """
        future = self._submit_pairs(query, documents, truncate=truncate, n_ctx=n_ctx)
        return [score for score, *_ in _wait_for(future)]

    async def arerank(
        self, query: str, documents: Iterable[str], *, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]:
        """Return scores without blocking the event loop; no thread waits meanwhile.

        Arguments, results and errors are those of :meth:`rerank`.

        >>> with LLM("reranker.gguf") as ranker:
        ...     len(asyncio.run(ranker.arerank("What do foxes eat?", ["Foxes eat mice."])))
        1
        """
        from asyncio import wrap_future  # here, since calls of threads do without

        future = self._submit_pairs(query, documents, truncate=truncate, n_ctx=n_ctx)
        return [score for score, *_ in await wrap_future(future)]

    def _submit_texts(
        self, texts: str | Iterable[str], *, normalize: bool, truncate: bool, n_ctx: int | None
    ) -> Future[list[list[float]]]:
        from .embedding_calls import submit_texts  # here, since generations do without

        return submit_texts(self._runtime, texts, normalize=normalize, truncate=truncate, n_ctx=n_ctx)

    def _submit_pairs(
        self, query: str, documents: Iterable[str], *, truncate: bool, n_ctx: int | None
    ) -> Future[list[list[float]]]:
        from .embedding_calls import submit_pairs  # here, since generations do without

        return submit_pairs(self._runtime, query, documents, truncate=truncate, n_ctx=n_ctx)


def _wait_for(future: Future[list[list[float]]]) -> list[list[float]]:
    """Return the vectors of a call. Ctrl-C ends it."""
    try:
        return future.result()
    except BaseException:  # Ctrl-C, or what the call failed with: then there is nothing left to cancel
        future.cancel()
        raise
