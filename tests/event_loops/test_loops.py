"""Several event loops, and loops that end while generations run."""

from __future__ import annotations

import asyncio
import gc
import threading
from functools import partial
from typing import Any

from cyllama import LLM, AsyncStream, Response, TextChunk
from cyllama.stream import LoopOutlet

from ..support.event_loops import CAPITAL, PARIS, assert_idle, run
from ..support.harness import (
    ANIMALS,
    ENDLESS,
    Reference,
    in_threads,
    story,
)


def test_loops_in_several_threads_share_the_model(eight: LLM, reference: Reference):
    async def ask(animals: list[str]) -> list[AsyncStream]:
        streams = [eight.astream(story(animal), max_tokens=25) for animal in animals]
        await asyncio.gather(*(stream.read() for stream in streams))
        return streams

    calls = [partial(run, partial(ask, ANIMALS[i : i + 6])) for i in range(0, 30, 6)]
    for streams in in_threads(calls):
        for stream in streams:
            reference.check(stream._request)
    assert_idle(eight)


def test_threads_and_tasks_share_the_model(eight: LLM):
    async def ask() -> list[Response]:
        return await asyncio.gather(*(eight.agenerate(CAPITAL) for _ in range(8)))

    def call() -> list[Response]:
        return [eight(CAPITAL) for _ in range(4)]

    answers = in_threads([partial(run, ask), call, partial(run, ask), call])
    assert [answer for some in answers for answer in some] == [PARIS] * 24


def test_a_loop_may_end_while_its_generations_run(eight: LLM):
    async def abandon() -> list[AsyncStream]:
        streams = [eight.astream(story(animal), max_tokens=100, ignore_eos=True) for animal in ANIMALS[:12]]
        await streams[0].__anext__()
        return streams

    streams = asyncio.run(abandon())
    assert eight(CAPITAL, max_tokens=1).finish_reason == "length", "the engine goes on, although the loop is closed"
    requests = [stream._request for stream in streams]
    del streams
    gc.collect()
    assert_idle(eight)
    assert {request.finish_reason for request in requests} <= {"cancelled", "length"}


def test_tasks_that_the_end_of_a_program_cancels_end_their_generations(eight: LLM):
    async def main() -> None:
        tasks = [asyncio.ensure_future(eight.agenerate(story(animal), **ENDLESS)) for animal in ANIMALS[:12]]
        n = eight.stats.steps
        while eight.stats.steps < n + 3:
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    asyncio.run(main())
    assert_idle(eight)


class CountingLoop(asyncio.SelectorEventLoop):
    """A loop that counts how often other threads wake it."""

    n_woken = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.n_woken += 1
        return super().call_soon_threadsafe(*args, **options)


def test_a_busy_loop_is_woken_once_for_all_that_arrives_meanwhile():
    async def read() -> tuple[int, list[list[TextChunk | None]]]:
        outlets = [LoopOutlet() for _ in range(8)]
        producer = threading.Thread(
            target=lambda: [outlet.put(TextChunk(f"{i}")) for i in range(100) for outlet in outlets]
        )
        producer.start()
        producer.join()  # the loop does nothing else
        n_woken = loop.n_woken
        return n_woken, [[await outlet.queue.get() for _ in range(100)] for outlet in outlets]

    loop = CountingLoop()
    try:
        n_woken, found = loop.run_until_complete(read())
    finally:
        loop.close()
    assert n_woken == 1
    assert found == [[f"{i}" for i in range(100)]] * 8


def test_chunks_of_many_threads_arrive_while_the_loop_reads():
    async def read() -> list[list[TextChunk | None]]:
        outlets = [LoopOutlet() for _ in range(8)]
        producers = [threading.Thread(target=fill, args=(outlet,)) for outlet in outlets]
        for producer in producers:
            producer.start()
        return [[await asyncio.wait_for(outlet.queue.get(), 120) for _ in range(2000)] for outlet in outlets]

    def fill(outlet: LoopOutlet) -> None:
        for i in range(2000):
            outlet.put(TextChunk(f"{i}"))

    assert run(read) == [[f"{i}" for i in range(2000)]] * 8


def test_a_loop_that_was_closed_drops_what_arrives():
    async def make() -> LoopOutlet:
        return LoopOutlet()

    outlet = run(make)
    for _ in range(100):
        outlet.put(TextChunk("late"))
    assert outlet.queue.empty()
