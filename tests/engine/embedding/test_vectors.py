"""Vectors of texts: their length, their pooling, and that neighbours do not change them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from cyllama import (
    LLM,
)
from cyllama.engine import embedding
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaPoolingType

from ...support.embedding import SAME, cosines, some_texts
from ...support.random_models import (
    ARCHITECTURES,
)

KINDS = ("tiny-chat", "bert", "bert-cls", "bert-last", "t5encoder", *ARCHITECTURES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_vector_alone_and_among_others_in_any_order(kind: str, load: Callable[..., LLM]):
    llm, texts = load(kind), some_texts(40)
    alone = [llm.embed(text) for text in texts]
    together = llm.embed(texts)
    assert cosines(alone, together).min() > SAME
    order = random.Random(2).sample(range(40), 40)
    shuffled = llm.embed([texts[i] for i in order])
    assert cosines([together[i] for i in order], shuffled).min() > SAME
    assert cosines(alone, alone[1:] + alone[:1]).max() < 0.97


@pytest.mark.parametrize("kind", ["tiny-chat", "bert", "t5encoder"])
def test_vectors_have_length_one_unless_they_are_not_to_be_normalized(kind: str, load: Callable[..., LLM]):
    llm, texts = load(kind), some_texts(5)
    plain = llm.embed(texts, normalize=False)
    np.testing.assert_allclose(np.linalg.norm(llm.embed(texts), axis=1), 1)
    assert all(abs(length - 1) > 0.01 for length in np.linalg.norm(plain, axis=1))
    assert cosines(plain, llm.embed(texts)).min() > SAME


def test_a_text_gives_a_vector_and_a_list_of_texts_a_list(bert: LLM):
    vector, vectors = bert.embed("hello"), bert.embed(["hello"])
    assert len(vector) == bert.model.n_embd_out == 64
    assert all(type(x) is float for x in vector)
    # how many texts are computed at once decides which kernel multiplies them, and so the last digits
    assert len(vectors) == 1
    assert cosines(vectors, [vector])[0] > SAME
    together = bert.embed(text for text in ("hello", "hello"))
    assert len(together) == 2
    assert cosines(together, [vector, vector]).min() > SAME


def token_vectors(llm: LLM, text: str) -> np.ndarray:
    """Return the vectors of the tokens, without pooling, by the binding alone."""
    tokens = llm.tokenize(text)
    params = LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_ubatch = len(tokens)
    params.embeddings, params.pooling_type = True, LlamaPoolingType.NONE
    params.n_threads = params.n_threads_batch = 1
    batch = LlamaBatch(len(tokens))
    batch.add_sequence(tokens, logits_all=True)
    with LlamaContext(llm.model, params) as context:
        context.decode(batch)
        return np.array([np.asarray(context.get_embeddings_ith(i)) for i in range(len(tokens))])


@pytest.mark.parametrize(
    ("kind", "pool"),
    [
        ("bert", lambda x: x.mean(axis=0)),
        ("bert-unnamed", lambda x: x.mean(axis=0)),
        ("bert-none", lambda x: x.mean(axis=0)),
        ("bert-cls", lambda x: x[0]),
        ("bert-last", lambda x: x[-1]),
        ("tiny-chat", lambda x: x.mean(axis=0)),
    ],
)
def test_tokens_are_pooled_as_the_model_says_else_averaged(
    kind: str, pool: Callable[[np.ndarray], np.ndarray], load: Callable[..., LLM]
):
    llm = load(kind)
    text = " ".join(some_texts(2 if kind.startswith("bert") else 60))
    assert kind.startswith("bert") or llm.count_tokens(text) > 600  # more than a ubatch has by default
    expected = pool(token_vectors(llm, text))
    assert cosines([llm.embed(text, normalize=False)], [expected.tolist()])[0] > SAME
    np.testing.assert_allclose(llm.embed(text, normalize=False), expected, atol=0.02)


def test_accents_and_their_form_do_not_matter_to_a_model_that_ignores_them(bert: LLM, llm: LLM):
    plain = bert.tokenize("fee mice")
    assert bert.tokenize("f\u00e9e m\u00edce") == bert.tokenize("fe\u0301e mi\u0301ce") == plain
    assert llm.tokenize("f\u00e9e") != llm.tokenize("fe\u0301e")


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba", "lfm2"])
def test_texts_evaluated_in_pieces_have_the_vectors_of_whole_ones(
    kind: str, load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    texts = some_texts(12, most_words=60)
    whole = load(kind).embed(texts)
    monkeypatch.setattr(embedding, "LOGITS_BYTES", 1)  # the least pieces that there are
    llm = load(kind)
    assert cosines(llm.embed(texts), whole).min() > SAME
    assert cosines([llm.embed(text) for text in texts[:3]], whole[:3]).min() > SAME


def test_no_logits_are_kept_for_every_token_of_a_long_text(load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch):
    """A text cut to the training length is refused for what its keys and values take, not for logits."""
    llm = load("llama")
    n_vocab, n_ctx = llm.model.vocab.n_tokens, llm.n_ctx_train
    logits = 4 * n_vocab * n_ctx
    monkeypatch.setattr(embedding, "LOGITS_BYTES", 64 * 4 * n_vocab)  # as of a larger vocabulary
    monkeypatch.setattr(embedding, "available_memory", lambda: logits)
    assert len(llm.embed("hello " * (n_ctx + 100), truncate=True)) > 0
    assert llm.stats.tokens_embedded == n_ctx
