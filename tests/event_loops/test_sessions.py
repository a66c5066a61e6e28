"""Sessions of tasks."""

from __future__ import annotations

import asyncio

import pytest

from cyllama import LLM, AsyncStream, EventLoopError, Response, SessionError
from cyllama.chat_stream import AsyncChatStream

from ..support.event_loops import CAPITAL, PARIS, assert_idle, in_thread, run
from ..support.harness import (
    ENDLESS,
    Step,
    engine_of,
    settled,
    story,
    turn,
)


def test_turns_of_a_conversation_are_taken_in_the_order_of_the_calls(eight: LLM, steps: list[Step]):
    session = eight.session()

    async def main() -> tuple[Response, ...]:
        return await asyncio.gather(
            session.agenerate(turn("My name is Zorblax."), max_tokens=20),
            session.agenerate("\n" + turn("What is my name?"), max_tokens=20),
            session.agenerate("\n" + turn("My lucky number is 4711."), max_tokens=20),
            session.agenerate("\n" + turn("What is my lucky number?"), max_tokens=20),
            session.agenerate("\n" + turn("What is my name?"), max_tokens=20),
        )

    assert list(run(main)) == [
        "Nice to meet you, Zorblax.",
        "Your name is Zorblax.",
        "Got it, your lucky number is 4711.",
        "Your lucky number is 4711.",
        "Your name is Zorblax.",
    ]
    assert max(len(step.requests) for step in steps) == 1
    session.close()


def test_conversations_of_many_tasks_are_kept_apart(eight: LLM, steps: list[Step]):
    names = ["Ada", "Bob", "Kimbo", "Zorblax", "Taveri", "Lunor", "Mira", "Tobin", "Quimby", "Reek", "Barlo", "Leth"]

    async def converse(name: str) -> Response:
        with eight.session() as session:
            assert await session.agenerate(turn(f"My name is {name}."), max_tokens=20) == f"Nice to meet you, {name}."
            assert [chunk async for chunk in session.astream("\n" + turn("Count from 3 to 15."), max_tokens=60)]
            return await session.agenerate("\n" + turn("What is my name?"), max_tokens=20)

    async def main() -> list[Response]:
        return await asyncio.gather(*(converse(name) for name in names))

    assert run(main) == [f"Your name is {name}." for name in names]
    assert max(len(step.requests) for step in steps) > 4
    assert eight.sessions == []
    assert_idle(eight)


def test_the_whole_history_may_be_given_by_name(eight: LLM):
    async def main() -> None:
        history = turn("My name is Ada.")
        first = await eight.agenerate(history, session="ada", max_tokens=20)
        history += first + "<|im_end|>\n" + turn("What is my name?")
        chunks = [chunk async for chunk in eight.astream(history, session="ada", max_tokens=20)]
        assert "".join(chunks) == "Your name is Ada."
        assert eight.stats.prompt_tokens_reused > 0
        eight.reset_context(session="ada")

    run(main)


def test_a_closed_session_is_refused_in_the_task(eight: LLM):
    session = eight.session()
    session.close()

    async def main() -> None:
        with pytest.raises(SessionError, match="was closed"):
            await session.agenerate(CAPITAL)

    run(main)


def test_forgetting_a_conversation_ends_its_generations_and_no_other(eight: LLM):
    ada, bob = eight.session(), eight.session()

    async def main() -> None:
        running = ada.astream(story(), **ENDLESS)
        waiting = asyncio.ensure_future(ada.agenerate(story()))
        other = asyncio.ensure_future(bob.agenerate(CAPITAL, max_tokens=20))
        await running.__anext__()
        ada.close()
        assert (await running.read()).finish_reason == "cancelled"
        assert (await waiting).finish_reason == "cancelled"
        assert await other == PARIS
        assert engine_of(eight)._scheduler.n_waiting == 0

    run(main)
    bob.close()


def test_a_stream_read_in_another_event_loop_is_refused_and_can_be_read_in_its_own(llm: LLM):
    async def main() -> None:
        stream = llm.astream(story(), max_tokens=3, ignore_eos=True)
        chat = llm.astream_chat([{"role": "user", "content": "Hello"}])

        def elsewhere() -> None:
            with pytest.raises(EventLoopError, match="another event loop"):
                asyncio.run(anext_of(stream))
            with pytest.raises(EventLoopError, match="another event loop"):
                asyncio.run(stream_read(chat))

        await in_thread(elsewhere)
        assert len([chunk async for chunk in stream]) == 3
        await chat.read()

    run(main)


def test_closing_a_stream_in_another_event_loop_cancels_it(llm: LLM):
    async def make() -> AsyncStream:
        return llm.astream(story(), **ENDLESS)

    async def close(stream: AsyncStream) -> None:
        async with stream:
            pass

    stream = asyncio.run(make())
    with pytest.raises(EventLoopError):
        asyncio.run(close(stream))
    settled(llm)
    assert llm.stats.running == 0


async def anext_of(stream: AsyncStream) -> str:
    return await stream.__anext__()


async def stream_read(stream: AsyncChatStream) -> None:
    await stream.read()
