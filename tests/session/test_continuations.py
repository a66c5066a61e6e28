"""Several continuations of one prompt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cyllama import LLM, ConfigError
from cyllama.errors import ConfigTypeError

from ..support.conversations import (
    CAPITAL,
    STORY,
    SYSTEM,
    check_integrity,
    counting,
    user,
)

WILD: dict[str, Any] = {"seed": 1, "temperature": 2.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0}


def test_several_continuations_evaluate_their_prompt_once(llm: LLM):
    with counting(llm) as eight:
        responses = llm(SYSTEM, n=8, max_tokens=8, ignore_eos=True, **WILD)
    n_prompt = llm.count_tokens(SYSTEM)
    assert isinstance(responses, list)
    assert len(set(responses)) > 1
    assert (eight.evaluated, eight.reused) == (n_prompt, 7 * n_prompt)
    assert [r.usage.cached_tokens for r in responses] == [0] + 7 * [n_prompt]
    assert [r.usage.completion_tokens for r in responses] == [8] * 8
    assert llm.stats.kv_cells_used == 0


def test_several_continuations_have_successive_seeds(llm: LLM):
    options: dict[str, Any] = {"temperature": 2.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0, "max_tokens": 1}
    many = llm("The", n=16, seed=5, **options)
    assert many == [llm("The", seed=5 + i, **options) for i in range(16)]
    assert len(set(many)) > 8


def test_several_greedy_continuations_are_equal(llm: LLM):
    assert llm(CAPITAL, n=3) == ["The capital of France is Paris."] * 3


def test_one_continuation_is_a_list_of_one(llm: LLM):
    assert llm(CAPITAL, n=1) == ["The capital of France is Paris."]


def test_several_continuations_of_nothing_are_empty(llm: LLM):
    responses = llm(CAPITAL, n=3, max_tokens=0)
    assert [(r, r.finish_reason) for r in responses] == [("", "length")] * 3


def test_several_continuations_may_end_at_different_lengths(llm: LLM):
    responses = llm(STORY, n=6, max_tokens=60, stop_sequences=["."], **WILD)
    assert len({r.usage.completion_tokens for r in responses}) > 2
    check_integrity(llm)
    assert llm.stats.kv_cells_used == 0


def test_several_continuations_work_from_an_event_loop(llm: LLM):
    assert asyncio.run(llm.agenerate(CAPITAL, n=3)) == ["The capital of France is Paris."] * 3


def test_several_continuations_leave_sessions_alone(llm: LLM):
    ada = llm.session("ada")
    ada(user("My name is Ada."))
    held = ada.tokens
    llm(STORY, n=6, temperature=1.0, max_tokens=10)
    answer = ada("\n" + user("What is my name?"))
    assert (answer, answer.usage.cached_tokens) == ("Your name is Ada.", held - 1)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ConfigError), (-1, ConfigError), (100_000, ConfigError), (True, ConfigTypeError)]
)
def test_a_number_of_continuations_that_is_not_valid_is_refused(llm: LLM, n: Any, error: type[Exception]):
    with pytest.raises(error, match=r"^n "):
        llm(CAPITAL, n=n)
    with pytest.raises(ConfigTypeError, match="a number of continuations, not str"):
        llm(CAPITAL, n="3")  # type: ignore[call-overload]


@pytest.mark.parametrize("option", [{"session": "ada"}, {"stream": True}, {"on_token": print}])
def test_several_continuations_are_refused_where_only_one_makes_sense(llm: LLM, option: dict[str, Any]):
    with pytest.raises(ConfigError, match=f"cannot be combined with {next(iter(option))}"):
        llm(CAPITAL, n=2, **option)
    assert llm.sessions == []
