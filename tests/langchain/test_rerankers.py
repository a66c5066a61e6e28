"""Documents put into the order in which they answer a query."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import gguf
import pytest
from langchain_core.documents import BaseDocumentCompressor, Document

from cyllama import LLM, ConfigError, ContextSizeError, PromptError
from langchain_cyllama import CyllamaReranker

from ..support.random_models import write_random_bert

QUERY = "what do foxes eat?"
DOCUMENTS = [
    Document(text, id=str(i), metadata={"page": i})
    for i, text in enumerate(["the sky is blue", "foxes eat mice", "water", "the owl sleeps", "foxes eat"])
]


@pytest.fixture(scope="module")
def rank_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bert(tmp_path_factory.mktemp("models") / "rank.gguf", pooling=gguf.PoolingType.RANK)


@pytest.fixture
def reranker(rank_file: Path) -> Iterator[CyllamaReranker]:
    with CyllamaReranker(model_path=rank_file, n_threads=1, top_n=None) as reranker:
        yield reranker


def scores(documents: object) -> list[float]:
    assert isinstance(documents, list)
    return [document.metadata["relevance_score"] for document in documents]


def test_the_best_document_comes_first_with_the_models_score(reranker: CyllamaReranker):
    ranked = reranker.compress_documents(DOCUMENTS, QUERY)
    expected = reranker.client.rerank(QUERY, [document.page_content for document in DOCUMENTS])
    assert scores(ranked) == sorted(expected, reverse=True)
    assert [expected[document.metadata["page"]] for document in ranked] == scores(ranked)


def test_documents_keep_what_they_had(reranker: CyllamaReranker):
    ranked = reranker.compress_documents(DOCUMENTS, QUERY)
    assert {(document.id, document.metadata["page"]) for document in ranked} == {(str(i), i) for i in range(5)}
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS)


def test_only_the_best_are_returned(rank_file: Path, reranker: CyllamaReranker):
    whole = reranker.compress_documents(DOCUMENTS, QUERY)
    assert CyllamaReranker(model_path=rank_file, n_threads=1).compress_documents(DOCUMENTS, QUERY) == whole[:3]
    best = CyllamaReranker(model_path=rank_file, n_threads=1, top_n=1).compress_documents(DOCUMENTS, QUERY)
    assert best == whole[:1]
    with pytest.raises(ConfigError, match="top_n: input should be greater than or equal to 1, not 0"):
        CyllamaReranker(top_n=0)


def test_it_ranks_for_an_event_loop(reranker: CyllamaReranker, llm: LLM):
    for model in (reranker, CyllamaReranker(llm=llm)):
        ranked = asyncio.run(model.acompress_documents(DOCUMENTS, QUERY))
        assert [d.id for d in ranked] == [d.id for d in model.compress_documents(DOCUMENTS, QUERY)]


def test_no_documents_are_no_error(reranker: CyllamaReranker):
    assert reranker.compress_documents([], QUERY) == asyncio.run(reranker.acompress_documents([], QUERY)) == []


def test_a_model_that_does_not_rank_compares_embeddings(llm: LLM):
    ranked = CyllamaReranker(llm=llm, top_n=None).compress_documents(DOCUMENTS, DOCUMENTS[3].page_content)
    assert ranked[0].id == "3"
    assert scores(ranked)[0] == pytest.approx(1, abs=1e-3)
    assert all(-1 <= score < 0.999 for score in scores(ranked)[1:])


def test_it_works_without_arguments():
    with CyllamaReranker() as reranker:
        assert len(reranker.compress_documents(DOCUMENTS, QUERY)) == 3


def test_long_documents_are_cut_or_refused(rank_file: Path, reranker: CyllamaReranker):
    documents = [Document("fox " * 500), Document("fox")]
    assert len(reranker.compress_documents(documents, QUERY)) == 2
    strict = CyllamaReranker(model_path=rank_file, truncate=False)
    with pytest.raises(ContextSizeError, match="the query with document 0"):
        strict.compress_documents(documents, QUERY)
    short = CyllamaReranker(model_path=rank_file, truncate=False, n_ctx=32)
    with pytest.raises(ContextSizeError, match="32"):
        short.compress_documents([Document("fox " * 40)], QUERY)


def test_an_empty_query_is_refused(reranker: CyllamaReranker):
    with pytest.raises(PromptError, match="the query is empty"):
        reranker.compress_documents(DOCUMENTS, "")


def test_it_is_a_document_compressor(reranker: CyllamaReranker):
    assert isinstance(reranker, BaseDocumentCompressor)
