"""Errors are raised where the answer is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, DecodeError, PromptError
from cyllama.errors import ConfigError, ConfigTypeError

from ..support.event_loops import CAPITAL, assert_idle, run
from ..support.harness import (
    Reference,
    story,
)


def test_errors_are_raised_where_the_answer_is_awaited(eight: LLM, reference: Reference):
    async def main() -> None:
        other = eight.astream(story(), max_tokens=60)
        long = [300] * 3000
        misspelt: dict[str, Any] = {"temprature": 1}
        also_streaming: dict[str, Any] = {"on_token": print}
        wrong: list[tuple[type[Exception], Awaitable[object]]] = [
            (PromptError, eight.agenerate("")),
            (PromptError, eight.agenerate([1, 2**20])),
            (PromptError, eight.agenerate("\ud800")),
            (ContextSizeError, eight.agenerate(long)),
            (ContextSizeError, eight.agenerate(CAPITAL, n_ctx=4)),
            (ContextSizeError, eight.agenerate(long, n=3)),
            (ContextSizeError, eight.session("long").agenerate(long)),
            (ConfigError, eight.agenerate(CAPITAL, temperature=-1)),
            (ConfigError, eight.agenerate(CAPITAL, n=0)),
            (ConfigError, eight.agenerate(CAPITAL, n=2, **also_streaming)),
            (ConfigTypeError, eight.agenerate(CAPITAL, **misspelt)),
            (ConfigTypeError, eight.agenerate(CAPITAL, on_token=3)),  # type: ignore[arg-type]
        ]
        outcomes = await asyncio.gather(*(awaitable for _, awaitable in wrong), return_exceptions=True)
        for outcome, (kind, _) in zip(outcomes, wrong, strict=True):
            assert isinstance(outcome, kind), repr(outcome)
        with pytest.raises(ContextSizeError):
            eight.astream(long)
        await other.read()
        reference.check(other._request)
        eight.reset_context(session="long")

    run(main)
    assert_idle(eight)


def test_an_error_after_the_first_chunks_comes_after_them(eight: LLM):
    async def main() -> None:
        chunks: list[str] = []
        options: dict[str, Any] = {"logit_bias": {300: float("inf")}, "frequency_penalty": 3.4e38}
        stream = eight.astream(story(), on_token=chunks.append, **options)
        with pytest.raises(DecodeError, match="failed after 2 tokens") as caught:
            await stream.read()
        assert "".join(chunks) == caught.value.partial_text == stream.response

    run(main)


def test_without_a_running_loop_nothing_is_submitted(eight: LLM):
    with pytest.raises(RuntimeError, match="no running event loop"):
        eight.astream(story())
    assert_idle(eight)
