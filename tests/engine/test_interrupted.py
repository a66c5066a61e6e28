"""Calls that fail or are interrupted leave nothing: no session, no request without a caller."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from linecache import getline
from types import FrameType
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, GrammarError
from cyllama.engine import Engine

from ..support.harness import engine_of, in_threads, settled

START = "Once upon a time"
WHERE_REQUESTS_BEGIN = (
    *("llm.py", "submission.py", "runtime.py", "stream.py"),
    *("engine.py", "worker.py", "conversation.py"),
)


def interrupted_at(call: Callable[[], object], last: int) -> int:
    """Call something that Ctrl-C interrupts after ``last`` lines of all that it runs here; return how many it ran.

    Python shows a trace function the line of a ``with`` statement again when its block ends. There, Ctrl-C does not
    come between the block and its ``__exit__``, and an exception of a trace function would: no lock would be released.
    """
    lines = 0
    visits: Counter[tuple[FrameType, int]] = Counter()

    def leaves_with(frame: FrameType) -> bool:
        place = frame, frame.f_lineno
        visits[place] += 1
        is_with = getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
        return is_with and visits[place] % 2 == 0

    def trace(frame: FrameType, event: str, value: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(WHERE_REQUESTS_BEGIN):
            return None
        if event != "line" or leaves_with(frame):
            return trace
        if lines == last:
            raise KeyboardInterrupt
        lines += 1
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(previous)
    return lines


@pytest.mark.parametrize(
    "kind", ["session", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("continuations", "new engine"))]
)
def test_ctrl_c_at_any_line_of_a_call_leaves_nothing(llm: LLM, kind: str):
    streams: list[object] = []

    def call() -> None:
        if kind == "continuations":
            llm(START, n=3, max_tokens=300, ignore_eos=True)
        else:
            streams.append(llm(START, session="ada", stream=True, max_tokens=300, ignore_eos=True))

    last, n = -1, -1
    while n == last and last < 120:  # then continuations wait for their answers
        last += 1
        if kind == "new engine":
            llm.close()
        else:
            engine_of(llm)
        n = interrupted_at(call, last)
        streams.clear()
        gc.collect()
        settled(llm)
        conversation = llm._runtime.conversations.find("ada")
        assert conversation is None or not conversation.requests
        assert (llm.stats.waiting, llm.stats.running) == (0, 0)
        llm.reset_context(session="ada")
        assert in_threads(
            [lambda: llm._runtime.lock.acquire(blocking=False) and llm._runtime.lock.release() is None]
        ) == [True]
    assert last > 50
    assert llm(START, max_tokens=1).finish_reason == "length"


def test_a_thread_whose_start_is_interrupted_ends(llm: LLM, monkeypatch: pytest.MonkeyPatch):
    llm.close()
    started: list[Engine] = []
    start = Engine.start

    def interrupted_start(self: Engine) -> None:
        started.append(self)
        monkeypatch.setattr(self._thread, "start", self._thread.start)
        real = self._thread.start

        def start_then_interrupt() -> None:
            real()
            raise KeyboardInterrupt

        monkeypatch.setattr(self._thread, "start", start_then_interrupt)
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "start", interrupted_start)
        with pytest.raises(KeyboardInterrupt):
            llm(START, max_tokens=1)
    started[0].join()
    assert llm(START, max_tokens=1).finish_reason == "length"


def test_a_call_that_does_not_fit_leaves_no_empty_session(llm: LLM):
    with pytest.raises(ContextSizeError):
        llm([300] * 5000, session="ada")
    with pytest.raises(ContextSizeError):
        llm(START * 50, session="bob", n_ctx=10)
    with pytest.raises(GrammarError):
        llm(START, session="eve", grammar="no grammar")
    assert llm.sessions == []
    llm(START, session="ada", max_tokens=1)
    with pytest.raises(ContextSizeError):
        llm([300] * 5000, session="ada")
    assert llm.sessions == ["ada"], "what held something before still does"


def test_failed_calls_do_not_use_up_the_sessions():
    with LLM(max_sessions=2, n_threads=1) as llm:
        kept = llm.session("kept")
        for i in range(5):
            with pytest.raises(ContextSizeError):
                llm([300] * 5000, session=f"{i}")
        stream = llm(START, session="other", stream=True, max_tokens=1)
        assert llm.sessions == ["kept", "other"]
        stream.close()
        assert kept.tokens == 0


def test_a_session_that_was_asked_for_is_there_before_its_first_call(llm: LLM):
    llm.session("ada")
    assert llm.sessions == ["ada"]
