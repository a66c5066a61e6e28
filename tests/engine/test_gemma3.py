"""A real model with sliding windows, Gemma 3 270M: conversations that share a beginning, and come and go.

Its window has 512 tokens, so that in a context of less than some thousand tokens, windows take as many cells as whole
sequences do. Every answer is compared with that of a context that has seen nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from cyllama import LLM, Session
from cyllama.engine import Request

from ..support.cold_start import EXACT, NEARLY_TIED, ColdStart
from ..support.harness import in_threads, settled, together
from ..support.real_models import needs, path_of

pytestmark = needs("gemma3-270m")

PLACES = ["the harbour", "the old mill", "a market", "the school", "a garden", "the library", "a bridge", "the chapel"]


@pytest.fixture(scope="module")
def loaded() -> Iterator[LLM]:
    with LLM(path_of("gemma3-270m"), **EXACT) as llm:
        yield llm


@pytest.fixture
def gemma(loaded: LLM) -> LLM:
    """The model, without a context and without sessions."""
    loaded.reset_context()
    return loaded


@pytest.fixture(scope="module")
def cold(loaded: LLM) -> Iterator[ColdStart]:
    cold = ColdStart(loaded)
    yield cold
    cold.close()


def town(llm: LLM, n: int, seed: int = 0) -> list[int]:
    """Return the first ``n`` tokens of a text about a town."""
    rng = random.Random(seed)
    text = "A walk through the town. "
    while len(tokens := llm.tokenize(text)) < n:
        for _ in range(20):
            text += f"In {rng.randint(1300, 1999)}, {rng.choice(PLACES)} stood beside {rng.choice(PLACES)}. "
    return tokens[:n]


def check_all(requests: list[Request], cold: ColdStart) -> None:
    assert requests
    for request in requests:
        assert request.error is None
        cold.check(request, NEARLY_TIED)


def test_an_answer_after_other_words_is_told_from_one_that_rounding_decided(
    gemma: LLM, cold: ColdStart, requests: list[Request]
):
    prompt = town(gemma, 90)
    gemma(prompt, max_tokens=6)
    check_all(requests, cold)
    requests[0].prompt[20:85] = town(gemma, 90, seed=1)[20:85]
    with pytest.raises(AssertionError, match=r"after 90 tokens, .* logits below the best"):
        check_all(requests, cold)


def test_several_answers_to_one_prompt(gemma: LLM, cold: ColdStart, requests: list[Request]):
    answers = gemma(town(gemma, 200), n=4, max_tokens=5)
    assert [answer.usage.completion_tokens for answer in answers] == [5] * 4
    assert gemma.stats.prompt_tokens_evaluated >= 200
    assert sum(answer.usage.cached_tokens for answer in answers) == 3 * 200, "the prompt is evaluated once"
    check_all(requests, cold)


@pytest.mark.parametrize("n", [300, 600])
def test_forks_of_a_conversation(gemma: LLM, cold: ColdStart, requests: list[Request], n: int):
    origin = gemma.session()
    origin(town(gemma, n), max_tokens=5)
    forks = [origin.fork() for _ in range(3)]
    for i, fork in enumerate(forks):
        answer = fork(f" In {1900 + i}, the mayor", max_tokens=5)
        assert answer.usage.cached_tokens >= n
    origin(" Later, the town", max_tokens=5)
    check_all(requests, cold)


def test_several_answers_beside_a_stream_of_another_caller(gemma: LLM, cold: ColdStart, requests: list[Request]):
    with gemma("Once upon a time", stream=True, max_tokens=40, ignore_eos=True) as stream:
        for _ in range(3):
            next(stream)
        answers = gemma(town(gemma, 400), n=2, max_tokens=5)
        assert [answer.finish_reason for answer in answers] == ["length"] * 2
        assert stream.read().usage.completion_tokens == 40
    check_all(requests, cold)


def test_a_conversation_that_begins_like_another_one(gemma: LLM, cold: ColdStart, requests: list[Request]):
    gemma.session()(town(gemma, 600), max_tokens=5)
    answer = gemma.session()([*town(gemma, 600), *town(gemma, 30, seed=1)[1:]], max_tokens=5)
    assert answer.usage.cached_tokens == 600
    check_all(requests, cold)


def test_conversations_that_share_a_system_prompt_evaluate_it_once(
    gemma: LLM, cold: ColdStart, requests: list[Request]
):
    system = town(gemma, 560)
    questions = [gemma.tokenize(f"{word} is the mayor?", add_bos=False) for word in ("Who", "Where", "Why", "How")]
    calls = [lambda q=q: gemma.session()([*system, *q], max_tokens=4) for q in questions]
    together(gemma, len(calls), lambda: in_threads(calls))
    assert sorted(request.n_reused or 0 for request in requests) == [0, 560, 560, 560]
    late = gemma.session()([*system, 5, 6, 7], max_tokens=4)
    assert late.usage.cached_tokens == 560
    check_all(requests, cold)


def come_and_go(llm: LLM, n_sessions: int, seed: int) -> None:
    """Let conversations begin, go on, be forked and be forgotten, some at once."""
    rng, sessions, text = random.Random(seed), list[Session](), town(llm, 700)
    for i in range(n_sessions):
        session = rng.choice(sessions).fork() if sessions and i % 3 == 1 else llm.session()
        sessions.append(session)
        prompt = text[: rng.randint(20, 650)] if not session.tokens else town(llm, rng.randint(2, 40), seed=i)[1:]
        others = rng.sample(sessions[:-1], min(2, len(sessions) - 1))
        calls = [lambda s=session, p=prompt: s(p, max_tokens=6)]
        calls += [lambda s=other, i=i: s(f" In {1700 + i},", max_tokens=6) for other in others]
        in_threads(calls)
        if len(sessions) > 4:
            sessions.pop(rng.randrange(4)).close()
    settled(llm)
    llm._runtime.running_engine().check_integrity()


@pytest.mark.parametrize("n_sessions", [8, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options", [{}, {"kv_cells": 1536, "host_cache_mb": 20}, {"kv_cells": 1280, "host_cache_mb": 0}]
)
def test_sessions_that_come_and_go(
    n_sessions: int, options: dict, cold: ColdStart, requests: list[Request], loaded: LLM
):
    with LLM(path_of("gemma3-270m"), **EXACT, **options) as llm:
        come_and_go(llm, n_sessions, seed=len(options))
    check_all([request for request in requests if request.tokens], cold)
