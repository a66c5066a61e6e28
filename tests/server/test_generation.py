"""The answers of one request: what is given back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from cyllama import LLM, AsyncChatStream, SessionPool
from cyllama_server.activity import Activity
from cyllama_server.generation import Answers
from cyllama_server.metrics import Metrics
from cyllama_server.models import LoadedModel
from cyllama_server.sessions import Asked, KnownSessions
from cyllama_server.tenants import Tenant


def loaded(llm: LLM) -> LoadedModel:
    return LoadedModel("tiny-chat", llm, SessionPool(llm), KnownSessions(llm), Activity(), 0)


def answers_of(model: LoadedModel, until_end: AsyncExitStack | None = None) -> Answers[Any, Any]:
    return Answers(model, AsyncExitStack(), until_end or AsyncExitStack(), Metrics(dict), 1000)


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_sees_the_end_of_an_answer_finds_its_session_and_its_place_free(llm: LLM, n: int) -> None:
    model = loaded(llm)
    messages: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    starts = [lambda cached_in: llm.astream_chat(messages, max_tokens=8, **cached_in)] * n
    places = ["one"]

    async def choice_at_the_end() -> tuple[str, list[str]]:
        until_end = AsyncExitStack()
        until_end.callback(places.clear)
        answers = answers_of(model, until_end)
        await answers.start(Asked(Tenant(""), "ada", messages, {}), starts)
        assert places
        async for _ in answers:
            pass
        assert not places
        answer, sessions = answers.responses[0].message, llm.sessions
        async with model.pool.lease([*messages, answer, {"role": "user", "content": "Who am I?"}], "ada") as lease:
            choice = lease.choice
        counted = model.activity.of(Tenant("")).generated
        await answers.aclose()
        assert counted == model.activity.of(Tenant("")).generated == answers.usage.completion_tokens
        return choice, sessions

    choice, sessions = asyncio.run(choice_at_the_end())
    assert choice == "continue"
    assert len(sessions) == n, "each answer has a session of its own"


@pytest.mark.parametrize("tenants", [("ada", "ben"), ("",)])
def test_answers_without_a_session_share_prefixes_with_those_of_their_tenant_alone(tenants: tuple[str, ...]) -> None:
    messages: list[Any] = [
        {"role": "user", "content": "The name of my first dog was Rex, and the password is that. " * 3}
    ]
    with LLM(temperature=0, prefix_cache=True, max_sessions=1) as llm, llm.session():  # no other session is possible
        model = loaded(llm)

        async def cached(tenant: str) -> int:
            answers = answers_of(model)

            def start(cached_in: Mapping[str, Any]) -> AsyncChatStream:
                return llm.astream_chat(messages, max_tokens=2, **cached_in)

            await answers.start(Asked(Tenant(tenant), None, messages, {}), [start])
            [answer] = await answers.read()
            await answers.aclose()
            return answer.usage.cached_tokens

        n_tokens = llm.count_tokens(messages)
        for tenant in tenants:
            assert asyncio.run(cached(tenant)) == 0
        for tenant in tenants:
            assert asyncio.run(cached(tenant)) == n_tokens - 1


@pytest.mark.parametrize("turns", range(6))
def test_a_client_that_goes_away_as_the_first_piece_arrives_is_not_missed(llm: LLM, turns: int) -> None:
    model = loaded(llm)
    messages: list[Any] = [{"role": "user", "content": "Hello"}]

    async def is_missed() -> bool:
        answers = answers_of(model)
        start = asyncio.ensure_future(answers.wait_for_first(1000))
        await asyncio.sleep(0.01)  # it waits
        asked = Asked(Tenant(""), None, messages, {})
        await answers.start(asked, [lambda cached_in: llm.astream_chat(messages, max_tokens=2, **cached_in)])
        while not answers.goes_on() and not start.done():
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        is_late = not start.cancel()
        [outcome] = await asyncio.gather(start, return_exceptions=True)
        await answers.aclose()
        return not (is_late or isinstance(outcome, asyncio.CancelledError))

    assert not asyncio.run(is_missed())
