"""Calls that end early, because the caller closes, drops or cancels them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableLambda

from cyllama import LLM
from langchain_cyllama import ChatCyllama

from ..support.chats import STORY
from ..support.harness import ENDLESS, settled


@contextmanager
def ends_early(llm: LLM) -> Iterator[None]:
    """See that what is begun within ends long before it would by itself."""
    before = llm.stats.tokens_generated
    yield
    settled(llm)
    assert llm.stats.tokens_generated - before < 19_000


def test_a_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    with ends_early(chat.client):
        stream = cast("Generator[Any]", chat.bind(**ENDLESS).stream(STORY))
        next(stream)
        stream.close()


def test_a_stream_that_is_dropped_stops_the_generation(chat: ChatCyllama) -> None:
    chain = RunnableLambda(lambda text: text) | chat.bind(**ENDLESS)
    with ends_early(chat.client):
        for _ in chain.stream(STORY):
            break
        gc.collect()


def test_a_task_that_is_cancelled_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        task = asyncio.create_task(chat.bind(**ENDLESS).ainvoke(STORY))
        while not chat.client.stats.running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ends_early(chat.client):
        asyncio.run(main())


def test_an_async_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        stream = cast("AsyncGenerator[Any]", chat.bind(**ENDLESS).astream(STORY))
        await anext(stream)
        await stream.aclose()

    with ends_early(chat.client):
        asyncio.run(main())


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_an_event_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        stream = await chat.astream_events(STORY, version="v3", **ENDLESS)
        async for _ in stream:
            break
        await stream.aclose()

    with ends_early(chat.client):
        asyncio.run(main())
