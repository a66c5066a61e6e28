"""What a request says of itself: where it is, and how much of the context it reserves."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama import LLM
from cyllama.engine import Engine
from cyllama.engine.request import Status
from cyllama.engine.reservation import Reservation

from ..support.harness import ANIMALS, ENDLESS, held, settled, story


@pytest.mark.usefixtures("long_quanta")
def test_a_request_is_new_then_waits_then_runs_and_finishes():
    with LLM(temperature=0, n_threads=1, n_parallel=1) as llm, llm(story(), stream=True, **ENDLESS) as first:
        next(first)
        assert first._request.status is Status.RUNNING
        with held(llm):
            second = llm(story("an owl"), stream=True, max_tokens=2)
            assert second._request.status is Status.NEW
        settled(llm)
        assert second._request.status is Status.WAITING
        first.close()
        assert first._request.status is Status.FINISHED
        second.read()
        assert second._request.status is Status.FINISHED


@pytest.mark.usefixtures("long_quanta")
def test_a_request_that_is_preempted_waits_again(monkeypatch: pytest.MonkeyPatch):
    seen: list[Status] = []
    step = Engine._step

    def recorded_step(self: Engine) -> None:
        step(self)
        seen.append(second._request.status)

    with LLM(temperature=0, n_threads=1, n_parallel=2, kv_cells=256) as llm:
        monkeypatch.setattr(Engine, "_step", recorded_step)
        with held(llm):
            first, second = (llm(story(a), stream=True, max_tokens=150, ignore_eos=True) for a in ANIMALS[:2])
        for stream in (first, second):
            assert stream.read().usage.completion_tokens == 150
    changes = [status for status, _ in groupby(seen)]
    assert changes == [Status.RUNNING, Status.WAITING, Status.RUNNING, Status.FINISHED]


@given(st.integers(1, 500), st.integers(0, 2000), st.none() | st.integers(0, 2000), st.integers(1, 600))
def test_a_reservation_grows_until_the_longest_answer_fits(
    n_prompt: int, n_free: int, max_tokens: int | None, required: int
):
    limit = n_prompt + n_free
    reservation = Reservation(n_prompt, limit=limit, required=min(limit, n_prompt + required), max_tokens=max_tokens)
    assert reservation.most <= limit
    n_tokens, n_growths = n_prompt, 0
    while n_tokens < reservation.most:
        if n_tokens >= reservation.required:
            assert reservation.can_grow
            reservation.grow(n_tokens)
            n_growths += 1
        assert n_tokens < reservation.tokens(n_tokens) <= limit
        n_tokens += 1
    assert n_growths <= 11, "it doubles"
    assert n_tokens - n_prompt == reservation.max_tokens
