"""Many callers, one context: each gets what it would get alone, and whatever happens to one is no other's business."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, DecodeError, Response, Stream
from cyllama.engine import Engine
from cyllama.engine.scheduler import Scheduler

from ..support.harness import (
    ANIMALS,
    ENDLESS,
    EXACT,
    Reference,
    Step,
    engine_of,
    held,
    in_threads,
    settled,
    story,
    turn,
)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture
def eight(steps: list[Step]) -> Iterator[LLM]:
    """The embedded model for eight callers at a time."""
    with LLM(**EXACT, n_parallel=8) as llm:
        yield llm


def check(reference: Reference, stream: Stream, response: Response | None = None) -> None:
    """See that a stream was answered as it would have been alone."""
    request = stream._request
    response = stream.read() if response is None else response
    assert response == request.answer.text
    whole = response.finish_reason == "stop"
    assert whole or len(request.tokens) == request.reservation.max_tokens
    reference.check(request)


def start_endless(llm: LLM, n: int) -> list[Stream]:
    return [llm(story(animal), stream=True, **ENDLESS) for animal in ANIMALS[:n]]


# --- the same text as alone


@pytest.mark.parametrize(("n_threads", "n_parallel"), [(8, 4), (8, 8), (32, 8), (32, 3)])
def test_callers_in_many_threads_get_the_text_that_they_would_get_alone(
    n_threads: int, n_parallel: int, reference: Reference, steps: list[Step]
):
    with LLM(**EXACT, n_parallel=n_parallel) as llm:

        def ask(animal: str) -> Stream:
            stream = llm(story(animal), stream=True, max_tokens=60)
            stream.read()
            return stream

        streams = in_threads(partial(ask, animal) for animal in ANIMALS[:n_threads])
    for stream in streams:
        check(reference, stream, stream.response)
    together = [len(step.generated) for step in steps]
    assert max(together) == n_parallel


def test_short_answers_are_the_same_to_the_letter(eight: LLM):
    """Facts leave no two tokens nearly tied, unlike stories."""
    questions = ["What is the capital of France?", "What is 7 + 5?", "Count from 3 to 15.", "Say the alphabet."]
    alone = [eight(turn(question)) for question in questions]
    assert alone[:2] == ["The capital of France is Paris.", "7 + 5 = 12."]
    answers = in_threads(partial(eight, turn(question)) for question in questions * 8)
    assert answers == alone * 8


def test_sampled_text_depends_on_the_seed_and_not_on_the_neighbours(eight: LLM):
    options: dict[str, Any] = {"temperature": 0.6, "max_tokens": 12, "top_k": 5}
    alone = [eight(turn("Tell me a joke."), seed=seed, **options) for seed in range(16)]
    together = in_threads(partial(eight, turn("Tell me a joke."), seed=seed, **options) for seed in range(16))
    assert len(set(alone)) > 3
    # Rounding may decide between two tokens where a draw falls on the border between them.
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 10


def test_alone_again_the_text_is_the_same_to_the_bit(eight: LLM):
    before = eight(story())
    in_threads(partial(eight, story(animal), max_tokens=30) for animal in ANIMALS[:16])
    session = eight.session()
    session(turn("My name is Ada."), max_tokens=20)
    assert eight(story()) == before
    session.close()


def test_what_one_caller_wants_is_not_given_to_another(eight: LLM):
    """Every request has its own sampler, stop strings, limits and statistics."""
    whole = eight(story(), max_tokens=40)
    stop = whole[30:42]
    with held(eight):
        cut = eight(story(), stream=True, stop_sequences=[stop])
        short = eight(story(), stream=True, max_tokens=5)
        forced = eight(story(), stream=True, max_tokens=5, logit_bias={300: 1000.0})
        nothing = eight(story(), stream=True, max_tokens=0)
        plain = eight(story(), stream=True, max_tokens=40)
    assert cut.read() == whole[:30]
    assert short.read().usage.completion_tokens == 5
    assert whole.startswith(short.response)
    assert forced.read() == eight.detokenize([300] * 5)
    assert nothing.read() == ""
    assert plain.read() == whole


# --- who runs and who waits


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
    steps = [step for step in steps if short._request in step.requests]
    assert len(steps) == 20
    assert all(long._request in step.generated for step in steps)


def test_no_request_starves_behind_those_that_arrive_later(steps: list[Step], reference: Reference):
    """A long answer among a stream of short ones, which never ends before it does."""
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
                stream = llm(story(), stream=True)
                stream.read()
                return stream
            finally:
                done.set()

        *_, long = in_threads([short_ones, short_ones, short_ones, long_one])
        assert long is not None
        check(reference, long, long.response)
        assert served > 10


# --- too few cells for all


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


def test_sessions_give_way_too_and_remember(steps: list[Step], reference: Reference):
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


# --- growth


def test_the_context_grows_beneath_running_streams(steps: list[Step], reference: Reference):
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


def test_answers_without_a_limit_make_the_context_grow(
    steps: list[Step], reference: Reference, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cyllama.engine.context_params.DEFAULT_MAX_TOKENS", 64)  # the room that they begin with
    with LLM(**EXACT, n_parallel=2) as llm:
        with held(llm):
            streams = [llm(story(a), stream=True, **ENDLESS) for a in ANIMALS[:2]]
        next(streams[0])
        n_ctx = llm.stats.n_ctx
        while llm.stats.n_ctx == n_ctx:
            next(streams[0])
        for _ in range(20):
            next(streams[0])
        assert llm.stats.n_ctx > n_ctx
        assert llm.stats.contexts_created == 2
        for stream in streams:
            stream.cancel()
            stream.read()
            reference.check(stream._request)


# --- ends


def test_cancelling_one_frees_its_cells_before_the_next_step_and_disturbs_no_other(
    eight: LLM, steps: list[Step], reference: Reference
):
    streams = [eight(story(animal), stream=True, max_tokens=150, ignore_eos=True) for animal in ANIMALS[:6]]
    for stream in streams:
        for _ in range(5):
            next(stream)
    with held(eight):
        gone = [stream._request for stream in streams[2:4]]
        n_tokens = [len(request.tokens) for request in gone]
        n_steps = len(steps)
        for stream in streams[2:4]:
            stream.cancel()
    for i in (0, 1, 4, 5):
        check(reference, streams[i])
    after = steps[n_steps]
    assert not after.requests & set(gone)
    assert len(after.generated) == 4
    # Every token but the last one of each has a cell.
    remaining = [streams[i]._request for i in (0, 1, 4, 5)]
    done = {request: sum(request in step.generated for step in steps[: n_steps + 1]) for request in remaining}
    assert after.cells == sum(len(request.prompt) + done[request] for request in remaining)
    assert [stream.read().finish_reason for stream in streams[2:4]] == ["cancelled"] * 2
    assert [len(request.tokens) for request in gone] == n_tokens


def test_a_callback_that_fails_ends_its_own_generation_only(eight: LLM, reference: Reference):
    def fail_after(n: int) -> Any:
        seen: list[str] = []

        def on_token(chunk: str) -> None:
            seen.append(chunk)
            if len(seen) == n:
                raise LookupError(n)

        return on_token

    def failing(n: int) -> None:
        with pytest.raises(LookupError, match=str(n)):
            eight(story(), on_token=fail_after(n), **ENDLESS)

    def fine(animal: str) -> None:
        stream = eight(story(animal), stream=True, max_tokens=60)
        check(reference, stream)

    in_threads([*(partial(failing, n) for n in (1, 5, 20)), *(partial(fine, a) for a in ANIMALS[:9])])
    settled(eight)
    assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)


# With an infinite bias a token is always sampled, until the penalty for its frequency is infinite as well, after two:
# the difference of both is not a number, and the third token cannot be sampled.
IMPOSSIBLE: dict[str, Any] = {"logit_bias": {300: math.inf}, "frequency_penalty": 3.4e38}


def test_a_failure_while_sampling_ends_its_own_generation_only(eight: LLM, reference: Reference):
    with held(eight):
        before = [eight(story(animal), stream=True, max_tokens=60) for animal in ANIMALS[:3]]
        failing = eight(story(), stream=True, **IMPOSSIBLE)
        after = [eight(story(animal), stream=True, max_tokens=60) for animal in ANIMALS[3:6]]
    with pytest.raises(DecodeError, match=r"failed after \d tokens: .* not numbers") as caught:
        failing.read()
    assert caught.value.partial_text == failing.response == eight.detokenize([300, 300])
    for stream in (*before, *after):
        check(reference, stream)
    assert eight.stats.contexts_created == 1


def test_a_failure_in_a_session_leaves_the_conversation_as_it_was(eight: LLM):
    ada, bob = eight.session("ada"), eight.session("bob")
    ada(turn("My name is Ada."), max_tokens=20)
    bob(turn("My name is Bob."), max_tokens=20)
    n = ada.tokens
    with held(eight):
        failing = ada("\n" + turn("Tell me a joke."), stream=True, **IMPOSSIBLE)
        question = bob("\n" + turn("What is my name?"), stream=True, max_tokens=20)
    with pytest.raises(DecodeError):
        failing.read()
    assert question.read() == "Your name is Bob."
    assert ada.tokens == n
    assert ada("\n" + turn("What is my name?"), max_tokens=20) == "Your name is Ada."


def test_when_a_whole_step_fails_those_that_ran_fail_and_those_that_wait_are_served(
    steps: list[Step], reference: Reference, monkeypatch: pytest.MonkeyPatch
):
    """The failure is a real one: the context is closed under the engine, as no caller should."""
    with LLM(**EXACT, n_parallel=2) as llm:
        session = llm.session()
        session(turn("My name is Ada."), max_tokens=20)
        with held(llm):
            streams = [llm(story(a), stream=True, max_tokens=30, ignore_eos=True) for a in ANIMALS[:4]]
            question = session("\n" + turn("What is my name?"), stream=True, max_tokens=20)
        for stream in streams[:2]:
            next(stream)
        contexts_created = llm.stats.contexts_created
        with held(llm):
            context = engine_of(llm)._context.context
            assert context is not None
            context.close()
        for stream in streams[:2]:
            with pytest.raises(DecodeError, match="the context is closed"):
                stream.read()
        for stream in streams[2:]:
            check(reference, stream)
        assert question.read() == "Your name is Ada."
        assert llm.stats.contexts_created == contexts_created + 1


@pytest.mark.parametrize("end", ["close", "reset_context"])
def test_closing_ends_those_that_run_and_those_that_wait(end: str, eight: LLM, reference: Reference):
    before = in_threads(partial(eight, turn("Say the alphabet.")) for _ in range(2))
    sessions = [eight.session() for _ in range(4)]
    started = threading.Semaphore(0)
    began: set[int] = set()

    def generate(i: int) -> str:
        def on_token(chunk: str) -> None:
            if i not in began:
                began.add(i)
                started.release()

        if i % 4 == 0:
            return sessions[i // 4](story(ANIMALS[i]), on_token=on_token, **ENDLESS).finish_reason
        return eight(story(ANIMALS[i]), on_token=on_token, **ENDLESS).finish_reason

    def finish() -> str:
        for _ in range(8):
            started.acquire()
        while eight.stats.running + eight.stats.waiting < 16:
            pass
        getattr(eight, end)()
        return "cancelled"

    assert in_threads([*(partial(generate, i) for i in range(16)), finish]) == ["cancelled"] * 17
    assert (eight.stats.running, eight.stats.waiting, eight.stats.n_ctx) == (0, 0, 0)
    assert len(began) == 8
    remembered = [session.tokens > 0 for session in sessions]
    assert remembered == [end == "close" and 4 * i in began for i in range(4)]
    assert in_threads(partial(eight, turn("Say the alphabet.")) for _ in range(2)) == before
    for session in sessions:
        session.close()


def test_closing_from_many_threads_while_others_generate_ends_every_call(eight: LLM):
    """A call while an engine stops is served by the next one, or ends as cancelled; none is forgotten."""
    ended: list[Response] = []

    def generate() -> None:
        for _ in range(60):
            ended.append(eight(story(), max_tokens=20))

    def close(end: str) -> None:
        while len(ended) < 480:
            getattr(eight, end)()

    ends = [partial(close, "close"), partial(close, "reset_context")]
    in_threads([*[generate] * 8, *ends])
    assert len(ended) == 480
    assert {response.finish_reason for response in ended} <= {"length", "cancelled"}
    assert eight(story(), max_tokens=20).finish_reason == "length"


def test_a_call_that_comes_in_while_the_engine_is_told_to_stop_ends(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    """It comes after the engine looked for new ones, and before the engine looks whether it has to stop."""
    admit = Engine._admit
    late: list[Stream] = []

    def admit_slowly(self: Engine) -> None:
        admit(self)
        if self._scheduler.running and not late:
            late.append(llm(story(), stream=True, max_tokens=5))
            threading.Thread(target=llm.close).start()
            while not self._stopping:
                pass

    monkeypatch.setattr(Engine, "_admit", admit_slowly)
    stream = llm(story(), stream=True, **ENDLESS)
    assert stream.read().finish_reason == "cancelled"
    assert late[0].read().finish_reason == "cancelled"
    assert llm(story(), max_tokens=5).finish_reason == "length"


def test_a_callback_may_close_while_others_generate_and_wait(eight: LLM):
    with held(eight):
        streams = start_endless(eight, 7)
        closing = eight(story(), stream=True, on_token=lambda _: eight.close(), **ENDLESS)
        streams += start_endless(eight, 7)
    responses = in_threads(stream.read for stream in (*streams, closing))
    assert [response.finish_reason for response in responses] == ["cancelled"] * 15
    assert [response == "" for response in responses] == [False] * 7 + [True] * 7 + [False]
    assert eight(story(), max_tokens=3).finish_reason == "length"


def test_a_callback_may_forget_the_conversation_that_it_listens_to(eight: LLM):
    session, other = eight.session(), eight.session()
    other(turn("My name is Bob."), max_tokens=20)
    response = session(story(), on_token=lambda _: eight.reset_context(session=session.name), **ENDLESS)
    assert response.finish_reason == "cancelled"
    assert session.tokens == 0
    assert other("\n" + turn("What is my name?"), max_tokens=20) == "Your name is Bob."


def test_dropped_streams_end_and_give_back_what_they_had(eight: LLM, reference: Reference):
    streams = start_endless(eight, 16)
    kept = eight(story("a whale"), stream=True, max_tokens=30)
    for stream in streams[:8]:
        next(stream)
    requests = [stream._request for stream in streams]
    streams.clear()
    stream = None
    gc.collect()
    check(reference, kept)
    settled(eight)
    assert [request.finish_reason for request in requests] == ["cancelled"] * 16
    assert (eight.stats.running, eight.stats.waiting, eight.stats.kv_cells_used) == (0, 0, 0)


def test_streams_in_a_reference_cycle_end_when_it_is_collected(eight: LLM):
    class Chat:
        def __init__(self) -> None:
            self.me = self
            self.stream = eight(story(), stream=True, on_token=self.listen, **ENDLESS)
            next(self.stream)

        def listen(self, chunk: str) -> None:
            self.last = chunk

    for _ in range(8):
        Chat()
    gc.collect()
    assert eight(story(), max_tokens=3).finish_reason == "length"
    settled(eight)
    assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)


def test_an_instance_goes_when_its_last_user_does():
    """Neither a generation that ended nor one that was cancelled keeps it."""
    before = threading.active_count()
    for end in (Stream.read, Stream.close, Stream.cancel, Stream.__del__):
        llm = LLM(**EXACT)
        session = llm.session()
        end(llm(story(), stream=True, max_tokens=30))
        end(session(story(), stream=True, max_tokens=30))
        gone = weakref.ref(llm)
        del llm, session
        gc.collect()
        assert gone() is None
    assert threading.active_count() == before


# --- several answers to one prompt


def test_answers_to_the_same_prompt_are_those_of_their_seeds(eight: LLM):
    options: dict[str, Any] = {"temperature": 0.7, "max_tokens": 12, "top_k": 5}
    alone = [eight(turn("Tell me a joke."), seed=7 + i, **options) for i in range(6)]
    before = eight.stats
    together = eight(turn("Tell me a joke."), seed=7, n=6, **options)
    evaluated = eight.stats.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    assert evaluated == together[0].usage.prompt_tokens, "the prompt is evaluated once"
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 3


def test_groups_streams_and_sessions_share_the_steps(eight: LLM, reference: Reference):
    def group() -> None:
        answers = eight(turn("What is the capital of France?"), n=5, max_tokens=20)
        assert answers == ["The capital of France is Paris."] * 5

    def conversation(name: str) -> None:
        with eight.session() as session:
            session(turn(f"My name is {name}."), max_tokens=20)
            assert session("\n" + turn("What is my name?"), max_tokens=20) == f"Your name is {name}."

    def single(animal: str) -> None:
        check(reference, eight(story(animal), stream=True, max_tokens=40))

    names = ["Ada", "Bob", "Kimbo", "Zorblax"]
    in_threads([*[group] * 4, *(partial(conversation, n) for n in names), *(partial(single, a) for a in ANIMALS[:8])])
    settled(eight)
    assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)


# --- the end of the process


def run(code: str, timeout: int = 120) -> tuple[int, str, str]:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=timeout, check=False
    )
    return result.returncode, result.stdout, result.stderr


PREAMBLE = f"""
    import os, signal, sys, threading, time
    from cyllama import LLM
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell ignores it
    llm = LLM(temperature=0, n_threads=1, n_parallel=4)
    STORY = {story()!r}
    ENDLESS = dict(max_tokens=None, ignore_eos=True, n_ctx=10_000)
"""


def test_the_interpreter_exits_with_streams_that_are_not_read():
    code = """
    streams = [llm(STORY, stream=True, **ENDLESS) for _ in range(12)]
    next(streams[0])
    print("bye")
    """
    assert run(PREAMBLE + code) == (0, "bye\n", "")


def test_the_interpreter_exits_while_daemon_threads_generate():
    code = """
    started = threading.Semaphore(0)
    def generate():
        while True:
            llm(STORY, max_tokens=30, on_token=lambda _: started.release())
    for _ in range(12):
        threading.Thread(target=generate, daemon=True).start()
    for _ in range(100):
        started.acquire()
    print("bye")
    """
    for _ in range(5):
        code_and_text = run(PREAMBLE + code)
        assert code_and_text[:2] == (0, "bye\n"), code_and_text[2]


def test_the_interpreter_waits_for_threads_that_are_no_daemons():
    code = """
    def generate():
        sys.stdout.write(f"{llm(STORY, max_tokens=30).usage.completion_tokens}\\n")
    for _ in range(8):
        threading.Thread(target=generate).start()
    """
    assert run(PREAMBLE + code) == (0, "30\n" * 8, "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c_ends_the_main_threads_generation_and_no_other():
    code = """
    answers, started = [], threading.Semaphore(0)
    expected = llm(STORY, max_tokens=40)
    def generate():
        answers.append(llm(STORY, max_tokens=400, ignore_eos=True, on_token=lambda _: started.release()))
    threads = [threading.Thread(target=generate) for _ in range(6)]
    def interrupt():
        for _ in range(60):
            started.acquire()
        os.kill(os.getpid(), signal.SIGINT)
    threads.append(threading.Thread(target=interrupt))
    for thread in threads:
        thread.start()
    try:
        llm(STORY, **ENDLESS)
    except KeyboardInterrupt:
        print("interrupted")
    for thread in threads:
        thread.join()
    print({answer.usage.completion_tokens for answer in answers}, len(answers))
    print(llm(STORY, max_tokens=40) == expected, llm.stats.running, llm.stats.waiting)
    """
    assert run(PREAMBLE + code) == (0, "interrupted\n{400} 6\nTrue 0 0\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
def test_ctrl_c_ends_all_answers_to_one_prompt():
    code = """
    llm(STORY, max_tokens=1)
    before = llm.stats.tokens_generated
    def interrupt():
        while llm.stats.tokens_generated < before + 100:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        llm(STORY, n=4, **ENDLESS)
    except KeyboardInterrupt:
        llm(STORY, max_tokens=1)  # it is served after the step in which the others end
        print(llm.stats.running, llm.stats.waiting)
    """
    assert run(PREAMBLE + code) == (0, "0 0\n", "")
