"""However one request ends, the others go on."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from cyllama import LLM, DecodeError, Response, Stream
from cyllama.engine import Engine
from cyllama.engine.embedding import Embedder
from cyllama.engine.worker import Worker

from ...support.callers import check, start_endless
from ...support.harness import (
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


@pytest.mark.parametrize("lockstep", [8], indirect=True)
def test_cancelling_one_frees_its_cells_before_the_next_step_and_disturbs_no_other(
    eight: LLM, lockstep: threading.Event, steps: list[Step], reference: Reference
):
    with held(eight):  # none is more than some tokens ahead of the others
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
    lockstep.set()
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


@pytest.mark.usefixtures("long_quanta")
@pytest.mark.parametrize("lockstep", [8], indirect=True)
def test_when_a_whole_step_fails_those_that_ran_fail_and_those_that_wait_are_served(
    lockstep: threading.Event, steps: list[Step], reference: Reference
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
        lockstep.set()
        for stream in streams[:2]:
            with pytest.raises(DecodeError, match="the context is closed"):
                stream.read()
        for stream in streams[2:]:
            check(reference, stream)
        assert question.read() == "Your name is Ada."
        assert llm.stats.contexts_created == contexts_created + 1


@pytest.mark.usefixtures("long_quanta")
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


class Inbox(SimpleQueue[Any]):
    """The inbox of a worker, which notes where the worker would wait after it was told to stop.

    Attributes:
        late: How often it would have waited without end.
    """

    def __init__(self, worker: Worker[Any]) -> None:
        super().__init__()
        self.late = 0
        self._worker = worker

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if block and self._worker._stopping and self.empty():
            self.late += 1
            return None
        return super().get(block, timeout)


@pytest.mark.parametrize("kind", [Engine, Embedder])
def test_a_thread_that_is_told_to_stop_before_it_looks_into_its_inbox_does_not_wait(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, kind: type[Worker[Any]]
):
    """It has taken what tells it to stop, together with other messages."""
    empty_inbox, inboxes = kind._empty_inbox, list[Inbox]()

    def look_late(self: Worker[Any]) -> None:
        if not inboxes:
            inboxes.append(Inbox(self))
            self._inbox = inboxes[0]
            threading.Thread(target=llm.close).start()
            while self._inbox.empty():
                pass
        empty_inbox(self)

    llm(story(), max_tokens=1)
    llm.embed("Hello")
    worker = llm._runtime.engine if kind is Engine else llm._runtime._embedder.worker
    assert worker is not None
    monkeypatch.setattr(kind, "_empty_inbox", look_late)
    worker._inbox.put(None)  # it wakes up, and looks
    worker.join()
    assert [inbox.late for inbox in inboxes] == [0]
    assert llm(story(), max_tokens=5).finish_reason == "length"
    assert len(llm.embed("Hello")) > 0


@pytest.mark.usefixtures("long_quanta")
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
    before = set(threading.enumerate())
    for end in (Stream.read, Stream.close, Stream.cancel, Stream.__del__):
        llm = LLM(**EXACT)
        session = llm.session()
        end(llm(story(), stream=True, max_tokens=30))
        end(session(story(), stream=True, max_tokens=30))
        gone = weakref.ref(llm)
        del llm, session
        gc.collect()
        assert gone() is None
    assert set(threading.enumerate()) <= before
