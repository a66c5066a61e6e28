"""A cancelled task ends its generation and frees its place."""

from __future__ import annotations

import asyncio
import gc
from functools import partial
from typing import Any

import pytest

from cyllama import LLM, DecodeError

from ..support.event_loops import CAPITAL, PARIS, assert_idle, in_thread, run, start_endless
from ..support.harness import (
    ENDLESS,
    EXACT,
    Reference,
    Step,
    held,
    settled,
    story,
    turn,
)


def test_a_cancelled_task_frees_its_cells_before_the_next_step(eight: LLM, steps: list[Step], reference: Reference):
    async def main() -> None:
        stays = start_endless(eight, 3)
        stream = eight.astream(story(), **ENDLESS)
        task = asyncio.ensure_future(stream.read())
        while len(stream._request.tokens) < 5:
            await asyncio.sleep(0)
        with held(eight):
            n_steps, n_tokens = len(steps), len(stream._request.tokens)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while len(steps) < n_steps + 2:  # one has ended
            await asyncio.sleep(0)
        for other in stays:
            await other.aclose()
            reference.check(other._request)
        requests = [other._request for other in stays]
        assert steps[n_steps].requests == set(requests)
        done = {request: sum(request in step.generated for step in steps[: n_steps + 1]) for request in requests}
        assert steps[n_steps].cells == sum(len(request.prompt) + done[request] for request in requests)
        assert len(stream._request.tokens) == n_tokens

    run(main)


@pytest.mark.usefixtures("long_quanta")
def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line(steps: list[Step]):
    with LLM(**EXACT, n_parallel=1) as llm:

        async def main() -> None:
            running = llm.astream(story(), **ENDLESS)
            await running.__anext__()
            tasks = [asyncio.ensure_future(llm.agenerate(CAPITAL)) for _ in range(5)]
            await asyncio.sleep(0)
            assert llm.stats.waiting == 5
            for task in tasks[1:4]:
                task.cancel()
            await asyncio.gather(*tasks[1:4], return_exceptions=True)
            await in_thread(partial(settled, llm))
            assert llm.stats.waiting == 2
            await running.aclose()
            assert [await tasks[0], await tasks[4]] == [PARIS] * 2
            assert [task.cancelled() for task in tasks] == [False, True, True, True, False]

        run(main)
        assert len({request for step in steps for request in step.requests}) == 3


@pytest.mark.parametrize("n", [1, 4])
def test_cancelling_a_task_ends_all_that_it_waited_for_although_the_task_is_kept(n: int, eight: LLM):
    """A task keeps its exception, which keeps the frame, which keeps what is in it."""

    async def main() -> None:
        n_steps = eight.stats.steps
        if n == 1:
            task: asyncio.Future[Any] = asyncio.ensure_future(eight.agenerate(story(), **ENDLESS))
        else:
            task = asyncio.ensure_future(eight.agenerate(story(), n=n, **ENDLESS))
        while eight.stats.steps < n_steps + 5:
            await asyncio.sleep(0)
        assert eight.stats.running == n
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await in_thread(partial(settled, eight))
        assert (eight.stats.running, eight.stats.waiting, eight.stats.kv_cells_used) == (0, 0, 0)

    run(main)


def test_the_failure_of_one_continuation_ends_the_others(eight: LLM, steps: list[Step]):
    """With these penalties the third token cannot be sampled; with another seed nothing changes."""

    async def main() -> None:
        with pytest.raises(DecodeError, match="not numbers"):
            await eight.agenerate(story(), n=3, logit_bias={300: float("inf")}, frequency_penalty=3.4e38)
        assert await eight.agenerate(CAPITAL) == PARIS

    run(main)
    assert_idle(eight)


def test_a_timeout_ends_the_generation(eight: LLM, reference: Reference):
    async def main() -> None:
        other = eight.astream(story(), max_tokens=60)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(eight.agenerate(story(), **ENDLESS), 0.05)
        await in_thread(partial(settled, eight))
        assert eight.stats.running <= 1
        await other.read()
        reference.check(other._request)

    run(main)
    assert_idle(eight)


@pytest.mark.usefixtures("lockstep")
def test_in_a_session_a_timeout_leaves_what_had_been_said(eight: LLM):
    session = eight.session()

    async def main() -> None:
        assert await session.agenerate(turn("My name is Ada."), max_tokens=20) == "Nice to meet you, Ada."
        before = session.tokens
        stream = session.astream("\n" + story(), **ENDLESS)
        for _ in range(5):
            await stream.__anext__()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.read(), 0.01)
        await stream.aclose()
        request = stream._request
        assert session.tokens == len(request.prompt) + len(request.tokens) > before
        question = "<|im_end|>\n" + turn("What is my name?")
        answer = await session.agenerate(question, max_tokens=20)  # after a story that was cut who knows where
        assert answer.startswith("Your name is Ada")

    run(main)
    session.close()


def test_a_loop_left_early_ends_the_generation(eight: LLM):
    async def main() -> None:
        async for chunk in eight.astream(story(), **ENDLESS):
            assert chunk.startswith("Once")
            break
        gc.collect()
        await in_thread(partial(settled, eight))
        assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)

    run(main)


def test_aclose_waits_for_the_end_and_keeps_what_was_generated(eight: LLM):
    async def main() -> None:
        stream = eight.astream(story(), **ENDLESS)
        text = await stream.__anext__()
        await stream.aclose()
        assert stream.response.finish_reason == "cancelled"
        assert stream.response.startswith(text)
        await stream.aclose()
        assert [chunk async for chunk in stream] == []
        assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)

    run(main)


def test_cancel_lets_what_was_generated_be_read(eight: LLM):
    async def main() -> None:
        stream = eight.astream(story(), **ENDLESS)
        text = await stream.__anext__()
        stream.cancel()
        text += "".join([chunk async for chunk in stream])
        assert stream.response == text

    run(main)


def test_leaving_the_block_ends_the_generation(eight: LLM):
    async def main() -> None:
        async with eight.astream(story(), **ENDLESS) as stream:
            async for _ in stream:
                break
        assert stream.response.finish_reason == "cancelled"
        with pytest.raises(LookupError):
            async with eight.astream(story(), **ENDLESS) as stream:
                raise LookupError
        assert stream.response.finish_reason == "cancelled"

    run(main)
    assert_idle(eight)


def test_closing_the_model_ends_what_tasks_wait_for(eight: LLM):
    async def main() -> None:
        streams = start_endless(eight, 16)
        await streams[0].__anext__()
        eight.close()
        responses = await asyncio.gather(*(stream.read() for stream in streams))
        assert [response.finish_reason for response in responses] == ["cancelled"] * 16
        assert await eight.agenerate(CAPITAL) == PARIS

    run(main)
