"""Event loops: coroutines and streams give what calls give, and nothing blocks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cyllama import LLM, AsyncStream, Response
from cyllama.errors import StreamNotFinishedError

from ..support.event_loops import CAPITAL, PARIS, run, start_endless
from ..support.harness import (
    ANIMALS,
    Reference,
    Step,
    held,
    story,
    turn,
)


def test_a_coroutine_returns_what_a_call_returns(eight: LLM):
    async def main() -> Response:
        return await eight.agenerate(story())

    response, expected = run(main), eight(story())
    assert isinstance(response, Response)
    assert (response, response.finish_reason, response.usage) == (expected, "stop", expected.usage)


def test_a_stream_yields_chunks_that_add_up_to_the_response(eight: LLM):
    async def main() -> None:
        stream = eight.astream(story())
        with pytest.raises(StreamNotFinishedError):
            _ = stream.response
        chunks = [chunk async for chunk in stream]
        assert len(chunks) > 50
        assert "".join(chunks) == stream.response
        assert [chunk async for chunk in stream] == [], "an exhausted stream stays exhausted"

    run(main)


def test_twenty_at_once_get_what_they_would_get_alone(eight: LLM, steps: list[Step], reference: Reference):
    async def main() -> list[AsyncStream]:
        with held(eight):
            streams = [eight.astream(story(animal), max_tokens=40) for animal in ANIMALS[:20]]
        await asyncio.gather(*(stream.read() for stream in streams))
        return streams

    for stream in run(main):
        reference.check(stream._request)
    assert max(len(step.generated) for step in steps) == 8


def test_gathered_coroutines_are_answered_in_their_order(eight: LLM):
    async def main() -> list[Response]:
        return await asyncio.gather(*(eight.agenerate(turn(f"Count from {i} to {i + 3}.")) for i in range(1, 21)))

    assert run(main) == [f"{i}, {i + 1}, {i + 2}, {i + 3}." for i in range(1, 21)]


@pytest.mark.usefixtures("lockstep")
def test_the_loop_goes_on_while_the_model_computes(eight: LLM):
    async def main() -> int:
        ticks = 0
        answer = asyncio.ensure_future(eight.agenerate(story(), max_tokens=60))
        while not answer.done():
            ticks += 1
            await asyncio.sleep(0)
        assert (await answer).usage.completion_tokens == 60
        return ticks

    assert run(main) >= 60, "once for every token at least"


def test_no_thread_is_started_for_a_request(eight: LLM):
    eight(CAPITAL, max_tokens=1)
    before = set(threading.enumerate())

    async def main() -> None:
        streams = start_endless(eight, 30)
        for stream in streams[:8]:
            await stream.__anext__()
        assert set(threading.enumerate()) <= before
        for stream in streams:
            await stream.aclose()
        await asyncio.gather(*(eight.agenerate(CAPITAL) for _ in range(30)))
        assert set(threading.enumerate()) <= before

    run(main)


def test_several_continuations_of_a_prompt(eight: LLM):
    async def main() -> None:
        assert await eight.agenerate(CAPITAL, n=4) == [PARIS] * 4
        sampled = await eight.agenerate(turn("Tell me a joke."), n=4, seed=1, temperature=1, max_tokens=20)
        assert len(set(sampled)) > 1

    run(main)
