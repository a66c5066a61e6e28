"""Who runs where more callers want to than may: all begin soon, and none waits for the end of a long answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from cyllama import LLM, SessionPool, Stream
from cyllama.engine import Request
from cyllama.engine.tuning import FIRST_QUANTUM, MOST_BEGUN, QUANTUM

from ...support.callers import check, start_endless
from ...support.harness import ANIMALS, ENDLESS, EXACT, Reference, Step, held, settled, story


def most_before_all_began(steps: Iterable[Step], streams: list[Stream]) -> int:
    """Return the most tokens that a request had got when the last of them began."""
    got: Counter[Request] = Counter()
    waiting = {stream._request for stream in streams}
    for step in steps:
        got.update(step.requests)
        waiting -= step.requests
        if not waiting:
            return max(got.values())
    raise AssertionError(f"{len(waiting)} did not begin")


def steps_until(steps: list[Step], stream: Stream, since: int) -> int:
    """Return after how many steps a request took part."""
    return next(i for i, step in enumerate(steps[since:]) if stream._request in step.requests)


def test_no_caller_waits_for_a_first_token_while_others_get_their_hundredth(steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=4) as llm:
        with held(llm):
            streams = [llm(story(animal), stream=True, max_tokens=110) for animal in ANIMALS[: 4 * MOST_BEGUN]]
        for stream in streams:
            check(reference, stream)
    assert most_before_all_began(steps, streams) <= 2 * FIRST_QUANTUM
    assert max(len(step.requests) for step in steps) == 4
    assert all(len(step.requests) == 4 for step in steps[: len(steps) // 2]), "no place is empty"


def test_one_that_comes_while_long_answers_take_all_places_begins_soon(steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=2) as llm, ExitStack() as stack:
        long = [stack.enter_context(stream) for stream in start_endless(llm, 3)]
        for _ in range(100):
            next(long[0])
        with held(llm):
            since = len(steps)
            late = llm(story("a whale"), stream=True, max_tokens=20)
        check(reference, late)
        assert steps_until(steps, late, since) <= FIRST_QUANTUM
        for _ in range(3 * QUANTUM):
            next(long[0])  # they go on
        for stream in long:
            stream.cancel()
            stream.read()
            reference.check(stream._request)


def test_many_requests_of_one_tenant_do_not_hold_up_another(steps: list[Step]):
    with LLM(**EXACT, n_parallel=2) as llm, ExitStack() as stack:
        pool = SessionPool(llm)

        def ask(tenant: str, animal: str, **options: Any) -> Stream:
            lease = stack.enter_context(pool.lease(story(animal), animal, tenant=tenant))
            return stack.enter_context(llm(story(animal), session=lease.name, stream=True, **options))

        many = [ask("many", animal, **ENDLESS) for animal in ANIMALS[:20]]
        for _ in range(2 * QUANTUM):
            next(many[0])
        with held(llm):
            since = len(steps)
            single = ask("single", "a whale", max_tokens=3 * QUANTUM, ignore_eos=True)
        single.read()
        assert steps_until(steps, single, since) <= FIRST_QUANTUM
        last = max(i for i, step in enumerate(steps) if single._request in step.requests)
        assert last - since < 2 * 3 * QUANTUM, "half of the service is its own"


@pytest.mark.parametrize("kv_cells", [None, 1024])
def test_a_paused_answer_goes_on_where_it_was(kv_cells: int | None, llm: LLM, steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=1, kv_cells=kv_cells) as llm:
        sessions = [llm.session() for _ in range(3)]
        with held(llm):
            streams = [session(story(a), stream=True) for session, a in zip(sessions, ANIMALS, strict=False)]
        for stream in streams:
            check(reference, stream)
        stats = llm.stats
    assert stats.tokens_decoded <= stats.prompt_tokens_evaluated + stats.tokens_generated, "nothing is evaluated twice"
    owners = [request for step in steps for request in step.requests]
    assert sum(a is not b for a, b in pairwise(owners)) > 3, "they alternated"


def test_where_cells_are_few_long_answers_are_paused_as_well(steps: list[Step], reference: Reference):
    with LLM(**EXACT, n_parallel=8, kv_cells=256) as llm:
        long = start_endless(llm, 2)
        for _ in range(2 * QUANTUM):
            next(long[0])
        with held(llm):
            since = len(steps)
            late = llm([300 + i % 700 for i in range(150)], stream=True, max_tokens=3)
        check(reference, late)
        assert steps_until(steps, late, since) <= QUANTUM
        for stream in long:
            stream.close()
            reference.check(stream._request)


def test_without_host_memory_an_answer_runs_to_its_end(steps: list[Step]):
    with LLM(**EXACT, n_parallel=1, host_cache_mb=0) as llm:
        with held(llm):
            streams = [llm(story(a), stream=True, max_tokens=3 * QUANTUM, ignore_eos=True) for a in ANIMALS[:3]]
        for stream in streams:
            stream.read()
    owners = [request for step in steps for request in step.requests]
    assert sum(a is not b for a, b in pairwise(owners)) == 2


def test_one_that_is_cancelled_while_it_is_paused_leaves_nothing_behind(steps: list[Step]):
    with LLM(**EXACT, n_parallel=1) as llm:
        streams = start_endless(llm, 4)
        for stream in streams:
            next(stream)  # all have begun, and one runs
        settled(llm)
        stats = llm.stats
        assert stats.waiting >= 3
        assert stats.running + stats.waiting == 4  # between one that is paused and the next, none runs
        for stream in streams:
            stream.close()
        settled(llm)
        assert (llm.stats.running, llm.stats.waiting, llm.stats.kv_cells_used, llm.stats.host_bytes) == (0, 0, 0, 0)
        session = llm.session()
        session(story(), max_tokens=3)
        assert not any(each.awaited for each in llm._runtime.engine._kv_cache._sequences)  # pyright: ignore
