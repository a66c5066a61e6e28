"""Running coroutines, and the state of the engine afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cyllama import LLM, AsyncStream

from .harness import ANIMALS, ENDLESS, settled, story, turn

T = TypeVar("T")
CAPITAL = turn("What is the capital of France?")
PARIS = "The capital of France is Paris."


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine as a program would, and see that it leaves no task behind."""

    async def checked() -> T:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(checked())


async def in_thread(function: Callable[[], T]) -> T:
    """Wait for a function without blocking the loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function)


def start_endless(llm: LLM, n: int) -> list[AsyncStream]:
    return [llm.astream(story(animal), **ENDLESS) for animal in ANIMALS[:n]]


def assert_idle(llm: LLM) -> None:
    settled(llm)
    assert (llm.stats.running, llm.stats.waiting) == (0, 0)
    assert llm.stats.kv_cells_used == 0 or llm.sessions
