"""Reranking: which documents answer a query best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field

from cyllama import UnsupportedModelError

from ._arguments import translate
from ._base import CyllamaModel
from ._unused import UNUSED_IN_EMBEDDINGS, Unused


class CyllamaReranker(CyllamaModel, BaseDocumentCompressor):
    """A GGUF model in this process that orders documents by how well they answer a query.

    A rank model reads the query together with each document. With any other model, the embeddings of both are compared.

    Setup:
        ```bash
        pip install '.[langchain]'  # in a checkout of cyllama's repository
        ```

    Key init args:
        model_path: str | None
            A GGUF file, or a model on the hub: "owner/repo:Q4_K_M"; `None` for tiny-chat, the embedded model.
        top_n: int | None
            How many documents to return; `None` for all.
        n_ctx: int | None
            Maximum number of tokens of the query with a document.
        llm: cyllama.LLM | None
            A loaded model to use instead.

    Every option of `cyllama.ModelConfig` is an argument too.

    Instantiate:
        ```python
        from langchain_cyllama import CyllamaReranker

        reranker = CyllamaReranker(model_path="reranker.gguf", top_n=1)
        ```

    Order documents:
        ```python
        from langchain_core.documents import Document

        documents = [Document("Foxes eat mice."), Document("The sky is blue.")]
        best = reranker.compress_documents(documents, "What do foxes eat?")
        best[0].metadata["relevance_score"]
        ```

    Behind a retriever:
        ```python
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_cyllama import CyllamaEmbeddings

        retriever = InMemoryVectorStore.from_documents(documents, CyllamaEmbeddings()).as_retriever()
        query = "What do foxes eat?"
        reranker.compress_documents(retriever.invoke(query), query)
        ```

    Raises:
        cyllama.ModelNotFoundError: There is no such file, nor a model of that name.
        cyllama.ConfigError: An argument has a value out of its range.
        cyllama.ConfigTypeError: There is no such argument.
    """

    top_n: Annotated[int, Field(ge=1)] | None = 3
    """How many documents to return; `None` for all."""

    truncate: bool = True
    """Whether a document that is too long is cut at its end; otherwise it is refused."""

    n_ctx: int | None = None
    """Maximum number of tokens of the query with a document; 0 or `None` for the training length of the model."""

    num_ctx: int | None = None
    """Another name for `n_ctx`."""

    verbose: bool = False
    """Whether to show cyllama's log on stderr."""

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_EMBEDDINGS

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain has it
    ) -> Sequence[Document]:
        """Return the documents that answer the query best, the best one first.

        >>> from langchain_core.documents import Document
        >>> from langchain_cyllama import CyllamaReranker
        >>> documents = [Document("The boat is blue."), Document("Ada lives in London.")]
        >>> best = CyllamaReranker(top_n=1).compress_documents(documents, "Who lives in London?")
        >>> best[0].page_content
        'Ada lives in London.'

        Args:
            documents: The documents. They are not changed.
            query: The query.
            callbacks: Not used.

        Returns:
            Copies of at most `top_n` documents, with a `relevance_score` in their metadata: the score of a rank model,
            on a scale of its own, or the cosine similarity of two embeddings.

        Raises:
            PromptError: The query or a document is empty.
            ContextSizeError: The query or a document is too long.
        """
        if not documents:
            return []
        texts, options = [document.page_content for document in documents], self._ranking_options()
        try:
            scores = self.client.rerank(query, texts, **options)
        except UnsupportedModelError:
            scores = _similarities(self.client.embed([query, *texts], **options))
        return self._best(documents, scores)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002 - LangChain has it
    ) -> Sequence[Document]:
        """Do what `compress_documents` does without blocking the event loop. No thread waits for the result.

        Args:
            documents: The documents. They are not changed.
            query: The query.
            callbacks: Not used.
        """
        if not documents:
            return []
        texts, options = [document.page_content for document in documents], self._ranking_options()
        try:
            scores = await self.client.arerank(query, texts, **options)
        except UnsupportedModelError:
            scores = _similarities(await self.client.aembed([query, *texts], **options))
        return self._best(documents, scores)

    # -------------------- internal

    def _ranking_options(self) -> dict[str, Any]:
        n_ctx = translate({"n_ctx": self.n_ctx, "num_ctx": self.num_ctx}).get("n_ctx")
        return {"truncate": self.truncate, "n_ctx": n_ctx}

    def _best(self, documents: Sequence[Document], scores: list[float]) -> list[Document]:
        ranked = sorted(zip(documents, scores, strict=True), key=lambda pair: pair[1], reverse=True)
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
            for document, score in ranked[: self.top_n]
        ]


def _similarities(vectors: list[list[float]]) -> list[float]:
    """Return the cosine similarity of the first vector with each of the others. All have the length 1."""
    query, *others = vectors
    return [sum(a * b for a, b in zip(query, other, strict=True)) for other in others]
