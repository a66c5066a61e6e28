"""Callbacks of tasks, which may be coroutines."""

from __future__ import annotations

import asyncio

import pytest

from cyllama import LLM

from ..support.event_loops import CAPITAL, PARIS, assert_idle, run
from ..support.harness import (
    ANIMALS,
    ENDLESS,
    Reference,
    story,
)


def test_on_token_may_be_a_function_or_a_coroutine(eight: LLM):
    async def main() -> None:
        seen: list[str] = []
        awaited: list[str] = []

        async def listen(chunk: str) -> None:
            await asyncio.sleep(0)
            awaited.append(chunk)

        response = await eight.agenerate(story(), on_token=seen.append, max_tokens=30)
        assert "".join(seen) == response
        assert await eight.agenerate(story(), on_token=listen, max_tokens=30) == response
        assert awaited == seen
        assert [chunk async for chunk in eight.astream(story(), on_token=listen, max_tokens=30)] == seen
        assert awaited == seen * 2

    run(main)


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_what_a_callback_raises_is_raised_and_ends_its_generation_only(kind: str, eight: LLM, reference: Reference):
    def fail(chunk: str) -> None:
        raise LookupError(chunk)

    async def fail_later(chunk: str) -> None:
        await asyncio.sleep(0)
        raise LookupError(chunk)

    async def main() -> None:
        others = [eight.astream(story(animal), max_tokens=40) for animal in ANIMALS[:5]]
        with pytest.raises(LookupError, match="Once"):
            await eight.agenerate(story(), on_token=fail if kind == "function" else fail_later, **ENDLESS)
        for other in others:
            await other.read()
            reference.check(other._request)

    run(main)
    assert_idle(eight)


def test_a_callback_may_ask_the_same_model(eight: LLM):
    async def main() -> None:
        answers: list[str] = []

        async def ask(_: str) -> None:
            if not answers:
                answers.append(await eight.agenerate(CAPITAL))

        await eight.agenerate(story(), on_token=ask, max_tokens=10)
        assert answers == [PARIS]

    run(main)
