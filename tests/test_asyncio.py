"""The same from event loops: nothing blocks, nothing waits in threads, and cancelling a task ends its generation."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest

from cyllama import LLM, AsyncStream, ContextSizeError, DecodeError, EventLoopError, PromptError, Response, SessionError
from cyllama.chat_stream import AsyncChatStream
from cyllama.errors import ConfigError, ConfigTypeError, StreamNotFinishedError

from .support.harness import ANIMALS, ENDLESS, EXACT, Reference, Step, engine_of, held, in_threads, settled, story, turn

T = TypeVar("T")
CAPITAL = turn("What is the capital of France?")
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture
def eight(steps: list[Step]) -> Iterator[LLM]:
    """The embedded model for eight callers at a time."""
    with LLM(**EXACT, n_parallel=8) as llm:
        yield llm


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


# --- results


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


def test_the_loop_goes_on_while_the_model_computes(eight: LLM):
    async def main() -> int:
        ticks = 0
        answer = asyncio.ensure_future(eight.agenerate(story(), max_tokens=60))
        while not answer.done():
            ticks += 1
            await asyncio.sleep(0)
        assert (await answer).usage.completion_tokens == 60
        return ticks

    assert run(main) > 60, "once for every token at least"


def test_no_thread_is_started_for_a_request(eight: LLM):
    eight(CAPITAL, max_tokens=1)
    before = threading.active_count()

    async def main() -> None:
        streams = start_endless(eight, 30)
        for stream in streams[:8]:
            await stream.__anext__()
        assert threading.active_count() == before
        for stream in streams:
            await stream.aclose()
        await asyncio.gather(*(eight.agenerate(CAPITAL) for _ in range(30)))
        assert threading.active_count() == before

    run(main)


def test_several_continuations_of_a_prompt(eight: LLM):
    async def main() -> None:
        assert await eight.agenerate(CAPITAL, n=4) == [PARIS] * 4
        sampled = await eight.agenerate(turn("Tell me a joke."), n=4, seed=1, temperature=1, max_tokens=20)
        assert len(set(sampled)) > 1

    run(main)


# --- callbacks


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


# --- cancellation


def test_a_cancelled_task_frees_its_cells_before_the_next_step(eight: LLM, steps: list[Step], reference: Reference):
    async def main() -> None:
        stays = [eight.astream(story(animal), max_tokens=100, ignore_eos=True) for animal in ANIMALS[:3]]
        stream = eight.astream(story(), **ENDLESS)
        task = asyncio.ensure_future(stream.read())
        while len(stream._request.tokens) < 5:
            await asyncio.sleep(0)
        with held(eight):
            n_steps, n_tokens = len(steps), len(stream._request.tokens)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for other in stays:
            await other.read()
            reference.check(other._request)
        requests = [other._request for other in stays]
        assert steps[n_steps].requests == set(requests)
        done = {request: sum(request in step.generated for step in steps[: n_steps + 1]) for request in requests}
        assert steps[n_steps].cells == sum(len(request.prompt) + done[request] for request in requests)
        assert len(stream._request.tokens) == n_tokens

    run(main)


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
            await asyncio.wait_for(eight.agenerate(story(), n_ctx=20_000, **ENDLESS), 0.05)
        await in_thread(partial(settled, eight))
        assert eight.stats.running <= 1
        await other.read()
        reference.check(other._request)

    run(main)
    assert_idle(eight)


def test_in_a_session_a_timeout_leaves_what_had_been_said(eight: LLM):
    session = eight.session()

    async def main() -> None:
        assert await session.agenerate(turn("My name is Ada."), max_tokens=20) == "Nice to meet you, Ada."
        before = session.tokens
        stream = session.astream("\n" + story(), n_ctx=20_000, **ENDLESS)
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


# --- errors


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


# --- several loops, and loops that end


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


# --- sessions


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
