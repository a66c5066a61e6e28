"""Callers with different sets of adapters take turns."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cyllama import (
    LLM,
)
from cyllama.engine import Engine, Request
from cyllama.engine.scheduler import AdapterSlices
from cyllama.engine.tuning import CHUNK, SLICE_STEPS

from ...support.harness import ENDLESS, Step, held, in_threads
from ...support.lora import NAMES, SETS, Files, key_of, slices_of, some_tokens


@pytest.mark.parametrize(
    "options",
    [
        {"n_parallel": 8},
        {"n_parallel": 3},
        {"n_parallel": 8, "kv_cells": 512, "host_cache_mb": 0},
        {"n_parallel": 4, "n_batch": 16},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_callers_with_three_sets_at_once_are_answered_as_if_alone(options: dict[str, Any], files: Files):
    references = [files.reference(lora) for lora in SETS]
    with files.load(**options) as llm:

        def ask(caller: int) -> list[Request]:
            """Ask with every set, in a conversation and outside of any."""
            requests = []
            for turn, (i, lora) in itertools.product(range(2), enumerate(SETS)):
                session = None if (caller + i) % 2 else f"{caller % 4} {i}"
                prompt = some_tokens(10 + 7 * caller + 40 * turn, seed=caller % 4)
                stream = llm(prompt, session=session, stream=True, lora=lora)
                stream.read()
                requests.append(stream._request)
            return requests

        for requests in in_threads([lambda caller=caller: ask(caller) for caller in range(8)]):
            for request in requests:
                reference = references[SETS.index(request.config.lora)]
                assert request.error is None
                assert len(request.tokens) == 24
                reference.check(request)
        assert llm.stats.adapter_switches > 3
    assert sum(len(reference.near_ties) for reference in references) <= 2


def test_a_step_has_one_set_and_all_that_generate_with_it(files: Files, steps: list[Step]):
    with files.load(n_parallel=6) as llm:
        with held(llm):
            streams = [llm(some_tokens(5, i), stream=True, lora=SETS[i % 3], max_tokens=40) for i in range(6)]
        for stream in streams:
            assert stream.read().usage.completion_tokens == 40
    for step in steps:
        assert len({key_of(request) for request in step.requests}) == 1
        assert len(step.requests) == 2, "both of the set are computed together"


def test_sets_have_time_slices(files: Files, steps: list[Step]):
    with files.load(n_parallel=3) as llm:
        with held(llm):
            streams = [llm(some_tokens(3), stream=True, lora=lora, max_tokens=50) for lora in SETS]
        for stream in streams:
            stream.read()
        assert llm.stats.adapter_switches == len(slices_of(steps)) - 1, "the first slice is without adapters"
    slices = slices_of(steps)
    expected = [key_of(stream._request) for stream in streams]
    assert [key for key, _ in slices] == expected * (len(slices) // 3), "one after the other"
    assert {n for _, n in slices[:-3]} == {SLICE_STEPS}
    assert len(slices) == 3 * -(-50 // SLICE_STEPS)


def test_a_set_with_many_requests_has_no_more_slices_than_another(files: Files, steps: list[Step]):
    with files.load(n_parallel=5) as llm:
        with held(llm):
            many = [llm(some_tokens(3, i), stream=True, lora={"red": 1.0}, max_tokens=80) for i in range(4)]
            one = llm(some_tokens(3), stream=True, lora={"blue": 1.0}, max_tokens=80)
        for stream in (*many, one):
            stream.read()
    *slices, (_, rest) = slices_of(steps)
    assert [key[0][0] for key, _ in slices] == ["red", *["blue", "red"] * 9]
    assert all(1 <= n <= SLICE_STEPS for _, n in slices)
    assert rest <= SLICE_STEPS + 1, "a prompt is a part of its slice; how much of it depends on the machine"


def test_requests_that_keep_coming_do_not_keep_others_waiting(files: Files, steps: list[Step]):
    """A short answer after the other with one set, beside long ones with two others."""
    with files.load(n_parallel=3) as llm:
        with (
            llm(some_tokens(3), stream=True, lora={"red": 1.0}, **ENDLESS) as red,
            llm(some_tokens(3), stream=True, lora={"blue": 1.0}, **ENDLESS) as blue,
        ):
            next(red)
            next(blue)
            del steps[:]
            for i in range(10):
                llm(some_tokens(3, i), max_tokens=2)
            seen = list(steps)
        for stream in (red, blue):
            present = [i for i, step in enumerate(seen) if stream._request in step.requests]
            gaps = [j - i - 1 for i, j in itertools.pairwise([-1, *present, len(seen)])]
            assert max(gaps) <= 2 * SLICE_STEPS, "no more than a slice of each other set"
            assert len(present) >= len(seen) // 3, "short answers end before their slice does"


def test_the_first_slice_of_a_new_set_comes_after_those_that_wait(files: Files, steps: list[Step]):
    with files.load(n_parallel=3) as llm, llm(some_tokens(3), stream=True, lora={"red": 1.0}, **ENDLESS) as red:
        for _ in range(SLICE_STEPS):
            next(red)
        with held(llm):
            streams = [llm(some_tokens(3), stream=True, lora={n: 1.0}, max_tokens=20) for n in ("green", "blue")]
        del steps[:]
        for stream in streams:
            stream.read()
    slices = [key[0][0] for key, _ in slices_of(steps)]
    start = slices.index("green")
    assert slices[start : start + 4] == ["green", "blue", "red", "green"]


def test_a_set_that_waits_for_a_slice_goes_before_newcomers(lora_llm: LLM):
    """When sets arrive depends on the callers, so this looks at the slices themselves."""
    with held(lora_llm):
        requests = [lora_llm(some_tokens(3), stream=True, lora={name: 1.0})._request for name in NAMES]
        red, green, blue = requests
        slices = AdapterSlices()
        assert slices.choose([red, green]) == [red]
        for _ in range(SLICE_STEPS):
            slices.spend(0, CHUNK)
        assert slices.choose([blue, red, green]) == [green]
        assert slices.choose([blue, red]) == [blue], "its slice is over with its last request"
        slices.spend(CHUNK, CHUNK)
        assert slices.choose([blue, green, red]) == [red]
        assert slices.choose([green]) == [green], "alone, it needs no slice"
        for _ in range(SLICE_STEPS):
            slices.spend(0, CHUNK)
        assert slices.choose([green, red, blue]) == [red], "and has no steps left when others arrive"


def test_a_long_prompt_of_another_set_delays_a_stream_by_no_more_than_a_chunk(files: Files, steps: list[Step]):
    with files.load(n_parallel=2) as llm, llm(some_tokens(3), stream=True, **ENDLESS) as stream:
        next(stream)
        llm(some_tokens(1000), max_tokens=3, lora={"red": 1.0})
        seen = list(steps)
    prompts = [i for i, step in enumerate(seen) if step.prompts and stream._request not in step.prompts]
    assert sum(sum(seen[i].prompts.values()) for i in prompts) == 1000
    assert all(sum(seen[i].prompts.values()) <= seen[i].chunk for i in prompts)
    assert all(j - i == SLICE_STEPS + 1 for i, j in itertools.pairwise(prompts)), "a slice of the stream in between"


def test_prompts_of_two_sets_have_slices_as_well(files: Files, steps: list[Step]):
    with files.load(n_parallel=2, n_batch=256) as llm:
        with held(llm):
            streams = [llm(some_tokens(700), stream=True, lora={name: 1.0}, max_tokens=1) for name in NAMES[:2]]
        for stream in streams:
            stream.read()
    assert [(key[0][0], n) for key, n in slices_of(steps)] == [("red", 1), ("green", 1)] * -(-700 // CHUNK)


def test_n_parallel_limits_all_sets_together(files: Files, monkeypatch: pytest.MonkeyPatch):
    step, running = Engine._step, list[int]()

    def counted_step(self: Engine) -> None:
        running.append(len(self._scheduler.running))
        step(self)

    monkeypatch.setattr(Engine, "_step", counted_step)
    with files.load(n_parallel=2) as llm:
        with held(llm):
            streams = [llm(some_tokens(3, i), stream=True, lora=SETS[i % 3], max_tokens=10) for i in range(6)]
        for stream in streams:
            stream.read()
    assert max(running) == 2
