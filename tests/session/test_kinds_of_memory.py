"""Sessions on every kind of memory answer as if everything were evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cyllama import LLM
from cyllama.session import Session

from ..support.conversations import (
    EXACT,
    IDS,
    check_integrity,
    counting,
    regret,
    swap_out,
    tokens_of,
)
from ..support.harness import in_threads
from ..support.random_models import HYBRID, RECURRENT, write_random_model

KINDS = ("llama", "gemma3", "mamba", "jamba", "lfm2")
DROPS_TAILS = ("llama", "gemma3")


class Pair(SimpleNamespace):
    """The same model twice: one with sessions, one that evaluates every history from the beginning."""

    warm: LLM
    cold: LLM
    kind: str

    def turn(self, session: Session, ids: list[int], *, append: bool = True, max_tokens: int = 12) -> int:
        """Do a turn and compare its answer; return how many tokens were cached."""
        history = [*tokens_of(session), *ids] if append else ids
        options: dict[str, Any] = {"max_tokens": max_tokens, "ignore_eos": True}
        expected = self.cold(history, **options)
        answer = session(ids, **options) if append else session.llm(ids, session=session.name, **options)
        assert answer == expected
        assert answer.usage.prompt_tokens == len(history)
        assert tokens_of(session)[: len(history)] == history
        check_integrity(session.llm)
        return answer.usage.cached_tokens


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    path = write_random_model(tmp_path_factory.mktemp("models") / "model.gguf", request.param)
    with LLM(path, **EXACT) as warm, LLM(path, **EXACT) as cold:
        yield Pair(warm=warm, cold=cold, kind=request.param, path=path)


@pytest.fixture
def pair(models: Pair) -> Iterator[Pair]:
    models.warm.reset_context()
    yield models
    models.warm.reset_context()


def test_every_turn_answers_as_if_all_were_evaluated(pair: Pair):
    ada = pair.warm.session()
    for i in range(4):
        held = ada.tokens
        assert pair.turn(ada, IDS[50 * i : 50 * i + 30]) == max(0, held - 1)
        if i == 2:
            swap_out(pair.warm)


def test_a_history_that_differs_before_its_end_answers_right(pair: Pair):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    history = [*tokens_of(ada)[:67], *IDS[500:510]]
    cached = pair.turn(ada, history, append=False)
    assert cached == (67 if pair.kind in DROPS_TAILS else 59), "others go back to the end of the last prompt"
    cached = pair.turn(ada, [*history[:20], *IDS[600:610]], append=False)
    if pair.kind in (*RECURRENT, *HYBRID):
        assert cached == 0
    pair.turn(ada, IDS[700:705])


def test_a_repeated_prompt_evaluates_its_last_token(pair: Pair):
    ada = pair.warm.session()
    for expected in (0, 59, 59):
        assert pair.turn(ada, IDS[:60], append=False) == expected
    swap_out(pair.warm)
    assert pair.turn(ada, IDS[:60], append=False) == 59


def test_forks_answer_right(pair: Pair):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    held, forks = ada.tokens, [ada.fork() for _ in range(3)]
    assert pair.turn(ada, IDS[100:110]) == held - 1
    for i, fork in enumerate(forks):
        assert pair.turn(fork, IDS[200 + 20 * i : 210 + 20 * i]) >= held - 1
    ada.close()
    assert pair.turn(forks[0].fork(), IDS[300:310]) == forks[0].tokens - 1


def test_prefixes_of_others_are_used_where_the_memory_allows_it(pair: Pair):
    pair.turn(pair.warm.session("ada"), IDS[:60])
    cached = pair.turn(pair.warm.session("bob"), [*IDS[:59], *IDS[100:140]])
    assert cached == 59
    pair.turn(pair.warm.session("zoe"), [*IDS[:40], *IDS[100:140]])
    pair.turn(pair.warm.session("ada"), IDS[200:210])


def test_a_saved_session_answers_right(pair: Pair, tmp_path: Path):
    ada = pair.warm.session()
    pair.turn(ada, IDS[:60])
    ada.save(tmp_path / "ada")
    with LLM(pair.path, **EXACT) as other:
        loaded = other.load_session(tmp_path / "ada")
        assert pair.turn(loaded, IDS[100:110]) == ada.tokens - 1
        assert tokens_of(loaded)[: ada.tokens] == tokens_of(ada)


@pytest.mark.parametrize("swa_full", [False, True])
def test_a_session_saved_with_other_windows_answers_right(pair: Pair, tmp_path: Path, swa_full: bool):
    with (
        LLM(pair.path, **EXACT, swa_full=swa_full) as first,
        LLM(pair.path, **EXACT, swa_full=not swa_full) as second,
    ):
        ada = first.session()
        pair.turn(ada, IDS[:60])
        ada.save(tmp_path / "ada")
        loaded = second.load_session(tmp_path / "ada")
        pair.turn(loaded, IDS[100:110])
        pair.turn(loaded, [*tokens_of(loaded)[:-5], *IDS[200:210]], append=False)
        pair.turn(loaded, [*IDS[:30], *IDS[300:310]], append=False)


def test_several_continuations_are_those_of_single_calls(pair: Pair):
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": 10, "ignore_eos": True}
    with counting(pair.warm) as six:
        many = pair.warm(IDS[:60], n=6, seed=3, **options)
    assert six.evaluated == 60
    assert many == [pair.cold(IDS[:60], seed=3 + i, **options) for i in range(6)]


@pytest.mark.parametrize("options", [{"host_cache_mb": 0}, {"kv_cells": 256}, {"kv_cells": 256, "host_cache_mb": 0}])
def test_scarce_memory_changes_no_answer(pair: Pair, options: dict[str, Any]):
    with LLM(pair.path, **EXACT, **options) as small:
        sessions = [small.session() for _ in range(4)]
        for i in range(2):
            for j, session in enumerate(sessions):
                start = 100 * j + 40 * i
                pair.turn(session, IDS[start : start + 40])
            swap_out(small)


def test_scarce_memory_changes_no_answer_of_those_that_run_together(pair: Pair):
    with LLM(pair.path, **EXACT, kv_cells=256, host_cache_mb=1) as small:
        sessions = [small.session() for _ in range(6)]
        for i in range(2):
            before = [tokens_of(session) for session in sessions]
            ids = [IDS[100 * j + 40 * i : 100 * j + 40 * i + 40] for j in range(6)]
            turns = zip(sessions, ids, strict=True)
            in_threads([lambda s=s, text=text: s(text, max_tokens=30, ignore_eos=True) for s, text in turns])
            for j, session in enumerate(sessions):
                history = [*before[j], *ids[j]]
                assert tokens_of(session)[: len(history)] == history
                assert len(tokens_of(session)) == len(history) + 30
                assert regret(pair.cold, tokens_of(session), len(history)) < 0.05
            check_integrity(small)


def test_a_session_of_a_chat_holds_what_its_history_renders_to(llm: LLM):
    """Token for token, with one end of each turn."""
    history: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    session = llm.session()
    for question in ("And of Italy?", "Tell me a story about a fox.", "Why?"):
        answer = session.chat(history)
        history += [answer.message, {"role": "user", "content": question}]
        held = tokens_of(session)
        assert held == llm.tokenize(llm.render(history))[: len(held)]
