"""What goes into a batch: streams first, then the first and the shortest prompts; one turn of each conversation."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cyllama import LLM, ContextSizeError, Stream
from cyllama.engine import Request
from cyllama.engine.scheduler import Scheduler
from cyllama.engine.tuning import CHUNK, GATHER

from ..support.harness import ANIMALS, ENDLESS, Step, held, settled, story, turn

pytestmark = pytest.mark.usefixtures("long_quanta")  # test_fairness.py tests who is paused


def first_steps(steps: list[Step], streams: list[Stream]) -> list[int]:
    """Return when each stream's request takes part for the first time."""
    return [next(i for i, step in enumerate(steps) if stream._request in step.requests) for stream in streams]


def last_steps(steps: list[Step], streams: list[Stream]) -> list[int]:
    return [max(i for i, step in enumerate(steps) if stream._request in step.requests) for stream in streams]


def some_tokens(n: int) -> list[int]:
    return [300 + i % 700 for i in range(n)]


def test_requests_are_served_in_the_order_in_which_they_came(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=1) as llm:
        streams = [llm(story(animal), stream=True, max_tokens=5) for animal in ANIMALS[:8]]
        for stream in reversed(streams):
            assert stream.read().finish_reason == "length"
    first, last = first_steps(steps, streams), last_steps(steps, streams)
    assert all(end < begin for end, begin in zip(last, first[1:], strict=False)), "one after the other"


def test_a_place_that_becomes_free_goes_to_the_one_that_waits_longest(llm: LLM, steps: list[Step]):
    lengths = (20, 5, 30, 10, 7, 3, 12, 9)
    with held(llm):
        streams = [llm(story(a), stream=True, max_tokens=n) for a, n in zip(ANIMALS, lengths, strict=False)]
    for stream in streams:
        assert len(stream.read()) > 0
    first = first_steps(steps, streams)
    assert first == sorted(first)
    assert first[:4] == [first[0]] * 4, "four begin together"
    last = last_steps(steps, streams)
    ends = sorted(last)
    assert first[4:] == [end + 1 for end in ends[:4]], "each of the others begins when another one has ended"


def test_no_more_than_n_parallel_take_part_in_a_step(steps: list[Step]):
    for n_parallel in (1, 3, 6):
        del steps[:]
        with LLM(temperature=0, n_threads=1, n_parallel=n_parallel) as llm:
            with held(llm):
                streams = [llm(story(animal), stream=True, max_tokens=10) for animal in ANIMALS[:10]]
            for stream in streams:
                stream.read()
        assert max(len(step.requests) for step in steps) == n_parallel


def test_every_generating_request_gets_a_token_in_every_step(llm: LLM, steps: list[Step]):
    with held(llm):
        streams = [llm(story(animal), stream=True, max_tokens=40, ignore_eos=True) for animal in ANIMALS[:4]]
    for stream in streams:
        stream.read()
    requests = [stream._request for stream in streams]
    assert steps[0].prompts == {request: len(request.prompt) for request in requests}
    assert [step.generated for step in steps[1:]] == [requests] * 39


def test_half_of_a_step_is_the_first_prompts_and_half_the_shortests(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=4) as llm:
        with held(llm):
            streams = [llm(some_tokens(n), stream=True, max_tokens=1) for n in (300, 150, 200)]
        for stream in streams:
            stream.read()
    a, b, c = (stream._request for stream in streams)
    half = CHUNK // 2
    assert [step.prompts for step in steps[:3]] == [
        {a: half, b: half},
        {a: half, b: half},
        {a: CHUNK - 22, b: 22},  # now less is left of the first one than of the third
    ]
    assert [step.prompts for step in steps[3:]] == [{a: 66, c: CHUNK - 66}, {c: CHUNK}, {c: 10}]


def test_one_requests_n_batch_leaves_the_rest_of_the_batch_to_others(llm: LLM, steps: list[Step]):
    llm(some_tokens(200), max_tokens=1)
    del steps[:]
    with held(llm):
        streams = [llm(some_tokens(40), stream=True, max_tokens=1, n_batch=n) for n in (10, 30)]
    for stream in streams:
        stream.read()
    a, b = (stream._request for stream in streams)
    assert [step.prompts for step in steps[:4]] == [{a: 10, b: 30}, {a: 10, b: 10}, {a: 10}, {a: 10}]


def test_a_prompt_is_evaluated_in_chunks_so_that_new_requests_can_join(llm: LLM, steps: list[Step]):
    response = llm(some_tokens(1500), max_tokens=3)
    assert [sum(step.prompts.values()) for step in steps] == [CHUNK] * (1500 // CHUNK) + [1500 % CHUNK, 0, 0]
    assert response.usage.completion_tokens == 3


def test_a_long_prompt_delays_a_running_stream_by_at_most_a_chunk(llm: LLM, steps: list[Step]):
    with llm(story(), stream=True, **ENDLESS) as stream:
        next(stream)
        llm(some_tokens(1500), max_tokens=3)
    beside = [step for step in steps if step.prompts and step.generated]
    assert all(stream._request in step.generated for step in beside), "it goes on in every step"
    sizes = [sum(step.prompts.values()) for step in beside]
    assert sum(sizes) == 1500
    assert all(size <= step.chunk for size, step in zip(sizes, beside, strict=True))
    assert all((size + 1) % 16 == 0 for size in sizes[:-1]), "whole rows of products, with the token of the stream"


def test_several_long_prompts_delay_a_running_stream_no_more_than_one(llm: LLM, steps: list[Step]):
    with llm(story(), stream=True, **ENDLESS) as stream:
        next(stream)
        with held(llm):
            others = [llm(some_tokens(n), stream=True, max_tokens=1) for n in (500, 400, 300)]
        for other in others:
            other.read()
    beside = [step for step in steps if step.prompts and step.generated]
    assert sum(sum(step.prompts.values()) for step in beside) == 1200
    assert all(stream._request in step.generated for step in beside)
    assert all(sum(step.prompts.values()) <= step.chunk for step in beside)


def test_short_prompts_that_come_together_begin_together(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=8) as llm:
        with held(llm):
            streams = [llm(some_tokens(60 + i), stream=True, max_tokens=4) for i in range(7)]
        for stream in streams:
            stream.read()
    assert first_steps(steps, streams) == [0] * 7
    assert sum(steps[0].prompts.values()) == sum(range(60, 67)) <= GATHER * CHUNK


def test_short_prompts_of_a_few_do_not_hold_up_many(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=8) as llm:
        with held(llm):
            streams = [llm(story(animal), stream=True, **ENDLESS) for animal in ANIMALS[:4]]
        for stream in streams:
            next(stream)
        with held(llm):
            others = [llm(some_tokens(100 + i), stream=True, max_tokens=4) for i in range(3)]
        for other in others:
            other.read()
        for stream in streams:
            stream.close()
    beside = [step for step in steps if step.prompts and step.generated]
    assert all(sum(step.prompts.values()) <= step.chunk for step in beside)


def test_turns_of_one_conversation_are_taken_one_after_the_other(llm: LLM, steps: list[Step]):
    ada, bob = llm.session("ada"), llm.session("bob")
    with held(llm):
        streams = [
            ada(turn("My name is Ada."), stream=True, max_tokens=20),
            ada("\n" + turn("I live in Oslo."), stream=True, max_tokens=20),
            ada("\n" + turn("What is my name?"), stream=True, max_tokens=20),
            bob(turn("My name is Bob."), stream=True, max_tokens=20),
            bob("\n" + turn("What is my name?"), stream=True, max_tokens=20),
        ]
    answers = [stream.read() for stream in streams]
    assert answers[0] == "Nice to meet you, Ada."
    assert (answers[2], answers[4]) == ("Your name is Ada.", "Your name is Bob.")
    first, last = first_steps(steps, streams), last_steps(steps, streams)
    assert first[0] == first[3] == 0, "both conversations begin together"
    assert last[0] < first[1] <= last[1] < first[2]
    assert last[3] < first[4]
    ada.close()
    bob.close()


def test_turns_that_wait_for_their_conversation_do_not_take_places(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=2) as llm:
        session = llm.session()
        with held(llm):
            turns = [session(story(a) if i == 0 else "\n" + story(a), stream=True) for i, a in enumerate(ANIMALS[:3])]
            other = llm(story("a whale"), stream=True)
        for stream in (*turns, other):
            stream.read()
    assert first_steps(steps, [turns[0], other]) == [0, 0]


def test_a_turn_that_is_refused_does_not_hold_up_the_next_of_its_conversation(llm: LLM, steps: list[Step]):
    session = llm.session()
    session(turn("My name is Ada."), max_tokens=20)
    with held(llm):
        too_long = session(some_tokens(3000), stream=True)
        also_too_long = session(some_tokens(4000), stream=True)
        question = session("\n" + turn("What is my name?"), stream=True, max_tokens=20)
    with pytest.raises(ContextSizeError):
        too_long.read()
    with pytest.raises(ContextSizeError):
        also_too_long.read()
    assert question.read() == "Your name is Ada."
    session.close()


def test_a_request_that_is_cancelled_while_it_waits_leaves_the_line(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=1) as llm, llm(story(), stream=True, **ENDLESS) as running:
        next(running)
        streams = [llm(story(animal), stream=True, max_tokens=3) for animal in ANIMALS[1:5]]
        settled(llm)
        assert llm.stats.waiting == 4
        streams[0].close()
        streams[2].close()
        assert [streams[i].response.finish_reason for i in (0, 2)] == ["cancelled"] * 2
        assert llm.stats.waiting == 2
        running.close()
        assert streams[1].read().finish_reason == streams[3].read().finish_reason == "length"
        taken = {request for step in steps for request in step.requests}
        assert taken == {running._request, streams[1]._request, streams[3]._request}
        assert streams[0].response.usage.completion_tokens == 0


def test_a_turn_that_is_cancelled_while_it_waits_was_never_taken(llm: LLM):
    session = llm.session()
    session(turn("My name is Ada."), max_tokens=20)
    with held(llm):
        forgotten = session("\n" + turn("My name is Bob."), stream=True, max_tokens=20)
        question = session("\n" + turn("What is my name?"), stream=True, max_tokens=20)
        forgotten.cancel()
    assert question.read() == "Your name is Ada."
    assert forgotten.read() == ""
    assert "Bob" not in llm.detokenize(question._request.prompt)
    session.close()


def test_a_preempted_request_goes_on_before_those_that_arrived_later(steps: list[Step]):
    with LLM(temperature=0, n_threads=1, n_parallel=2, kv_cells=256) as llm:
        with held(llm):
            streams = [llm(story(animal), stream=True, max_tokens=150, ignore_eos=True) for animal in ANIMALS[:3]]
        for stream in streams:
            assert stream.read().usage.completion_tokens == 150
    first, second, _ = (stream._request for stream in streams)
    present = [i for i, step in enumerate(steps) if second in step.requests]
    gaps = [i for i, j in pairwise(present) if j > i + 1]
    assert gaps != [], "there is no room for both"
    assert not any(second in step.requests for step in steps[gaps[0] + 1 : last_steps(steps, streams[:1])[0]])
    assert first_steps(steps, streams[2:])[0] > last_steps(steps, streams[:1])[0]
    assert first in steps[gaps[0] + 1].requests
    resumed = present[present.index(gaps[0]) + 1]
    assert resumed <= first_steps(steps, streams[2:])[0]


def test_what_is_left_when_the_engine_stops_is_handed_out_in_order(llm: LLM):
    """No request is served then, so this looks at the scheduler itself."""
    scheduler = Scheduler(n_parallel=2)
    with held(llm):
        requests: list[Request] = [llm(story(a), stream=True, max_tokens=1)._request for a in ANIMALS[:4]]
    for request in requests:
        scheduler.add(request)
    assert list(scheduler.next_waiting()) == requests, "it depends on the caller how many of them start"
    scheduler.start(requests[0])
    scheduler.start(requests[1])
    assert list(scheduler.next_waiting()) == []
    scheduler.preempt(requests[1])
    assert scheduler.drain() == requests
    assert (scheduler.running, scheduler.n_waiting) == ([], 0)
