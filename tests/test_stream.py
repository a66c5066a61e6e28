"""Streams, and the ways to end one early: each takes effect within one step and leaves the model usable."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from types import FrameType
from typing import Any

import pytest

from cyllama import LLM, ConfigTypeError, Response, StreamNotFinishedError

from .support.harness import ENDLESS, settled

STORY = "<|im_start|>user\nTell me a story about a fox.<|im_end|>\n<|im_start|>assistant\n"


def test_the_chunks_of_a_stream_add_up_to_the_response(llm: LLM):
    stream = llm(STORY, stream=True)
    with pytest.raises(StreamNotFinishedError, match="read it to its end"):
        _ = stream.response
    chunks = list(stream)
    assert len(chunks) > 50
    assert all(chunks)
    assert isinstance(stream.response, Response)
    assert "".join(chunks) == stream.response == llm(STORY)
    assert stream.response.finish_reason == "stop"


def test_chunks_come_while_the_rest_is_still_being_generated(llm: LLM):
    before = llm.stats.tokens_generated
    with llm(STORY, stream=True, **ENDLESS) as stream:
        for _ in range(10):
            next(stream)
        n_generated = llm.stats.tokens_generated - before
        next(stream)
    assert n_generated < 20_000 - llm.count_tokens(STORY)
    assert stream.response.finish_reason == "cancelled"


def test_an_exhausted_stream_stays_exhausted(llm: LLM):
    stream = llm(STORY, stream=True, max_tokens=3)
    assert list(stream) != []
    assert list(stream) == []
    assert next(stream, "nothing") == "nothing"


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 7])
def test_stop_sequences_are_cut_from_streams_as_from_responses(llm: LLM, max_tokens: int):
    whole = llm(STORY)
    stop = whole[40 + max_tokens : 52 + max_tokens]
    stream = llm(STORY, stop_sequences=[stop], stream=True)
    text = "".join(stream)
    assert text == whole[: whole.index(stop)] == llm(STORY, stop_sequences=stop)
    assert stream.response.finish_reason == "stop"


def test_a_stop_sequence_that_begins_but_does_not_end_is_text(llm: LLM):
    whole = llm(STORY)
    assert "".join(llm(STORY, stop_sequences=[whole[-5:] + "!"], stream=True)) == whole


def test_multibyte_text_is_streamed_whole_characters_at_a_time(llm: LLM):
    prompt = '<|im_start|>user\nRepeat after me: "李明 🦊 é"<|im_end|>\n<|im_start|>assistant\n'
    chunks = list(llm(prompt, stream=True))
    assert "".join(chunks) == llm(prompt)
    assert "🦊" in "".join(chunks)
    assert not any("\ufffd" in chunk for chunk in chunks)


def test_cancel_ends_the_generation_and_keeps_what_was_generated(llm: LLM):
    stream = llm(STORY, stream=True, **ENDLESS)
    text = next(stream) + next(stream)
    stream.cancel()
    text += "".join(stream)
    assert stream.response == text
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.usage.completion_tokens < 19_000
    assert llm(STORY, max_tokens=2).finish_reason == "length"


def test_leaving_the_with_block_ends_the_generation(llm: LLM):
    with llm(STORY, stream=True, **ENDLESS) as stream:
        for _ in stream:
            break
    assert stream.response.finish_reason == "cancelled"
    generated = llm.stats.tokens_generated
    assert llm(STORY, max_tokens=2).usage.completion_tokens == llm.stats.tokens_generated - generated


def test_a_dropped_stream_ends_the_generation(llm: LLM):
    before = llm.stats.tokens_generated
    stream = llm(STORY, stream=True, **ENDLESS)
    next(stream)
    del stream
    gc.collect()
    llm(STORY, max_tokens=1)  # waits for the turn that the dropped one gives up
    assert llm.stats.tokens_generated - before < 19_000


def test_a_stream_that_was_never_read_ends_when_it_is_dropped(llm: LLM):
    before = llm.stats.tokens_generated
    for _ in range(20):
        llm(STORY, stream=True, **ENDLESS)
    assert llm(STORY, max_tokens=1).finish_reason == "length"
    assert llm.stats.tokens_generated - before < 20 * 19_000


def test_a_stream_of_a_temporary_instance_keeps_it_alive():
    stream = LLM(temperature=0)(STORY, stream=True)
    gc.collect()
    text = "".join(stream)
    assert text.startswith("Once upon a time")
    assert stream.response == text


def test_on_token_sees_every_chunk_on_the_callers_thread(llm: LLM):
    seen: list[tuple[str, int]] = []
    response = llm(STORY, on_token=lambda chunk: seen.append((chunk, threading.get_ident())))
    assert "".join(chunk for chunk, _ in seen) == response
    assert {thread for _, thread in seen} == {threading.get_ident()}
    assert all(chunk for chunk, _ in seen)


def test_on_token_works_beside_a_stream(llm: LLM):
    seen: list[str] = []
    assert list(llm(STORY, stream=True, on_token=seen.append)) == seen


def test_an_exception_in_on_token_ends_the_generation_and_is_raised(llm: LLM):
    def fail(chunk: str) -> None:
        raise LookupError(chunk)

    before = llm.stats.tokens_generated
    with pytest.raises(LookupError):
        llm(STORY, on_token=fail, **ENDLESS)
    assert llm(STORY, max_tokens=2).finish_reason == "length"
    assert llm.stats.tokens_generated - before < 19_000


class Listener:
    async def __call__(self, chunk: str) -> None: ...


async def listen(chunk: str) -> None: ...


@pytest.mark.parametrize("on_token", [listen, Listener(), lambda chunk: listen(chunk)], ids=["def", "object", "lambda"])
def test_an_async_callback_of_a_call_is_refused_and_not_forgotten(llm: LLM, on_token: Any):
    for call in (llm, llm.session()):
        with pytest.raises(ConfigTypeError, match="async"):
            call(STORY, on_token=on_token, **ENDLESS)
    assert llm(STORY, max_tokens=2).finish_reason == "length"


def test_a_slow_reader_finds_every_chunk_and_they_take_little_memory(llm: LLM):
    """Generation does not wait for it: the others would wait as well, or the cells stay taken."""
    tracemalloc.start()
    try:
        stream = llm(STORY, stream=True, max_tokens=1500, ignore_eos=True)
        while stream._request.finish_reason is None:
            settled(llm)
        unread = stream._chunks.qsize()
        gc.collect()
        size = sum(trace.size for trace in tracemalloc.take_snapshot().traces)
        text = "".join(stream)
        del stream
        gc.collect()
        size -= sum(trace.size for trace in tracemalloc.take_snapshot().traces)
    finally:
        tracemalloc.stop()
    assert unread > 1000
    assert len(text) > 1000
    assert size / unread < 1024, "bytes for each chunk, those that the request keeps included"


def test_a_callback_may_generate_with_the_same_instance_on_another_thread(llm: LLM):
    """It waits for its turn, which comes when the outer generation is over."""
    inner: list[str] = []
    threads: list[threading.Thread] = []

    def start(_: str) -> None:
        if not threads:
            threads.append(threading.Thread(target=lambda: inner.append(llm(STORY, max_tokens=3))))
            threads[0].start()

    outer = llm(STORY, on_token=start, max_tokens=20)
    threads[0].join()
    assert outer.startswith(inner[0])


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
@pytest.mark.parametrize("call", ["llm(prompt, **options)", "list(llm(prompt, stream=True, **options))"])
def test_ctrl_c_raises_keyboard_interrupt_within_a_step_and_leaves_the_instance_usable(call: str):
    code = f"""
    import os, signal, threading, time
    from cyllama import LLM
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell ignores it
    llm = LLM(temperature=0)
    prompt, options = {STORY!r}, dict(max_tokens=None, ignore_eos=True, n_ctx=200_000)
    llm(prompt, max_tokens=1, n_ctx=200_000)
    before = llm.stats.tokens_generated
    def interrupt():
        while llm.stats.tokens_generated < before + 20:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted", llm.stats.tokens_generated - before < 100_000)
    print(llm(prompt, max_tokens=3).usage.completion_tokens)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "interrupted True\n3\n"


def test_a_long_prompt_can_be_cancelled_while_it_is_evaluated(llm: LLM):
    stream = llm([5] * 60_000, n_ctx=60_100, n_batch=64, stream=True)
    while llm.stats.prompt_tokens_evaluated == 0:
        pass
    before = llm.stats.prompt_tokens_evaluated
    stream.close()
    assert llm.stats.prompt_tokens_evaluated - before < 60_000
    assert stream.response == ""
    assert stream.response.finish_reason == "cancelled"
    assert llm(STORY, max_tokens=1).finish_reason == "length"


def test_signal_handlers_may_close(llm: LLM):
    """A handler runs between any two instructions of the main thread, and may find any lock of ours held by it."""
    received: list[int] = []
    running: list[int] = []

    def arm() -> None:
        if len(received) < 20:
            signal.setitimer(signal.ITIMER_REAL, 0.01)

    def handler(number: int, frame: object) -> None:
        received.append(number)
        running.append(number)
        if len(running) < 3:  # where closing takes longer than the timer, handlers would interrupt handlers without end
            arm()
        llm.close()
        running.pop()
        arm()

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        arm()
        while len(received) < 20:
            assert llm(STORY, max_tokens=50).finish_reason in {"length", "cancelled"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert llm(STORY, max_tokens=2).finish_reason == "length"


def test_closing_may_be_interrupted_by_closing_at_any_line(llm: LLM):
    """As by a signal handler, which may find any lock held, those of the standard library included."""
    last = 1
    llm(STORY, max_tokens=1)
    while close_interrupted_at(llm, last) >= last:
        llm(STORY, max_tokens=1)
        last += 1
    assert last > 10
    assert llm(STORY, max_tokens=2).finish_reason == "length"


def close_interrupted_at(llm: LLM, last: int) -> int:
    """Close, and close once more before line number ``last`` of all that this runs; return how many lines it ran."""
    lines = 0

    def trace(frame: FrameType, event: str, value: object) -> Any:
        nonlocal lines
        lines += event == "line"
        if event == "line" and lines == last:
            llm.close()
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        llm.close()
    finally:
        sys.settrace(previous)
    return lines


def test_two_readers_of_one_stream_share_its_chunks_and_both_end(llm: LLM):
    stream = llm(STORY, stream=True)
    parts: list[list[str]] = []
    threads = [threading.Thread(target=lambda: parts.append(list(stream))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(chunk) for part in parts for chunk in part) == len(stream.response)


def test_closing_while_another_thread_reads_ends_both(llm: LLM):
    stream = llm(STORY, stream=True, **ENDLESS)
    next(stream)
    thread = threading.Thread(target=lambda: list(stream))
    thread.start()
    stream.close()
    thread.join()
    assert stream.response.finish_reason == "cancelled"


def test_cancelling_one_generation_never_touches_the_next(llm: LLM):
    """The one in flight is aborted while the next is admitted: the next one must not be aborted in its place."""
    expected = llm(STORY, max_tokens=5)
    answers: list[str] = []
    for _ in range(100):
        stream = llm(STORY, stream=True, **ENDLESS)
        next(stream)
        thread = threading.Thread(target=lambda: answers.append(llm(STORY, max_tokens=5)))
        thread.start()
        stream.close()
        stream.close()
        thread.join()
    assert answers == [expected] * 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_stream_in_a_forked_child_is_refused_and_not_waited_for():
    code = f"""
    import os, warnings
    warnings.simplefilter("ignore")
    from cyllama import LLM, ForkedError
    llm = LLM(n_threads=1)
    with llm({STORY!r}, stream=True) as stream:
        next(stream)
        pid = os.fork()
        if pid == 0:
            try:
                next(stream)
            except ForkedError:
                stream.close()
                os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), stream.response.finish_reason)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.stdout, result.stderr) == ("7 cancelled\n", "")
