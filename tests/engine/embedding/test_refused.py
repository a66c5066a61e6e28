"""What cannot be embedded is refused, or truncated where that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyllama import (
    LLM,
    ContextSizeError,
    DecodeError,
    PromptError,
    PromptTypeError,
    UnsupportedModelError,
)

from ...support.embedding import SAME, cosines
from ...support.random_models import (
    BERT_N_CTX,
)


def test_models_that_make_embeddings_do_not_generate(bert: LLM, load: Callable[..., LLM]):
    for llm in (bert, load("t5encoder"), load("rank"), load("bert-causal")):
        with pytest.raises(UnsupportedModelError, match="cannot generate text"):
            llm("hi")
    assert len(bert.embed("hi")) == 64


def test_models_that_cannot_do_it_say_so(bert: LLM, ranker: LLM, llm: LLM, load: Callable[..., LLM]):
    with pytest.raises(UnsupportedModelError, match=r"it ranks: use rerank\(\)"):
        ranker.embed("hello")
    for other in (bert, llm):
        with pytest.raises(UnsupportedModelError, match="does not rank"):
            other.rerank("hello", ["world"])
    with pytest.raises(UnsupportedModelError, match="pooling_type '99' is unknown"):
        load("bert-unknown").embed("hello")


def test_a_damaged_model_is_an_error(load: Callable[..., LLM]):
    llm = load("bert-nan")
    with pytest.raises(DecodeError, match=r"of text \d is not finite"):
        llm.embed(["hello", "world"])


def test_pooling_can_be_overridden(models: Callable[[str], Path], load: Callable[..., LLM]):
    overridden = load("bert", kv_overrides={"bert.pooling_type": 2})
    assert cosines([overridden.embed("the fox sleeps")], [load("bert-cls").embed("the fox sleeps")])[0] > SAME


@pytest.mark.parametrize("kind", ["bert", "tiny-chat"])
def test_texts_that_are_too_long_are_refused_or_truncated(kind: str, load: Callable[..., LLM]):
    llm = load(kind)
    limit, long = llm.n_ctx_train, "fox " * 3000
    n_tokens = llm.count_tokens(long)
    with pytest.raises(ContextSizeError, match=f"text 1 has {n_tokens} tokens but at most {limit} "):
        llm.embed(["hello", long])
    with pytest.raises(ContextSizeError, match=f"the text has {n_tokens} tokens"):
        llm.embed(long)
    short, cut = llm.embed(["hello", long], truncate=True)
    assert cosines([short], [llm.embed("hello")])[0] > SAME
    n_words = next(n for n in range(limit, 0, -1) if llm.count_tokens("fox " * n) <= limit)
    assert cosines([cut], [llm.embed("fox " * n_words)])[0] > SAME


def test_the_end_token_stays_where_a_text_is_truncated(load: Callable[..., LLM]):
    llm = load("bert-last")
    truncated, whole = llm.embed("fox " * 200, truncate=True), llm.embed("fox " * (BERT_N_CTX - 2))
    assert cosines([truncated], [whole])[0] > SAME


def test_n_ctx_limits_texts_and_does_not_extend_positions(load: Callable[..., LLM]):
    with pytest.raises(ContextSizeError, match="has 42 tokens but at most 32"):
        load("bert", n_ctx=32).embed("fox " * 40)
    with pytest.raises(ContextSizeError, match=f"has 202 tokens but at most {BERT_N_CTX}"):
        load("bert", n_ctx=4096).embed("fox " * 200)


@pytest.mark.parametrize(
    ("texts", "error", "why"),
    [
        ([], PromptError, "the list of texts is empty"),
        ("", PromptError, "is empty"),
        (["hello", ""], PromptError, "text 1 of the list is empty"),
        (["hello", " \n"], PromptError, "text 1 is empty: it has no tokens"),
        (["hello", "\ud800x"], PromptError, "text 1.* lone surrogate at index 0"),
        ("x\udfff", PromptError, "the text.* lone surrogate at index 1"),
        (b"hello", PromptTypeError, "a list of texts, not bytes"),
        (None, PromptTypeError, "a list of texts, not NoneType"),
        (5, PromptTypeError, "a list of texts, not int"),
        ({"a": 1}, PromptTypeError, "a list of texts, not dict"),
        (["hello", 5], PromptTypeError, "text 1 of the list is a str, not int"),
        (["hello", None], PromptTypeError, "text 1 of the list is a str, not NoneType"),
        ([["hello"]], PromptTypeError, "text 0 of the list is a str, not list"),
    ],
)
def test_bad_texts_are_refused_and_the_next_ones_embedded(
    texts: Any, error: type[Exception], why: str, bert: LLM, ranker: LLM
):
    with pytest.raises(error, match=why):
        bert.embed(texts)
    with pytest.raises(error, match=why):
        asyncio.run(bert.aembed(texts))
    if not isinstance(texts, str) and texts != ["hello", " \n"]:
        with pytest.raises(error, match=why.replace("text", "document")):
            ranker.rerank("hello", texts)
    assert len(bert.embed("hello")) == 64


@pytest.mark.parametrize(
    ("query", "error", "why"),
    [
        ("", PromptError, "the query is empty"),
        (None, PromptTypeError, "the query is a str, not NoneType"),
        ("\ud800", PromptError, "the query cannot be encoded"),
    ],
)
def test_bad_queries_are_refused(query: Any, error: type[Exception], why: str, ranker: LLM):
    with pytest.raises(error, match=why):
        ranker.rerank(query, ["hello"])
    assert len(ranker.rerank("hello", ["world"])) == 1
