"""States are used as far as their tokens are the same, and by whom they fit best."""

from __future__ import annotations

import pytest

from cyllama import LLM

from ..support.conversations import (
    CAPITAL,
    IDS,
    NEARLY_TIED,
    STORY,
    SYSTEM,
    check_integrity,
    common_length,
    counting,
    regret,
    swap_out,
    tokens_of,
    user,
)


def test_a_swapped_state_is_used_only_as_far_as_its_tokens_are_the_same(llm: LLM):
    llm(SYSTEM + user("My name is Ada."), session="ada")
    swap_out(llm)
    other = SYSTEM + user("My dog has a name.")
    shared = common_length(llm.tokenize(SYSTEM + user("My name is Ada.")), llm.tokenize(other))
    with counting(llm) as turn:
        answer = llm(other, session="ada")
    assert answer.usage.cached_tokens == shared
    assert turn.evaluated == llm.count_tokens(other) - shared
    tokens = tokens_of(llm.session("ada"))
    assert tokens[: answer.usage.prompt_tokens] == llm.tokenize(other)
    assert regret(llm, tokens, answer.usage.prompt_tokens) < NEARLY_TIED


def test_a_state_whose_prefix_another_conversation_takes_stays_its_owners(llm: LLM):
    ada = llm.session("ada")
    ada(SYSTEM + user("My name is Ada."))
    held = ada.tokens
    swap_out(llm)
    shared = common_length(llm.tokenize(SYSTEM + user("My name is Ada.")), llm.tokenize(SYSTEM + STORY))
    other = llm(SYSTEM + STORY, session="bob", max_tokens=10)
    assert other.usage.cached_tokens == shared
    with counting(llm) as turn:
        answer = ada("\n" + user("What is my name?"))
    assert answer.usage.cached_tokens == held - 1
    assert turn.evaluated == len(llm.tokenize("\n" + user("What is my name?"))) + 1
    assert answer == "Your name is Ada."


@pytest.mark.parametrize("swapped", [False, True])
def test_nothing_stale_is_left_of_a_conversation_that_starts_from_scratch(llm: LLM, swapped: bool):
    llm(IDS[:300], session="ada", max_tokens=5)
    if swapped:
        swap_out(llm)
    with counting(llm) as turn:
        answer = llm(CAPITAL, session="ada")
    assert (answer, answer.usage.cached_tokens) == ("The capital of France is Paris.", 0)
    assert turn.evaluated == llm.count_tokens(CAPITAL)
    assert llm.stats.kv_cells_used == answer.usage.total_tokens - 1


@pytest.mark.parametrize("swapped", [False, True])
def test_the_longest_prefix_wins_in_whichever_sequence_it_is(llm: LLM, swapped: bool):
    prompts = {name: IDS[:n] + IDS[1000 + n : 1010 + n] for name, n in {"ada": 50, "bob": 200, "zoe": 100}.items()}
    for name, ids in prompts.items():
        llm(ids, session=name, max_tokens=0)
        if swapped:
            swap_out(llm)
    assert llm(IDS[:250], session="new", max_tokens=0).usage.cached_tokens == 200
    assert llm(IDS[:300], session="ada", max_tokens=0).usage.cached_tokens == 250, "although it has 50 itself"
    for name in ("bob", "zoe"):
        assert llm([*prompts[name], 5], session=name, max_tokens=0).usage.cached_tokens == len(prompts[name])
    check_integrity(llm)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_prompt_that_is_known_to_its_end_has_logits_all_the_same(llm: LLM, swapped: bool):
    n_prompt = llm.count_tokens(SYSTEM + CAPITAL)
    expected = llm(SYSTEM + CAPITAL, session="ada")
    for session in ("ada", "ada", "bob"):
        if swapped:
            swap_out(llm)
        with counting(llm) as turn:
            answer = llm(SYSTEM + CAPITAL, session=session)
        assert (turn.evaluated, answer.usage.cached_tokens) == (1, n_prompt - 1)
        assert answer == expected
