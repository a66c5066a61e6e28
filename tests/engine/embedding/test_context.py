"""Passes and the context that they are computed in: created, reused, replaced, released."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cyllama import (
    LLM,
    ContextMemoryError,
)
from cyllama.engine import embedding
from cyllama.engine.embedding import Embedder

from ...support.embedding import SAME, cosines, some_texts
from ...support.harness import in_threads
from ...support.random_models import (
    HYBRID,
    RECURRENT,
)


def test_many_short_texts_take_few_passes(bert: LLM):
    texts = some_texts(1000, most_words=3)
    n_tokens = sum(bert.count_tokens(text) for text in texts)
    vectors = bert.embed(texts)
    stats = bert.stats
    assert (stats.texts_embedded, stats.tokens_embedded) == (1000, n_tokens)
    assert stats.embedding_passes <= 1.2 * max(n_tokens / 512, 1000 / 128) + 1
    assert cosines(vectors[::100], [bert.embed(text) for text in texts[::100]]).min() > SAME


def test_texts_of_all_lengths_fill_the_passes(load: Callable[..., LLM]):
    llm = load("bert", n_ubatch=256)
    texts = ["hello " * 120] * 3 + ["fox " * 60] * 6 + ["world"] * 20
    n_tokens = sum(llm.count_tokens(text) for text in texts)
    assert len(llm.embed(texts)) == 29
    assert llm.stats.embedding_passes == -(-n_tokens // 256) == 4


@pytest.mark.parametrize("kind", [*RECURRENT, *HYBRID])
def test_models_with_a_state_have_few_sequences(kind: str, load: Callable[..., LLM]):
    llm = load(kind)
    assert len(llm.embed(["hello"] * 9)) == 9
    assert llm.stats.embedding_passes == 3


def test_the_context_is_created_by_the_first_call_reused_and_released(bert: LLM):
    others = set(threading.enumerate())
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_n_ctx) == (0, 0)
    bert.embed("hello")
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_context_reuses) == (1, 0)
    assert bert.stats.embedding_n_ctx == 512
    bert.embed(["hello"] * 300)
    assert (bert.stats.embedding_contexts_created, bert.stats.embedding_context_reuses) == (1, 1)
    for release in (bert.close, bert.close, bert.reset_context):
        release()
        assert bert.stats.embedding_n_ctx == 0
    assert all(thread.name != "cyllama-embedder" for thread in set(threading.enumerate()) - others)
    vector = bert.embed("hello")
    assert bert.stats.embedding_contexts_created == 2
    with bert:
        assert bert.embed("hello") == vector
    assert bert.stats.embedding_n_ctx == 0
    assert bert.stats.contexts_created == 0


def test_a_longer_text_gets_a_larger_context_with_room_for_more(load: Callable[..., LLM]):
    llm = load("llama", n_ubatch=256)
    llm.embed("hello")
    assert llm.stats.embedding_n_ctx == 256
    n_first = llm.embed("hello " * 150) and llm.stats.embedding_n_ctx
    assert n_first == 512
    llm.embed("hello " * 1000)
    n_tokens = llm.count_tokens("hello " * 1000)
    assert llm.stats.embedding_n_ctx == -(-n_tokens // 256) * 256 > 1024
    llm.embed(["hello"] * 3)
    assert (llm.stats.embedding_contexts_created, llm.stats.embedding_context_reuses) == (3, 1)


def test_generations_and_embeddings_have_contexts_side_by_side(load: Callable[..., LLM]):
    llm = load("tiny-chat")
    alone, vector = llm("Once upon a time", max_tokens=16), llm.embed("a fox")
    session = llm.session("ada")
    session("Once", max_tokens=4)
    texts: list[str] = []
    vectors: list[list[float]] = []
    in_threads(
        [
            lambda: texts.append(llm("Once upon a time", max_tokens=16).text),
            lambda: vectors.extend(llm.embed("a fox") for _ in range(20)),
        ]
    )
    assert texts == [alone.text]
    assert vectors == [vector] * 20
    assert (llm.stats.contexts_created, llm.stats.embedding_contexts_created) == (1, 1)
    assert session.tokens > 0
    llm.reset_context(session="ada")
    assert llm.stats.embedding_n_ctx > 0


def test_without_memory_for_it_there_is_an_error_and_what_was_there_stays(
    load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    llm = load("llama")
    vector = llm.embed("hello")
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "available_memory", lambda: 16 * 2**20)
        with pytest.raises(ContextMemoryError, match=r"2304 tokens needs .* GiB, but 0.0 GiB"):
            llm.embed(["hello", "hello " * 1100])
    assert llm.embed("hello") == vector
    assert llm.stats.embedding_n_ctx == 512


def test_a_larger_context_than_needed_is_given_up_where_memory_is_short(
    load: Callable[..., LLM], monkeypatch: pytest.MonkeyPatch
):
    llm = load("llama")
    llm.embed("hello " * 1000)
    n_ctx = llm.stats.embedding_n_ctx
    check = Embedder._check_memory

    def short(self: Embedder, n: int) -> None:
        if n >= 2 * n_ctx:
            raise ContextMemoryError("none")
        check(self, n)

    monkeypatch.setattr(Embedder, "_check_memory", short)
    llm.embed("hello " * 1100)
    assert n_ctx < llm.stats.embedding_n_ctx < 2 * n_ctx
