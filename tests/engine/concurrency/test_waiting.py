"""Who runs and who waits when there are more requests than places or cells."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, Stream
from cyllama.engine.scheduler import Scheduler

from ...support.callers import check, start_endless
from ...support.harness import (
    ANIMALS,
    ENDLESS,
    EXACT,
    Reference,
    Step,
    held,
    in_threads,
    settled,
    story,
    turn,
)


@pytest.mark.usefixtures("long_quanta")
def test_stats_tell_who_runs_and_who_waits(steps: list[Step]):
    with LLM(**EXACT, n_parallel=3) as llm:
        with held(llm):
            streams = start_endless(llm, 8)
            assert (llm.stats.running, llm.stats.waiting) == (0, 8)
        next(streams[0])
        assert (llm.stats.running, llm.stats.waiting) == (3, 5)
        streams[1].close()
        streams[7].close()
        next(streams[3])
        assert (llm.stats.running, llm.stats.waiting) == (3, 3)
        for stream in streams:
            stream.close()
        settled(llm)
        assert (llm.stats.running, llm.stats.waiting, llm.stats.kv_cells_used) == (0, 0, 0)


def test_a_short_request_joins_and_ends_while_a_long_one_runs(eight: LLM, steps: list[Step], reference: Reference):
    with eight(story(), stream=True, **ENDLESS) as long:
        next(long)
        short = eight(story("an owl"), stream=True, max_tokens=20)
        check(reference, short)
        assert len(long._request.tokens) >= 20
        assert long._request.finish_reason is None
    assert sum(short._request in step.generated for step in steps) == 19  # the prompt gave the first of 20 tokens
    assert all(long._request in step.generated for step in steps if short._request in step.requests)


def test_no_request_starves_behind_those_that_arrive_later(steps: list[Step], reference: Reference):
    """A long answer goes on among a stream of short ones, which never ends before it does."""
    with LLM(**EXACT, n_parallel=2) as llm:
        done = threading.Event()
        served = 0

        def short_ones() -> None:
            nonlocal served
            while not done.is_set():
                llm(turn("Hello!"), max_tokens=5)
                served += 1

        def long_one() -> Stream:
            try:
                with llm(story(), stream=True, **ENDLESS) as stream:
                    for n, _ in enumerate(stream):
                        if n > 100 and served > 10:
                            break
                return stream
            finally:
                done.set()

        *_, long = in_threads([short_ones, short_ones, short_ones, long_one])
        assert long is not None
        assert long.response.finish_reason == "cancelled"
        reference.check(long._request)


@pytest.mark.usefixtures("long_quanta")
@pytest.mark.parametrize("host_cache_mb", [64, 0])
def test_where_cells_run_out_the_newest_waits_and_goes_on_without_losing_a_token(
    host_cache_mb: int, steps: list[Step], reference: Reference, monkeypatch: pytest.MonkeyPatch
):
    newest: list[bool] = []
    preempt = Scheduler.preempt

    def recorded_preempt(self: Scheduler, request: Any) -> None:
        newest.append(request is self.running[-1])
        preempt(self, request)

    monkeypatch.setattr(Scheduler, "preempt", recorded_preempt)
    with LLM(**EXACT, n_parallel=4, kv_cells=256, host_cache_mb=host_cache_mb) as llm:
        with held(llm):
            streams = [llm(story(animal), stream=True, max_tokens=120) for animal in ANIMALS[:8]]
        chunks = in_threads(partial(list, stream) for stream in streams)
        assert llm.stats.kv_cells == 256
        assert llm.stats.contexts_created == 1
        assert llm.stats.host_bytes == 0
    assert newest != []
    assert all(newest)
    for stream, parts in zip(streams, chunks, strict=True):
        assert "".join(parts) == stream.response
        check(reference, stream, stream.response)


def test_sessions_wait_for_cells_too_and_remember(steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=4, kv_cells=256, host_cache_mb=1) as llm:
        sessions = [llm.session() for _ in range(4)]
        names = ["Zorblax", "Kimbo", "Taveri", "Lunor"]
        for session, name in zip(sessions, names, strict=True):
            session(turn(f"My name is {name}."), max_tokens=20)
        with held(llm):
            streams = [session("\n" + story(a), stream=True) for session, a in zip(sessions, ANIMALS, strict=False)]
        for stream in streams:
            stream.read()
            reference.check(stream._request)
        answers = [session("\n" + turn("What is my name?"), stream=True, max_tokens=20) for session in sessions]
        for stream in answers:
            stream.read()
            reference.check(stream._request)
            assert llm.detokenize(stream._request.prompt).count("My name is") == 1


def test_a_single_generation_ends_at_the_end_of_the_cells(steps: list[Step], reference: Reference):
    with LLM(**EXACT, kv_cells=256) as llm:
        stream = llm(story(), stream=True, **ENDLESS)
        response = stream.read()
        assert response.finish_reason == "length"
        assert response.usage.total_tokens in {256, 257}, "the last token needs no cell: none follows it"
        assert llm(turn("What is the capital of France?")) == "The capital of France is Paris."


def test_a_prompt_larger_than_all_cells_is_refused_and_disturbs_no_other(steps: list[Step], reference: Reference):
    with LLM(**EXACT, kv_cells=512) as llm:
        with held(llm):
            stream = llm(story(), stream=True, max_tokens=30)
            with pytest.raises(ContextSizeError, match=r"600 tokens .* kv_cells=512"):
                llm([300] * 600, max_tokens=1)
        check(reference, stream)
        session = llm.session()
        session(turn("My name is Ada."), max_tokens=20)
        with held(llm):
            stream = llm(story(), stream=True, max_tokens=30)
            refused = session([300] * 600, stream=True)
        with pytest.raises(ContextSizeError, match="kv_cells=512"):
            refused.read()
        check(reference, stream)
        assert session("\n" + turn("What is my name?"), max_tokens=20) == "Your name is Ada."


def test_a_prompt_that_fits_only_alone_waits_until_it_is(steps: list[Step], reference: Reference):
    with LLM(**EXACT, kv_cells=512) as llm:
        with held(llm):
            small = llm(story(), stream=True, max_tokens=30)
            large = llm([300 + i % 900 for i in range(480)], stream=True, max_tokens=10)
        check(reference, small)
        check(reference, large)
    assert not any({small._request, large._request} <= step.requests for step in steps)


def test_the_context_grows_while_streams_run(steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=4) as llm:
        first = llm(story(), stream=True, max_tokens=100)
        text = next(first)
        assert llm.stats.n_ctx == 256
        others = [llm([300 + i % 900 for i in range(n)], stream=True, max_tokens=10) for n in (300, 700, 1500)]
        for other in others:
            check(reference, other)
        text += "".join(first)
        assert first.response == text
        check(reference, first, first.response)
        assert 1 < llm.stats.contexts_created <= 4
        assert llm.stats.n_ctx >= 1500


@pytest.mark.parametrize("lockstep", [400], indirect=True)  # enough to grow once, and too few to grow twice
def test_answers_without_a_limit_make_the_context_grow(
    lockstep: threading.Event, steps: list[Step], reference: Reference, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cyllama.engine.context_params.DEFAULT_MAX_TOKENS", 64)  # the room that they begin with
    with LLM(**EXACT, n_parallel=2) as llm:
        with held(llm):
            streams = [llm(story(a), stream=True, max_tokens=None, ignore_eos=True) for a in ANIMALS[:2]]
        while llm.stats.contexts_created < 2:
            next(streams[0])
        for _ in range(20):
            next(streams[0])
        assert llm.stats.contexts_created == 2
        assert llm.stats.n_ctx > 512, "as large as the first one is"
        for stream in streams:
            stream.cancel()
            stream.read()
            reference.check(stream._request)
