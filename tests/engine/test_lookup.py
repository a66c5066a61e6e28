"""Drafts from what was said before, and how many of the drafted tokens are worth a wider step."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama.engine.drafting import Credit, StepTimes, draft_lengths
from cyllama.engine.lookup import Drafter
from cyllama.engine.tuning import (
    ALLOWANCE,
    COST_HORIZON,
    LEAST_ALLOWANCE,
    LOAN,
    MOST_CREDIT,
    MOST_DRAFTED,
    MOST_LOSS,
    MOST_SLOWDOWN,
    NGRAMS,
    WORTH,
)

tokens = st.lists(st.integers(0, 5), max_size=60)
END = 5


def followers(said: list[int], n: int) -> set[int]:
    """Return what has followed the last ``n`` tokens before."""
    return {said[i + n] for i in range(len(said) - n) if said[i : i + n] == said[len(said) - n :]}


@given(prompt=tokens, answer=tokens)
def test_a_draft_is_what_followed_the_same_tokens_before(prompt: list[int], answer: list[int]):
    drafter = Drafter(prompt, ends=())
    said = list(prompt)
    for token in answer:
        drafter.observe(token)
        said.append(token)
        draft = drafter.draft(1).tokens
        found = {n: followers(said, n) for n in NGRAMS if n <= len(said)}
        longest = next((n for n in NGRAMS if found.get(n)), None)
        if longest is None:
            assert draft == []
        else:
            assert set(draft) <= found[longest]
            assert draft


@given(prompt=tokens, limit=st.integers(0, 20))
def test_a_draft_has_no_more_tokens_than_it_may_and_no_end(prompt: list[int], limit: int):
    draft = Drafter(prompt, ends={END}).draft(limit)
    assert len(draft.tokens) == len(draft.chances) <= limit
    assert END not in draft.tokens
    assert draft.chances == sorted(draft.chances, reverse=True)
    assert all(0 <= chance <= 1 for chance in draft.chances)


@given(part=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), limit=st.integers(1, 40))
def test_a_repetition_is_drafted_beyond_what_was_said(part: list[int], limit: int):
    said = [9, *part * 6]
    draft = Drafter(said, ends=()).draft(limit)
    assert draft.tokens == [part[i % len(part)] for i in range(limit)]


def test_what_is_copied_is_drafted_with_confidence_and_prose_is_not():
    rng = random.Random(1)
    text = [rng.randrange(50) for _ in range(400)]
    copying, prose = Drafter(text, ends=()), Drafter(text, ends=())
    for token in text[100:160]:
        copying.observe(token)
    for token in (rng.randrange(50) for _ in range(300)):
        prose.observe(token)
    assert copying.draft(8).tokens == text[160:168]
    assert copying.draft(8).chances[-1] > 0.5
    while not (draft := prose.draft(8)).tokens:
        prose.observe(rng.randrange(50))
    assert draft.chances[0] < 0.2


# --- how many tokens

a_draft = st.lists(st.floats(0, 1), max_size=MOST_DRAFTED).map(lambda each: sorted(each, reverse=True))
chances = st.lists(a_draft, min_size=1, max_size=6)


def lengths_for(drafts: list[list[float]], n_rows: int, cost: Callable[[int], float], most: int = 100) -> list[int]:
    return draft_lengths(drafts, n_rows, cost, most)


@given(drafts=chances, others=st.integers(0, 3), most=st.integers(0, 40), slope=st.floats(0, 2))
def test_drafts_are_expected_to_pay_for_all(drafts: list[list[float]], others: int, most: int, slope: float):
    n = len(drafts) + others

    def cost(width: int) -> float:
        return 1 + (width - n) * slope

    lengths = lengths_for(drafts, n, cost, most)
    assert all(0 <= length <= len(each) for length, each in zip(lengths, drafts, strict=True))
    assert sum(lengths) <= most
    gains = [sum(each[:length]) for length, each in zip(lengths, drafts, strict=True)]
    if any(lengths):
        duration = cost(n + sum(lengths))
        assert (n + sum(gains)) / duration > n * WORTH
        assert duration <= (1 + min([*gains, *[0.0] * others])) * MOST_SLOWDOWN


@given(drafts=chances, others=st.integers(0, 3))
def test_nothing_is_drafted_where_every_token_costs_as_much_as_the_first(drafts: list[list[float]], others: int):
    n = len(drafts) + others
    assert not any(lengths_for(drafts, n, lambda width: width / n))


@given(n_tokens=st.lists(st.integers(1, MOST_DRAFTED), min_size=1, max_size=6))
def test_all_is_drafted_where_it_is_certain_and_costs_nothing(n_tokens: list[int]):
    assert lengths_for([[1.0] * n for n in n_tokens], len(n_tokens), lambda _: 1.0) == n_tokens


def test_a_width_that_costs_less_is_preferred_to_one_token_less():
    costs = {1: 1.0, 2: 1.9, 3: 2.8, 4: 1.3, 5: 2.0}  # products of four rows at once
    assert lengths_for([[0.9, 0.8, 0.7, 0.6]], 1, costs.__getitem__) == [3]


def test_one_that_copies_does_not_slow_down_one_that_does_not():
    def cost(width: int) -> float:
        return 1 + (width - 2) / 8

    assert lengths_for([[1.0] * 15], 2, cost) == [0]
    assert lengths_for([[1.0] * 15, [1.0] * 15], 2, cost) == [15, 15]


# --- the times of steps


def test_a_width_that_was_not_measured_is_tried_and_then_known():
    times = StepTimes()
    assert times.costs(1) is None
    times.note(1, 0.01)
    cost = times.costs(1)
    assert cost is not None
    assert cost(1) == 1 < cost(8) < cost(16) < 5
    for _ in range(9):
        times.note(9, 0.05)
    cost = times.costs(1)
    assert cost is not None
    assert cost(9) == pytest.approx(5)
    assert cost(5) == pytest.approx(3)  # on the line between them
    assert 5 < cost(16) < 8


@given(seconds=st.lists(st.floats(0.001, 0.01), min_size=3, max_size=9), outlier=st.floats(0.02, 10))
def test_a_single_slow_step_changes_no_cost(seconds: list[float], outlier: float):
    times = StepTimes()
    times.note(1, 0.005)
    for each in [*seconds, outlier]:
        times.note(4, each)
    cost = times.costs(1)
    assert cost is not None
    assert cost(4) <= 2


def test_the_first_step_of_a_width_which_takes_longer_does_not_rule_it_out():
    times = StepTimes()
    times.note(1, 0.01)
    times.note(4, 0.5)
    cost = times.costs(1)
    assert cost is not None
    assert cost(4) < 2


def test_old_times_are_forgotten():
    times = StepTimes()
    times.note(4, 1.0)
    for _ in range(COST_HORIZON + 1):
        times.note(1, 0.01)
    cost = times.costs(1)
    assert cost is not None
    assert cost(4) < 2
    assert times.costs(4) is None


# --- what a draft model may lose

a_step = st.tuples(st.floats(0.001, 1), st.floats(0, 1))


@given(steps=st.lists(a_step, max_size=200), plain=st.floats(0.05, 1))
def test_a_draft_model_loses_no_more_than_its_loan_and_a_part_of_time(steps: list[tuple[float, float]], plain: float):
    """However wrong it is. A part of it after three losses in a row, until it is right again."""
    credit = Credit()
    lost = passed = late = 0.0
    n_losses = 0
    for duration, expected in steps:
        passed += duration
        late += duration if n_losses >= 3 else 0
        asked = expected if credit.allows(expected) else 0.0
        if asked:
            credit.note_draft(is_right=False)
            n_losses += 1
        credit.note(duration, duration + asked, plain)
        lost += asked
    assert lost <= LOAN * plain + ALLOWANCE * (passed - late) + LEAST_ALLOWANCE * late + 1e-6


def test_a_pause_of_the_machine_is_not_a_loss():
    credit = Credit()
    for _ in range(1000):
        credit.note(2.0, 1.0, 1.0)
    credit.note(1.0, 1e6, 1.0)
    assert credit.allows(MOST_CREDIT - MOST_LOSS)


def test_what_was_saved_may_be_lost_again_up_to_a_limit():
    credit = Credit()
    for _ in range(1000):
        credit.note(2.0, 1.0, 1.0)
    assert credit.allows(MOST_CREDIT)
    assert not credit.allows(MOST_CREDIT + 1)


@given(chance=st.floats(0, 1), limit=st.integers(1, 15), step=st.floats(0, 2))
def test_what_takes_longer_to_draft_is_drafted_less(chance: float, limit: int, step: float):
    chances = [[chance ** (i + 1) for i in range(limit)]]

    def lengths(factor: float) -> int:
        return draft_lengths(chances, 1, lambda _: 1.0, limit, lambda depth: depth * step * factor)[0]

    assert lengths(0) >= lengths(1) >= lengths(2)
