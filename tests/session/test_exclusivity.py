"""Pools that hold one conversation at a time."""

from __future__ import annotations

import asyncio

import pytest

from cyllama import LLM, ConfigError, SessionPool

from ..support.pools import ADA, CAPITAL, NAME, ask, user


def test_an_exclusive_pool_drops_the_context_for_another_conversation(llm: LLM) -> None:
    pool = SessionPool(llm, exclusive=True)
    _, answer = ask(pool, [ADA], "ada")
    assert ask(pool, [ADA, answer.message, NAME], "ada")[0] == "continue"
    with pool.stateless() as lease:
        assert llm.chat([CAPITAL], session=lease.name, max_tokens=24).text == "The capital of France is Paris."
    contexts = llm.stats.contexts_created
    ask(pool, [user("My name is Ben.")], "ben")
    assert llm.stats.contexts_created == contexts + 1
    assert llm.sessions == ["ben"]
    choice, again = ask(pool, [ADA, answer.message, NAME], "ada")
    assert (choice, again.text, again.usage.cached_tokens) == ("new", "Your name is Ada.", 0)
    with pytest.raises(ConfigError, match="pass the name of the conversation"):
        pool.lease([ADA])


def test_exclusive_conversations_wait_for_each_other_in_an_event_loop(llm: LLM) -> None:
    pool = SessionPool(llm, exclusive=True)

    async def answer(name: str) -> str:
        question = [user("Count from 1 to 10.")]
        async with pool.lease(question, name) as lease:
            return (await llm.achat(question, session=lease.name)).finish_reason

    async def main() -> list[str]:
        return await asyncio.gather(*(answer(name) for name in ("ada", "ben", "cleo") * 3))

    assert set(asyncio.run(main())) == {"stop"}
    assert len({name.partition("\x1f")[0] for name in llm.sessions}) == 1


def test_a_generation_that_was_handed_over_keeps_no_other_conversation_waiting_for_its_reader(llm: LLM) -> None:
    pool, question = SessionPool(llm, exclusive=True), [user("Count from 1 to 10.")]
    with pool.lease(question, "ada") as lease:
        stream = lease.hand_over(lambda session: llm.chat(question, session=session, stream=True))
        assert ask(pool, [CAPITAL], "ben")[1].text == "The capital of France is Paris."
        assert stream.read().finish_reason == "stop"
