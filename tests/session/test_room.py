"""Sessions when the context or host memory is too small for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError
from cyllama.models import TINY_CHAT

from ..support.conversations import (
    CAPITAL,
    EXACT,
    IDS,
    NEARLY_TIED,
    STORY,
    SYSTEM,
    check_integrity,
    counting,
    regret,
    swap_out,
    tokens_of,
    user,
)
from ..support.harness import in_threads


def crowd_out(llm: LLM) -> None:
    """Take every cell of a context of a fixed size, so that every session has to leave it."""
    llm(IDS[: llm.stats.n_ctx - 1], max_tokens=1)
    assert llm.stats.resident == 0


def test_an_idle_session_leaves_for_host_memory_and_comes_back_without_evaluation(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    assert (llm.stats.resident, llm.stats.swapped) == (1, 0)
    swap_out(llm)
    assert (llm.stats.resident, llm.stats.swapped, llm.stats.kv_cells_used) == (0, 1, 0)
    assert llm.stats.host_bytes > 0
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    assert (llm.stats.resident, llm.stats.host_bytes) == (1, 0)


def test_a_session_that_went_on_outlives_one_that_never_did(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=1, kv_cells=1536, max_tokens=1) as llm:
        ada = llm.session("ada")
        ada(IDS[2000:2300])
        ada(IDS[2300:2400])
        llm(IDS[1000:1450], session="once")
        llm(IDS[1500:1950], session="once more")
        crowd_out(llm)
        assert (llm.stats.swapped, llm.stats.dropped) == (2, 1)
        assert llm.stats.host_bytes <= 2**20
        assert ada(IDS[2400:2410]).usage.cached_tokens == 401
        with counting(llm) as turn:
            assert llm(IDS[1000:1460], session="once").usage.cached_tokens == 0
        assert turn.evaluated == 460


def test_sessions_that_were_dropped_answer_the_same(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=0, kv_cells=768) as llm:
        sessions = {name: llm.session(name) for name in ("Ada", "Bob", "Zoe", "Tom")}
        for name, session in sessions.items():
            session(user(f"My name is {name}."))
        crowd_out(llm)
        assert (llm.stats.dropped, llm.stats.host_bytes) == (4, 0)
        for name, session in sessions.items():
            held, rest = session.tokens, "\n" + user("What is my name?")
            with counting(llm) as turn:
                assert session(rest) == f"Your name is {name}."
            assert held < turn.evaluated + turn.reused == held + len(llm.tokenize(rest))


def test_without_a_host_cache_a_session_that_stays_in_the_context_is_not_evaluated_again(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=0) as llm:
        ada, bob = llm.session("ada"), llm.session("bob")
        ada(user("My name is Ada."), max_tokens=10)
        bob(CAPITAL)
        held = ada.tokens
        assert ada("\n" + user("What is my name?")).usage.cached_tokens == held - 1
        check_integrity(llm)


def test_a_full_host_cache_never_disturbs_a_running_request(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, host_cache_mb=1, kv_cells=1024) as llm:
        ada = llm.session("ada")
        n_prompt = llm.count_tokens(SYSTEM + STORY)
        with ada(SYSTEM + STORY, stream=True, max_tokens=120, ignore_eos=True) as stream:
            next(stream)
            for i in range(8):
                llm(IDS[300 * i : 300 * i + 300], session=f"other {i}", max_tokens=1)
            answer = stream.read()
        assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 120)
        assert llm.stats.host_bytes <= 2**20
        assert llm.stats.dropped > 0
        assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED
        check_integrity(llm)


def test_more_sessions_than_fit_into_the_cells_take_turns(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, max_tokens=5) as llm:
        sessions = [llm.session() for _ in range(5)]
        for i, session in enumerate(sessions):
            session(IDS[100 * i : 100 * i + 80])
        assert llm.stats.swapped > 0
        for session in sessions:
            held = session.tokens
            with counting(llm) as turn:
                session(IDS[:10])
            assert turn.evaluated == 11
            assert regret(llm, tokens_of(session), held + 10) < NEARLY_TIED
        assert (llm.stats.n_ctx, llm.stats.contexts_created) == (256, 1)


def test_more_generations_than_fit_into_the_cells_all_come_to_their_end(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, max_tokens=100, ignore_eos=True) as llm:
        sessions = [llm.session() for _ in range(4)]
        answers = in_threads([lambda i=i: sessions[i](IDS[100 * i : 100 * i + 60]) for i in range(4)])
        for session, answer in zip(sessions, answers, strict=True):
            assert answer.usage.completion_tokens == 100
            assert regret(llm, tokens_of(session), 60) < NEARLY_TIED
        check_integrity(llm)


def test_a_session_as_large_as_all_cells_ends_there(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, n_threads=1, kv_cells=256, ignore_eos=True) as llm:
        ada = llm.session("ada")
        answer = ada(IDS[:200])
        assert answer.finish_reason == "length"
        assert answer.usage.total_tokens in (256, 257)
        with pytest.raises(ContextSizeError, match="kv_cells=256"):
            ada(IDS[:100])
        assert llm(CAPITAL, ignore_eos=False) == "The capital of France is Paris."


def test_a_larger_context_keeps_what_sessions_have_evaluated(llm: LLM):
    ada, bob = llm.session("ada"), llm.session("bob")
    ada(user("My name is Ada."), max_tokens=100)
    n_ctx, held = llm.stats.n_ctx, ada.tokens
    with counting(llm) as growth:
        bob(IDS[:600], max_tokens=1)
    assert llm.stats.n_ctx > n_ctx
    assert (growth.contexts, growth.evaluated) == (1, 600)
    rest = "\n" + user("What is my name?")
    with counting(llm) as turn:
        answer = ada(rest)
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)
    assert turn.evaluated == len(llm.tokenize(rest)) + 1


def take_turns(llm: LLM, n_turns: int = 4, **options: Any) -> None:
    """Let four conversations that fit into the first context alone, and not together, take turns."""
    for turn in range(1, n_turns + 1):
        for i in range(4):
            llm(IDS[600 * i : 600 * i + 60 * turn], session=f"{i}", max_tokens=1, **options)


def test_conversations_that_take_turns_do_not_drive_each_other_out_of_a_small_context(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm)
    assert (llm.stats.resident, llm.stats.swapped) == (4, 0)
    assert turns.contexts <= 3, "each at least twice as large as the one before"
    assert turns.evaluated == 4 * 240
    n_ctx = llm.stats.n_ctx
    with counting(llm) as one_off:
        llm(IDS[:60], max_tokens=1)
    assert (llm.stats.n_ctx, one_off.contexts) == (n_ctx, 0), "a call without a session needs no room for others"


def test_short_conversations_share_the_first_context(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm, n_turns=1)
    assert (llm.stats.n_ctx, llm.stats.resident, turns.contexts) == (256, 4, 1)


def test_without_memory_for_a_larger_context_conversations_take_turns_in_it(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    take_turns(llm, n_turns=1)
    monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", lambda: 0)
    with counting(llm) as turns:
        take_turns(llm)
    assert (llm.stats.n_ctx, turns.contexts) == (256, 0)
    assert llm.stats.swapped > 0
    assert turns.evaluated == 4 * 180 + 4, "the last token of a known prompt is evaluated again"


def test_a_context_grows_for_idle_conversations_only_as_far_as_they_cost_others_nothing(llm: LLM):
    for i in range(12):
        llm(IDS[100 * i : 100 * i + 1000], session=f"{i}", max_tokens=1)
    assert llm.stats.n_ctx == 4096
    assert llm.stats.swapped > 0


def test_a_context_of_a_fixed_size_does_not_grow_for_idle_conversations(llm: LLM):
    with counting(llm) as turns:
        take_turns(llm, n_ctx=256)
    assert (llm.stats.n_ctx, turns.contexts) == (256, 1)
    assert llm.stats.swapped > 0
    assert turns.evaluated == 4 * 240


def test_a_larger_context_keeps_what_is_being_generated(llm: LLM):
    ada = llm.session("ada")
    n_prompt = llm.count_tokens(STORY)
    with counting(llm) as both, ada(STORY, stream=True, max_tokens=150, ignore_eos=True) as stream:
        next(stream)
        n_ctx = llm.stats.n_ctx
        llm(IDS[:900], session="bob", max_tokens=1)
        assert llm.stats.n_ctx > n_ctx
        answer = stream.read()
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 150)
    assert both.evaluated == n_prompt + 900
    assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED


@pytest.mark.usefixtures("lockstep")
def test_an_answer_without_a_limit_grows_the_context_and_evaluates_nothing_again():
    with LLM(TINY_CHAT, **EXACT) as llm:  # far beyond its end, an answer of hundreds of near ties
        ada, n_prompt = llm.session(), llm.count_tokens(STORY)
        with counting(llm) as turn, ada(STORY, stream=True, max_tokens=None, ignore_eos=True) as stream:
            next(stream)
            n_ctx = llm.stats.n_ctx
            for _ in stream:
                if llm.stats.n_ctx > n_ctx:
                    break
        assert ada.tokens > n_ctx
        assert (turn.contexts, turn.evaluated) == (2, n_prompt)
        assert regret(llm, tokens_of(ada), n_prompt) < NEARLY_TIED
