"""How prompts share the steps: short ones pass long ones, none starves, and streams go on meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cyllama
from cyllama import LLM, GenerationConfig
from cyllama.engine import Conversation, Prompt, Request
from cyllama.engine.context_params import ContextSize
from cyllama.engine.pace import Pace
from cyllama.engine.scheduler import Scheduler
from cyllama.engine.sequence import CachedSequence, Lease
from cyllama.engine.tuning import CHUNK, CHUNK_STEPS, GATHER, ROWS, SAMPLES
from cyllama.llama.llama_cpp import LlamaSampler

from ..support.harness import ENDLESS, Step, held

PACKAGE = str(Path(cyllama.__file__).parent)


def request_of(n_prompt: int, conversation: Conversation | None = None, n_batch: int = 2048) -> Request:
    """Return a request with a prompt of so many tokens, which nothing has been evaluated of."""
    tokens = [300] * n_prompt
    request = Request(
        Prompt(tokens, None, None, lambda text, *, parse_special=False: []),
        GenerationConfig(n_batch=n_batch),
        outlet=SimpleQueue(),
        streaming=False,
        size_for=lambda n: ContextSize(100_000, n),
        make_sampler=lambda prompt: LlamaSampler.greedy(),
    )
    request.conversation = conversation
    request.resolve()
    request.lease = Lease(CachedSequence(scope=None))
    return request


class Steps:
    """A scheduler whose batches are taken to be evaluated, at a given pace.

    Attributes:
        done: In which step the first token of a request was sampled.
        evaluated: Tokens of each prompt so far.
    """

    def __init__(self, step: float | None = None, prompt_token: float | None = None) -> None:
        self.scheduler = Scheduler(n_parallel=1000)
        self.n = 0
        self.done: dict[Request, int] = {}
        self.evaluated: dict[Request, int] = {}
        if step is not None and prompt_token is not None:
            self.scheduler.pace.note(1, 0, step)
            self.scheduler.pace.note(0, 100, 100 * prompt_token)

    def add(self, request: Request) -> Request:
        self.scheduler.add(request)
        self.scheduler.start(request)
        self.evaluated[request] = 0
        return request

    def generating(self) -> Request:
        """Add a request that generates already, and goes on."""
        request = self.add(request_of(1))
        request.tokens.append(300)
        assert request.sequence is not None
        request.sequence.tokens.append(300)
        return request

    def next(self, n_batch: int = 2048) -> dict[Request, int]:
        """Do one step; return how many tokens of each prompt it evaluated."""
        prompts: dict[Request, int] = {}
        total = 0
        for request, tokens, outputs in list(self.scheduler.next_batch(n_batch)):
            assert request.sequence is not None
            total += len(tokens)
            if not request.tokens:
                prompts[request] = len(tokens)
                self.evaluated[request] += len(tokens)
            request.sequence.tokens += tokens
            assert outputs == ((len(tokens) - 1,) if request.pending == 0 else ())
            if outputs:
                self.done.setdefault(request, self.n)
                request.tokens.append(300)
        assert total <= n_batch
        self.n += 1
        return prompts


def test_a_short_prompt_that_comes_after_a_long_one_gets_its_first_token_in_the_next_step():
    steps = Steps()
    long = steps.add(request_of(1500))
    steps.next()
    short = steps.add(request_of(20))
    assert steps.next()[short] == 20
    assert short in steps.done
    assert long not in steps.done
    while long not in steps.done:
        steps.next()
    assert steps.n <= -(-1520 // ROWS) + 1


def test_a_short_call_answers_while_a_long_prompt_is_evaluated(llm: LLM, steps: list[Step]):
    with held(llm):
        long = llm([300 + i % 700 for i in range(1500)], stream=True, max_tokens=1)
        short = llm([300 + i for i in range(20)], stream=True, max_tokens=5, ignore_eos=True)
    assert short.read().usage.completion_tokens == 5
    assert long.read().usage.completion_tokens == 1
    last_of = {stream: max(i for i, s in enumerate(steps) if stream._request in s.requests) for stream in (short, long)}
    assert steps[0].prompts[short._request] == 20
    assert last_of[short] == 4
    assert last_of[long] > 4


def test_beside_streams_a_chunk_takes_no_longer_than_some_of_their_steps(llm: LLM, steps: list[Step]):
    with llm("Once upon a time", stream=True, **ENDLESS) as stream:
        for _ in range(3 * SAMPLES):
            next(stream)
        llm([300 + i % 700 for i in range(1500)], max_tokens=1)
    beside = [step for step in steps if step.prompts and step.generated]
    assert len(beside) > 1
    assert all(stream._request in step.generated for step in beside)
    assert all(sum(step.prompts.values()) <= step.chunk for step in beside)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=5), st.integers(ROWS, 200))
@example([500, 400, 24], 62)  # of the third one, a single token is left
def test_beside_a_stream_prompts_have_a_chunk_of_each_step_at_most(sizes: list[int], chunk: int):
    steps = Steps(1.0, CHUNK_STEPS / (chunk + 0.5))
    steps.generating()
    requests = [steps.add(request_of(n)) for n in sizes]
    while any(request not in steps.done for request in requests):
        n_short = sum(len(request.prompt) <= CHUNK for request in requests if request not in steps.done)
        assert sum(steps.next().values()) <= (chunk if n_short < 2 else GATHER * chunk)


def test_a_prompt_alone_has_the_same_steps_every_time(llm: LLM, steps: list[Step]):
    """They decide how it is rounded, so they do not depend on how busy the machine is."""
    for _ in range(2):
        llm([300 + i % 700 for i in range(500)], max_tokens=10, ignore_eos=True)
    half = len(steps) // 2
    sizes = [list(step.prompts.values()) for step in steps]
    assert sizes[:half] == sizes[half:] == [[CHUNK]] * 3 + [[500 - 3 * CHUNK]] + [[]] * 9


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(2, 600)), min_size=1, max_size=25),
    st.integers(0, 20),
    st.floats(1e-5, 1.0),
    st.floats(1e-5, 1.0),
)
def test_no_prompt_starves(arrivals: list[tuple[int, int]], n_generating: int, step: float, prompt_token: float):
    """Later ones are given at most as many tokens as it and those before it need, and a step's more."""
    steps = Steps(step, prompt_token)
    for _ in range(n_generating):
        steps.generating()
    requests: list[Request] = []
    largest = 0
    for pause, n_prompt in arrivals:
        for _ in range(pause):
            largest = max(largest, sum(steps.next().values()))
        requests.append(steps.add(request_of(n_prompt)))
    passed = dict.fromkeys(requests, 0)
    left = dict.fromkeys(requests, 0)
    before = {request: sum(len(r.prompt) for r in requests[: i + 1]) for i, request in enumerate(requests)}
    while len([r for r in requests if r in steps.done]) < len(requests):
        prompts = steps.next()
        assert prompts, "as long as a prompt is left, some of it is evaluated"
        largest = max(largest, sum(prompts.values()))
        for i, request in enumerate(requests):
            if request not in steps.done:
                passed[request] += sum(prompts.get(later, 0) for later in requests[i + 1 :])
                left[request] += 1
    for request in requests:
        assert passed[request] <= before[request] + largest


@given(st.integers(1, 10), st.floats(1e-5, 1.0), st.floats(1e-5, 1.0), st.integers(2, 2000))
def test_a_chunk_is_as_long_as_what_was_measured_allows(
    n_generating: int, step: float, prompt_token: float, n_prompt: int
):
    steps = Steps(step, prompt_token)
    for _ in range(n_generating):
        steps.generating()
    steps.add(request_of(n_prompt))
    (n,) = steps.next(n_batch=4096).values()
    assert n <= ROWS or n * prompt_token <= CHUNK_STEPS * step * 1.001
    assert n == n_prompt or n > min(CHUNK_STEPS * step / prompt_token, 4096 - n_generating) - ROWS - 1


def test_one_slow_step_of_a_busy_machine_changes_nothing():
    pace = Pace()
    for seconds in (0.01, 0.01, 2.0, 0.01, 0.01):
        pace.note(1, 0, seconds)
        pace.note(0, 100, 0.1 if seconds < 1 else 5.0)
    assert pace.prompt_tokens(8) == 80


def test_the_pace_follows_the_number_of_streams():
    pace = Pace()
    pace.note(0, 128, 0.128)
    for seconds in [0.01] * SAMPLES + [0.04] * SAMPLES:
        pace.note(1, 0, seconds)
    assert pace.prompt_tokens(8) == 320
    pace.note(4, 128, 0.04 + 128 * 0.001)
    assert pace.prompt_tokens(8) == 320, "what the streams' own tokens take is not the prompt's"


def test_as_many_short_prompts_as_streams_begin_together():
    steps = Steps(step=0.01, prompt_token=0.001)
    for _ in range(7):
        steps.generating()
    for i in range(7):
        steps.add(request_of(40 + i))
    together = steps.next()
    assert CHUNK_STEPS * 10 < sum(together.values()) == sum(range(40, 47)) <= GATHER * CHUNK_STEPS * 10
    few = Steps(step=0.01, prompt_token=0.001)
    for _ in range(7):
        few.generating()
    for i in range(3):
        few.add(request_of(40 + i))
    assert sum(few.next().values()) <= CHUNK_STEPS * 10


def lines_run(function: Callable[[], Any]) -> int:
    """Return how many lines of the package a call runs."""
    lines = 0

    def trace(frame: FrameType, event: str, value: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):  # such as a callback of the garbage collector
            return None
        lines += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(previous)
    return lines


@pytest.mark.parametrize("kind", ["calls", "turns of one conversation", "continuations"])
def test_requests_that_wait_cost_a_step_nothing(kind: str):
    def lines(n: int) -> int:
        scheduler = Scheduler(n_parallel=2)
        conversation = Conversation("ada") if kind == "turns of one conversation" else None
        requests = [request_of(10, conversation) for _ in range(n)]
        for request in requests:
            scheduler.add(request, has_leader=kind == "continuations" and request is not requests[0])
        for request in scheduler.next_waiting():
            scheduler.start(request)
        assert scheduler.n_waiting == n - len(scheduler.running)
        return lines_run(lambda: (list(scheduler.next_waiting()), list(scheduler.next_batch(512))))

    assert lines(2000) == lines(20)


def test_the_line_is_in_order_of_arrival_also_where_requests_wait_for_others():
    scheduler = Scheduler(n_parallel=10)
    ada = Conversation("ada")
    first, second, third = (request_of(10, ada) for _ in range(3))
    other, follower = request_of(10), request_of(10)
    for request in (first, second, other, follower, third):
        scheduler.add(request, has_leader=request is follower)
    assert list(scheduler.next_waiting()) == [first, other]
    scheduler.start(first)
    scheduler.start(other)
    scheduler.remove(first)
    assert list(scheduler.next_waiting()) == [second]
    scheduler.release(follower)
    assert list(scheduler.next_waiting()) == [second, follower]
    scheduler.remove(second)
    assert list(scheduler.next_waiting()) == [follower, third]
    scheduler.preempt(other)
    assert scheduler.drain() == [other, follower, third]
    assert (scheduler.running, scheduler.n_waiting) == ([], 0)
