"""Forks of a session: they go on from what it held, and each goes its own way."""

from __future__ import annotations

import pytest

from cyllama import LLM
from cyllama.errors import PromptTypeError, SessionError

from ..support.conversations import (
    CAPITAL,
    END,
    IDS,
    NEARLY_TIED,
    STORY,
    check_integrity,
    counting,
    regret,
    swap_out,
    tokens_of,
    user,
)
from ..support.harness import held as the_engine_waiting


def test_a_fork_goes_its_own_way(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    bob = ada.fork("bob")
    rest, other = user("What is my name?"), END + CAPITAL
    with counting(llm) as turns:
        answers = [ada(rest), bob(other)]
    assert answers == ["Your name is Ada.", "The capital of France is Paris."]
    assert turns.evaluated == len(llm.tokenize(rest)) + len(llm.tokenize(other)) + 1
    assert [answer.usage.cached_tokens for answer in answers] == [held - 1, held], "its last token is evaluated once"
    assert bob(END + rest) == "Your name is Ada."


def test_a_fork_holds_what_its_parent_held_then(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    fork = ada.fork()
    ada("\n" + STORY, max_tokens=30)
    assert tokens_of(fork) == held
    answer = fork(user("What is my name?"))
    assert answer == "Your name is Ada."
    assert answer.usage.cached_tokens >= len(held) - 1


def test_a_fork_made_while_its_parent_answers_holds_the_turns_before(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = tokens_of(ada)
    with ada("\n" + STORY, stream=True) as stream:
        next(stream)
        fork = ada.fork()
        answer = fork("\n" + user("What is my name?"))
    assert tokens_of(fork)[: len(held)] == held
    assert answer.usage.cached_tokens >= len(held) - 1
    assert answer == "Your name is Ada."
    check_integrity(llm)


def test_a_fork_outlives_its_parent(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    with the_engine_waiting(llm):
        fork = ada.fork("bob").fork("zoe")
        ada.close()
        llm.reset_context(session="bob")
    assert llm.sessions == ["zoe"]
    answer = fork("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    check_integrity(llm)


def test_a_fork_of_an_empty_session_is_empty(llm: LLM):
    fork = llm.session("ada").fork("bob")
    assert (fork.name, fork.tokens) == ("bob", 0)
    assert fork(CAPITAL) == "The capital of France is Paris."


def test_a_fork_of_what_was_swapped_or_dropped_goes_on(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    swap_out(llm)
    assert ada.fork()("\n" + user("What is my name?")) == "Your name is Ada."
    llm.close()
    assert ada.fork()("\n" + user("What is my name?")) == "Your name is Ada."


def test_eight_forks_of_a_long_session_evaluate_what_follows_it_only(llm: LLM):
    parent = llm.session()
    parent(IDS[:1000], max_tokens=0)
    forks = [parent.fork() for _ in range(8)]
    suffixes = [IDS[1000 + 20 * i : 1005 + 21 * i] for i in range(8)]
    with counting(llm) as turns:
        streams = [fork(ids, max_tokens=5, stream=True) for fork, ids in zip(forks, suffixes, strict=True)]
        answers = [stream.read() for stream in streams]
    assert turns.evaluated == sum(len(suffix) for suffix in suffixes)
    assert turns.reused == 8 * 1000
    assert [answer.usage.cached_tokens for answer in answers] == [1000] * 8
    assert regret(llm, tokens_of(forks[7]), 1000 + len(suffixes[7])) < NEARLY_TIED


def test_the_name_of_a_fork_is_free_and_a_text(llm: LLM):
    ada = llm.session("ada")
    ada.fork("bob")
    with pytest.raises(SessionError, match="'bob' already"):
        ada.fork("bob")
    with pytest.raises(PromptTypeError, match="a str, not int"):
        ada.fork(3)  # type: ignore[arg-type]
    assert ada.fork().name not in ("ada", "bob")
    assert len(llm.sessions) == 3
