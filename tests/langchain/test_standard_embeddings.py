"""LangChain's own tests of embeddings, with the embedded model and, slow, a real one."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_cyllama import CyllamaEmbeddings

from ..support.sentence_model import UnavailableError, sentence_model


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CyllamaEmbeddings


class TestIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CyllamaEmbeddings


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the venv of the original model is laid out for Unix")
class TestIntegrationOfARealModel(EmbeddingsIntegrationTests):
    path: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _converted(cls) -> None:
        try:
            TestIntegrationOfARealModel.path = str(sentence_model().gguf)
        except UnavailableError as error:
            pytest.skip(str(error))

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return CyllamaEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_path": self.path}

    def test_a_vector_store_finds_what_answers(self, model: CyllamaEmbeddings) -> None:
        texts = ["Foxes eat mice and berries.", "The sky is blue.", "Water boils at 100 degrees Celsius."]
        store = InMemoryVectorStore.from_texts(texts, model)
        [found] = store.similarity_search("What is a fox's diet?", k=1)
        assert found.page_content == texts[0]
