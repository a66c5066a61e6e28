"""Embeddings through LangChain, with the embedded model and a small random one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from cyllama import LLM, ConfigError, ContextSizeError, PromptError, UnsupportedModelError
from langchain_cyllama import CyllamaEmbeddings

from ..support.random_models import BERT_N_CTX, write_random_bert


@pytest.fixture(scope="module")
def bert_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_bert(tmp_path_factory.mktemp("models") / "bert.gguf")


@pytest.fixture
def embeddings(bert_file: Path) -> Iterator[CyllamaEmbeddings]:
    with CyllamaEmbeddings(model_path=bert_file, n_threads=1) as embeddings:
        yield embeddings


def test_vectors_are_those_of_cyllama(embeddings: CyllamaEmbeddings):
    texts = ["the fox", "the owl sleeps"]
    vectors = embeddings.embed_documents(texts)
    assert vectors == embeddings.client.embed(texts)
    assert embeddings.embed_query(texts[0]) == pytest.approx(vectors[0], abs=1e-3)
    assert asyncio.run(embeddings.aembed_documents(texts)) == vectors
    assert asyncio.run(embeddings.aembed_query(texts[0])) == pytest.approx(vectors[0], abs=1e-3)


def test_many_texts_are_computed_in_one_pass(embeddings: CyllamaEmbeddings):
    embeddings.embed_documents(["fox " * n for n in range(1, 20)])
    stats = embeddings.client.stats
    assert (stats.embedding_contexts_created, stats.embedding_context_reuses) == (1, 0)


def test_no_texts_have_no_vectors(embeddings: CyllamaEmbeddings):
    assert embeddings.embed_documents([]) == asyncio.run(embeddings.aembed_documents([])) == []


def test_vectors_have_the_length_1_unless_asked_otherwise(bert_file: Path, embeddings: CyllamaEmbeddings):
    assert math.hypot(*embeddings.embed_query("the fox")) == pytest.approx(1)
    with CyllamaEmbeddings(model_path=bert_file, normalize=False) as raw:
        assert math.hypot(*raw.embed_query("the fox")) != pytest.approx(1, abs=0.01)


def test_the_first_dimensions_may_do(bert_file: Path, embeddings: CyllamaEmbeddings):
    whole = embeddings.embed_query("the fox")
    with CyllamaEmbeddings(model_path=bert_file, dimensions=8) as short:
        vector = short.embed_query("the fox")
        assert len(vector) == 8
        assert math.hypot(*vector) == pytest.approx(1)
        assert vector[0] / vector[1] == pytest.approx(whole[0] / whole[1], rel=0.01)
    with CyllamaEmbeddings(model_path=bert_file, dimensions=8, normalize=False) as raw:
        assert math.hypot(*raw.embed_query("the fox")) != pytest.approx(1, abs=0.01)
    with pytest.raises(ConfigError, match="dimensions is 4096, but the vectors have"):
        CyllamaEmbeddings(model_path=bert_file, dimensions=4096).embed_query("the fox")
    with pytest.raises(ConfigError, match="dimensions: input should be greater than or equal to 1"):
        CyllamaEmbeddings(dimensions=0)


def test_the_end_of_a_long_text_is_left_out_or_the_text_refused(bert_file: Path, embeddings: CyllamaEmbeddings):
    long, longer = "fox " * BERT_N_CTX, "fox " * 2 * BERT_N_CTX
    assert embeddings.embed_query(long) == pytest.approx(embeddings.embed_query(longer), abs=1e-3)
    strict = CyllamaEmbeddings(model_path=bert_file, truncate=False)
    with pytest.raises(ContextSizeError, match=str(BERT_N_CTX)):
        strict.embed_documents(["fox", long])


@pytest.mark.parametrize("name", ["n_ctx", "num_ctx"])
def test_a_shorter_limit_can_be_set(name: str, bert_file: Path, embeddings: CyllamaEmbeddings):
    arguments: dict[str, Any] = {name: 16}
    short = CyllamaEmbeddings(model_path=bert_file, n_threads=1, truncate=False, **arguments)
    assert short.client is embeddings.client
    assert short.embed_query("the fox")
    with pytest.raises(ContextSizeError, match="16"):
        asyncio.run(short.aembed_query("fox " * 20))
    assert embeddings.embed_query("fox " * 20)
    unlimited = CyllamaEmbeddings(model_path=bert_file, n_threads=1, truncate=False, n_ctx=0)
    assert unlimited.embed_query("fox " * 20) == pytest.approx(embeddings.embed_query("fox " * 20), abs=1e-3)


def test_a_batch_is_what_is_computed_at_once(bert_file: Path):
    with CyllamaEmbeddings(model_path=bert_file, n_batch=128) as model:
        assert model.client.model_config.n_ubatch == 128
    with pytest.raises(ConfigError, match="n_batch=128 and n_ubatch=256 differ"):
        CyllamaEmbeddings(model_path=bert_file, n_batch=128, n_ubatch=256)


def test_an_empty_text_is_named(embeddings: CyllamaEmbeddings):
    with pytest.raises(PromptError, match="text 1 of the list is empty"):
        embeddings.embed_documents(["fox", ""])


def test_a_model_that_ranks_makes_no_embeddings(tmp_path: Path):
    path = write_random_bert(tmp_path / "rank.gguf", pooling=gguf.PoolingType.RANK)
    with CyllamaEmbeddings(model_path=path) as model, pytest.raises(UnsupportedModelError, match="it ranks"):
        model.embed_query("fox")


def test_a_vector_store_is_filled_and_asked(llm: LLM):
    store = InMemoryVectorStore(CyllamaEmbeddings(llm=llm))
    documents = [Document("The fox sleeps in the wood."), Document("What is the capital of France?")]
    store.add_documents(documents)
    [found] = store.similarity_search(documents[1].page_content, k=1)
    assert found.page_content == documents[1].page_content
