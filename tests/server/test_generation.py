"""The answers of one request: what is given back, and when."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from cyllama import LLM, SessionPool
from cyllama_server.activity import Activity
from cyllama_server.generation import Answers
from cyllama_server.metrics import Metrics
from cyllama_server.models import LoadedModel
from cyllama_server.sessions import Asked, KnownSessions
from cyllama_server.tenants import Tenant


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_sees_the_end_of_an_answer_finds_its_session_free(llm: LLM, n: int) -> None:
    model = LoadedModel("tiny-chat", llm, SessionPool(llm), KnownSessions(llm), Activity(), 0)
    messages: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    starts = [partial(lambda session: llm.astream_chat(messages, session=session, max_tokens=8))] * n

    async def choice_at_the_end() -> tuple[str, list[str]]:
        answers = Answers[Any, Any](model, AsyncExitStack(), Metrics(dict), 120)
        await answers.start(Asked(Tenant(""), "ada", messages, {}), starts)
        async for _ in answers:
            pass
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
