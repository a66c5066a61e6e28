"""Conversations with real models say what a context says that has seen nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cyllama import LLM
from cyllama.engine import Request

from ..support.cold_start import EXACT, NEARLY_TIED, ColdStart
from ..support.harness import in_threads
from ..support.real_models import needs, path_of

PLACES = ("the harbour", "an old mill", "the market", "a school", "the garden")


@pytest.fixture(scope="module")
def smollm2() -> Iterator[LLM]:
    with LLM(path_of("smollm2"), **EXACT) as llm:
        yield llm


@pytest.mark.parametrize("at_once", [pytest.param(at_once, marks=needs("smollm2")) for at_once in (False, True)])
def test_turns_of_a_session_are_answered_as_its_whole_history_is(smollm2: LLM, requests: list[Request], at_once: bool):
    smollm2.reset_context()
    cold = ColdStart(smollm2)

    def talk(place: str) -> None:
        """Ask for the same with a session, and without one."""
        session, history = smollm2.session(), list[int]()
        for text in (f"A walk begins at {place}.", " Behind a corner,", " At last,"):
            new = smollm2.tokenize(text, add_bos=False)
            answer = session(text, max_tokens=6)
            assert answer.usage.cached_tokens >= len(history) - 1
            whole = smollm2([*history, *new], max_tokens=6)
            assert whole.usage.cached_tokens == 0
            assert whole.usage.prompt_tokens == answer.usage.prompt_tokens
            history += [*new, *requests_of(session.name)[-1].tokens]

    def requests_of(name: str) -> list[Request]:
        return [request for request in requests if request.conversation and request.conversation.name == name]

    calls = [lambda place=place: talk(place) for place in PLACES[: 3 if at_once else 1]]
    in_threads(calls)
    assert len(requests) == 6 * len(calls)
    for request in requests:
        assert request.error is None
        cold.check(request, NEARLY_TIED)
    cold.close()


@pytest.mark.parametrize("name", [pytest.param("gemma3-270m", marks=[pytest.mark.slow, *needs("gemma3-270m")])])
def test_a_conversation_of_more_than_eight_thousand_tokens_with_windows_of_512(name: str, requests: list[Request]):
    """Two conversations go on alternately; the memory is enough for one and a half of them."""
    options: dict[str, Any] = {"n_ctx": 9000, "n_parallel": 1, "kv_cells": 12_000, "host_cache_mb": 400}
    with LLM(path_of(name), **EXACT, **options) as llm:
        ada, ben = llm.session("ada"), llm.session("ben")
        text = "".join(f" In {1300 + i}, {PLACES[i % 5]} stood beside {PLACES[i * i % 4]}." for i in range(700))
        tokens = llm.tokenize(text)
        for start in range(0, 8100, 900):
            for session in (ada, ben) if start < 3600 else (ada,):
                held = session.tokens
                answer = session(tokens[start : start + 900], max_tokens=5, ignore_eos=True)
                assert answer.usage.cached_tokens >= held - 1
        assert ada.tokens > 8100
        back = llm([*tokens[:900], *llm.tokenize(" And then", add_bos=False)], session="ada", max_tokens=5)
        assert back.usage.prompt_tokens < 920, "the conversation goes back to its beginning"
        cold = ColdStart(llm, n_ctx=9000)
        last = max(requests, key=lambda request: len(request.prompt))
        for request in (last, *requests[::4], requests[-1]):
            assert request.error is None
            cold.check(request, NEARLY_TIED)
        cold.close()
