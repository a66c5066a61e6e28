"""The end of the process: interpreters exit, and Ctrl-C ends what it should."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from ...support.harness import (
    story,
)


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
    ENDLESS = dict(max_tokens=None, ignore_eos=True, n_ctx=20_000)
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
    answers, started, main_started = [], threading.Semaphore(0), threading.Event()
    expected = llm(STORY, max_tokens=40)
    def generate():
        answers.append(llm(STORY, max_tokens=400, ignore_eos=True, on_token=lambda _: started.release()))
    threads = [threading.Thread(target=generate) for _ in range(6)]
    def interrupt():
        for _ in range(60):
            started.acquire()
        main_started.wait()
        os.kill(os.getpid(), signal.SIGINT)
    threads.append(threading.Thread(target=interrupt))
    for thread in threads:
        thread.start()
    try:
        llm(STORY, on_token=lambda _: main_started.set(), **ENDLESS)
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
