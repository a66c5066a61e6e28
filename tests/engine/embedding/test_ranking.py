"""Documents ranked by how well they answer a query."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cyllama import (
    LLM,
    ConfigError,
    ContextSizeError,
)
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams

from ...support.embedding import some_texts
from ...support.random_models import (
    BERT_N_CTX,
)


def test_documents_are_ranked_in_their_order_whatever_stands_beside_them(ranker: LLM):
    documents = some_texts(30, most_words=10)
    scores = ranker.rerank("what do foxes eat?", documents)
    assert len(set(scores)) > 20
    alone = [ranker.rerank("what do foxes eat?", [document])[0] for document in documents]
    np.testing.assert_allclose(scores, alone, atol=0.01)
    assert scores != ranker.rerank("hello", documents)
    assert ranker.stats.embedding_contexts_created == 1


def test_a_pair_is_written_as_the_model_was_trained(ranker: LLM):
    [score] = ranker.rerank("the fox", ["mice"])
    vocab = ranker.model.vocab
    tokens = [vocab.tokenize(text, add_special=False) for text in ("the fox", "mice")]
    batch = LlamaBatch(32)
    batch.add_sequence([vocab.bos, *tokens[0], vocab.eos, *tokens[1], vocab.eos], logits_all=True)
    params = LlamaContextParams()
    params.n_ctx, params.embeddings = 256, True
    with LlamaContext(ranker.model, params) as context:
        context.decode(batch)
        assert score == pytest.approx(context.get_embeddings_seq(0)[0], abs=1e-3)


def test_ranking_for_an_event_loop(ranker: LLM):
    documents = some_texts(3)
    assert asyncio.run(ranker.arerank("fox", documents)) == pytest.approx(ranker.rerank("fox", documents), abs=0.01)


def test_long_documents_are_refused_or_truncated(ranker: LLM):
    with pytest.raises(ContextSizeError, match=rf"the query with document 1 has 20\d tokens .* {BERT_N_CTX} "):
        ranker.rerank("hello", ["fox", "fox " * 200])
    scores = ranker.rerank("hello", ["fox", "fox " * 200, "fox " * 300], truncate=True)
    assert scores[1] == pytest.approx(scores[2], abs=0.01)
    with pytest.raises(ContextSizeError, match=r"has \d+ tokens that cannot be left out"):
        ranker.rerank("fox " * 200, ["fox"], truncate=True)


def test_a_call_may_set_a_shorter_limit(bert: LLM, ranker: LLM):
    with pytest.raises(ContextSizeError, match="32"):
        bert.embed("fox " * 50, n_ctx=32)
    cut = bert.embed("fox " * 50, n_ctx=32, truncate=True)
    assert cut == pytest.approx(asyncio.run(bert.aembed("fox " * 60, n_ctx=32, truncate=True)), abs=1e-3)
    assert cut != pytest.approx(bert.embed("fox " * 50), abs=1e-3)
    with pytest.raises(ContextSizeError, match="32"):
        ranker.rerank("hello", ["fox " * 50], n_ctx=32)
    assert asyncio.run(ranker.arerank("hello", ["fox " * 50], n_ctx=32, truncate=True))
    with pytest.raises(ConfigError, match="n_ctx"):
        bert.embed("fox", n_ctx=-1)
