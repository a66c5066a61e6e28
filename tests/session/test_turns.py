"""Turns of a conversation: what is remembered, and what is evaluated."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from cyllama import LLM, ContextSizeError, PromptError
from cyllama.engine.tuning import MIN_SHARED

from ..support.conversations import (
    CAPITAL,
    END,
    IDS,
    STORY,
    SYSTEM,
    check_integrity,
    common_length,
    counting,
    tokens_of,
    user,
)
from ..support.harness import in_threads


def test_a_session_remembers_what_was_said(llm: LLM):
    ada = llm.session("ada")
    assert "Ada" in ada(user("My name is Ada."))
    assert ada("\n" + user("What is my name?")) == "Your name is Ada."


def test_the_next_turn_evaluates_only_what_is_new(llm: LLM):
    ada = llm.session()
    first = ada(CAPITAL)
    assert first.usage.cached_tokens == 0
    held = ada.tokens
    assert held == first.usage.total_tokens
    rest = "\n" + user("What is the capital of Italy?")
    with counting(llm) as turn:
        second = ada(rest)
    n_rest = len(llm.tokenize(rest))
    assert second.usage.prompt_tokens == held + n_rest
    assert second.usage.cached_tokens == held - 1, "the last token of an answer is not evaluated before the next turn"
    assert (turn.evaluated, turn.reused) == (n_rest + 1, held - 1)


def test_appending_and_the_whole_history_are_the_same_conversation(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    rest = "\n" + user("What is the capital of Italy?")
    answers = [ada(CAPITAL), ada(rest)]
    history = CAPITAL
    first = llm(history, session="bob")
    assert first == answers[0]
    history += first + END.rstrip() + rest
    with counting(llm) as turn:
        second = llm(history, session="bob")
    assert second == answers[1]
    assert second.usage.cached_tokens > first.usage.prompt_tokens
    assert turn.evaluated == second.usage.prompt_tokens - second.usage.cached_tokens
    assert tokens_of(ada) == tokens_of(bob)


def test_a_whole_history_never_appends(llm: LLM):
    ada = llm.session("ada")
    llm(CAPITAL, session="ada")
    response = llm(CAPITAL, session="ada")
    assert response == "The capital of France is Paris."
    assert response.usage.prompt_tokens == llm.count_tokens(CAPITAL)
    assert ada.tokens == response.usage.total_tokens


def test_a_session_begins_with_one_bos_token_and_has_no_other(llm: LLM):
    bos = llm.model.vocab.bos
    ada = llm.session()
    ada(CAPITAL, add_bos=True)
    ada("\n" + CAPITAL, add_bos=True)
    assert tokens_of(ada)[0] == bos
    assert tokens_of(ada).count(bos) == 1


def test_a_session_takes_token_ids(llm: LLM):
    ada = llm.session()
    ids = llm.tokenize(CAPITAL)
    assert ada(ids[:5], max_tokens=0) == ""
    assert ada(ids[5:]) == "The capital of France is Paris."
    assert tokens_of(ada)[: len(ids)] == ids


def test_an_empty_text_continues_the_answer(llm: LLM):
    ada, whole = llm.session(), llm(STORY, max_tokens=20)
    first = ada(STORY, max_tokens=10)
    assert first + ada("", max_tokens=10) == whole


def test_a_session_cannot_begin_with_nothing(llm: LLM):
    ada = llm.session()
    with pytest.raises(PromptError, match="empty"):
        ada("")
    assert ada.tokens == 0
    assert ada(CAPITAL) == "The capital of France is Paris."


def test_max_tokens_zero_evaluates_for_later(llm: LLM):
    ada = llm.session()
    ada(SYSTEM, max_tokens=0)
    with counting(llm) as turn:
        ada(CAPITAL)
    assert turn.evaluated == llm.count_tokens(CAPITAL)


def test_calls_on_one_session_queue_up_in_order(llm: LLM):
    ada = llm.session()
    streams = [ada(user(f"My name is {name}."), stream=True) for name in ("Ada", "Bob", "Zoe")]
    answers = [stream.read() for stream in reversed(streams)][::-1]
    lengths = [answer.usage.prompt_tokens for answer in answers]
    assert lengths == sorted(lengths)
    for earlier, later in itertools.pairwise(answers):
        assert later.usage.prompt_tokens > earlier.usage.total_tokens
    assert ada.tokens == answers[-1].usage.total_tokens


def test_a_turn_that_fails_lets_those_behind_it_have_theirs(llm: LLM):
    ada = llm.session()
    with ada(CAPITAL, stream=True) as first:
        next(first)
        too_long, last = ada(IDS[:500], stream=True, n_ctx=300), ada("\n" + CAPITAL, stream=True)
        with pytest.raises(ContextSizeError):
            too_long.read()
        assert last.read() == "The capital of France is Paris."


def test_sessions_work_from_an_event_loop(llm: LLM):
    async def talk() -> list[str]:
        ada = llm.session("ada")
        first = await ada.agenerate(user("My name is Ada."))
        chunks = [chunk async for chunk in ada.astream("\n" + user("What is my name?"))]
        whole = await llm.agenerate(CAPITAL, session="bob")
        return [first, "".join(chunks), whole]

    assert asyncio.run(talk())[1:] == ["Your name is Ada.", "The capital of France is Paris."]


def test_many_threads_talk_to_their_own_sessions_at_once(llm: LLM):
    names = ["Ada", "Bob", "Zoe", "Tom", "Mia", "Ben"]

    def talk(name: str) -> str:
        session = llm.session(name)
        session(user(f"My name is {name}."))
        return session("\n" + user("What is my name?"))

    answers = in_threads([lambda name=name: talk(name) for name in names])
    assert answers == [f"Your name is {name}." for name in names]
    check_integrity(llm)


def test_a_shared_system_prompt_is_evaluated_once(llm: LLM):
    with counting(llm) as first:
        llm.session("ada")(SYSTEM + CAPITAL)
    with counting(llm) as second:
        llm.session("bob")(SYSTEM + STORY)
    shared = common_length(llm.tokenize(SYSTEM + CAPITAL), llm.tokenize(SYSTEM + STORY))
    assert shared >= llm.count_tokens(SYSTEM)
    assert first.evaluated == llm.count_tokens(SYSTEM + CAPITAL)
    assert second.evaluated == llm.count_tokens(SYSTEM + STORY) - shared


def test_a_shared_system_prompt_is_evaluated_once_by_sessions_that_start_together(llm: LLM):
    prompts = [SYSTEM + CAPITAL, SYSTEM + STORY]
    shared = common_length(*map(llm.tokenize, prompts))
    for _ in range(5):
        llm.reset_context()
        with counting(llm) as both:
            in_threads([lambda p=p: llm(p, session=p, max_tokens=3) for p in prompts])
        each_by_itself = sum(map(llm.count_tokens, prompts))
        assert each_by_itself - shared <= both.evaluated < each_by_itself - shared + MIN_SHARED


def test_nothing_is_shared_with_generations_that_have_no_session(llm: LLM):
    llm.session("ada")(SYSTEM + CAPITAL, max_tokens=2)
    with counting(llm) as alone:
        response = llm(SYSTEM + CAPITAL)
    assert (alone.evaluated, alone.reused) == (llm.count_tokens(SYSTEM + CAPITAL), 0)
    assert response.usage.cached_tokens == 0
