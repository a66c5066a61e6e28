"""A child of os.fork() has none of its parent's threads, and waits for none of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaContext

from ..support.contexts import BatchOf, NewContext

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def test_the_exit_of_a_child_does_not_wait_for_what_its_parent_computes(in_process: Callable[..., str]):
    """Waiting would be ten thousand naps of a millisecond, which the system counts."""
    code = """
import warnings
warnings.simplefilter("ignore")
import resource
model = load()
context, done = LlamaContext(model, params()), threading.Event()
def work():
    while not done.is_set():
        context.kv_cache_clear(False)
        context.decode(batch_of([1] * 200))
thread = threading.Thread(target=work, daemon=True)
thread.start()
for i in range(3):
    pid = os.fork()
    if pid == 0:
        sys.exit(7)  # as programs do, and multiprocessing's children
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
done.set()
thread.join()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_nvcsw < 3000)
"""
    assert in_process(code) == "True\n"


def test_a_child_has_grammars_although_its_parent_was_about_to_read_the_vocabulary(in_process: Callable[..., str]):
    code = """
import warnings
warnings.simplefilter("ignore")
import signal
for _ in range(8):
    models = [load() for _ in range(8)]
    threads = [threading.Thread(target=LlamaSampler.grammar, args=(m.vocab, 'root ::= "a"')) for m in models]
    for thread in threads:
        thread.start()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        for model in models:
            LlamaSampler.grammar(model.vocab, 'root ::= "b"')
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    for thread in threads:
        thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_two_who_save_to_one_file_leave_a_whole_one_at_every_moment(
    new_context: NewContext, batch_of: BatchOf, story: list[int], tmp_path: Path
):
    path, done = tmp_path / "state", threading.Event()
    contexts = [new_context() for _ in range(3)]
    for context in contexts:
        context.decode(batch_of(story))
    contexts[0].state_save_file(path)
    size = path.stat().st_size
    errors: list[BaseException] = []

    def save(context: LlamaContext) -> None:
        try:
            while not done.is_set():
                context.state_save_file(path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(context,)) for context in contexts[1:]]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert path.stat().st_size == size
        for _ in range(20):
            contexts[0].state_load_file(path)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
