"""Once large buffers on the CPU are filled, a thread puts them into large pages, while they are in use."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import supports_gpu_offload

from ..support.random_models import write_one_layer

MADV_COLLAPSE = 25
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def has_large_pages() -> bool:
    if not SETTING.exists() or "[never]" in SETTING.read_text() or not os.access("/proc/self/pagemap", os.R_OK):
        return False
    return os.sysconf("SC_PAGESIZE") == 4096 and ctypes.CDLL(None).madvise(None, ctypes.c_size_t(0), MADV_COLLAPSE) == 0


pytestmark = [
    pytest.mark.skipif(
        not has_large_pages(),
        reason="this system has no large pages, or cannot copy small ones to them (before Linux 6.1)",
    ),
    pytest.mark.skipif(
        supports_gpu_offload(), reason="`make gpu` builds llama.cpp's tools too, which keep small pages"
    ),
]

HELPERS = """
import re, signal, warnings
warnings.simplefilter("ignore")  # of Python 3.12, about fork() beside other threads
MIB = 2**20

def kilobytes(name):
    return 1024 * int(re.search(rf"^{name}: +([0-9]+) kB$", open("/proc/self/smaps_rollup").read(), re.MULTILINE)[1])

def in_large_pages():
    return kilobytes("AnonHugePages")

def thread_status():
    for task in os.listdir("/proc/self/task"):
        try:
            status = open(f"/proc/self/task/{task}/status").read()
        except OSError:
            continue  # it has ended meanwhile
        if status.startswith("Name:\\tcyllama-pages\\n"):
            return status
    return ""

def wait_until(condition, what):
    deadline = time.monotonic() + 120
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within 120 s: {what}")
        time.sleep(0.01)
    return value

def see_thread():
    # It may have ended before: contexts start it again, because blocks that are not used stay small.
    start = lambda: LlamaContext(model, params()).close()
    return wait_until(lambda: thread_status() or start(), "the start of the thread that enlarges pages")

def wait_for_end():
    wait_until(lambda: not thread_status(), "the end of the thread that enlarges pages")

def wait_for_progress():
    at_first = in_large_pages()
    wait_until(lambda: in_large_pages() > at_first or not thread_status(), "the first large page")

model = load(n_gpu_layers=0)

def large_context(n_ctx=49152):
    return LlamaContext(model, params(n_ctx=n_ctx))

def next_state(context):
    context.decode(batch_of(range(1, 200)))
    return context.state_seq_get_data(0)
"""


@pytest.fixture
def run(in_process: Callable[..., str]) -> Callable[[str], str]:
    return lambda code: in_process(HELPERS + code)


def test_a_large_kv_cache_gets_large_pages_and_keeps_its_contents(run: Callable[[str], str]):
    code = r"""
LlamaContext(model, params()).close()
assert not thread_status()  # nothing is large
context = large_context()
blocked = int(re.search("^SigBlk:\t([0-9a-f]+)$", see_thread(), re.MULTILINE)[1], 16)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
    assert blocked >> (number - 1) & 1, "Python's threads handle signals"
before = next_state(context)
wait_for_end()
print(in_large_pages() // MIB)
assert context.state_seq_get_data(0) == before
context.kv_cache_clear(True)
assert next_state(context) == before
"""
    assert int(run(code)) >= 24  # of 48; where memory is short, Linux has no large page for some


def test_buffers_come_and_go_while_the_thread_works(run: Callable[[str], str]):
    code = """
with large_context() as context:
    expected = next_state(context)
kept = large_context(2 * 49152)
contents = next_state(kept)
wait_for_progress()
for _ in range(20):
    context = large_context()
    assert next_state(context) == expected
    context.close()
assert kept.state_seq_get_data(0) == contents
kept.close()
context = large_context()
wait_for_end()
assert next_state(context) == expected
print(in_large_pages() // MIB)
"""
    assert int(run(code)) >= 24


def test_unused_memory_stays_unused(run: Callable[[str], str]):
    """llama.cpp reserves compute buffers for the largest step."""
    code = """
context = LlamaContext(model, params(n_ctx=8192, n_batch=8192, n_ubatch=8192))
see_thread()  # its compute buffer is large, its KV cache is small
before = kilobytes("Rss")
wait_for_end()
print((kilobytes("Rss") - before) // MIB)
"""
    assert int(run(code)) < 16  # of 128


def test_a_child_frees_buffers_and_fills_others_although_its_parent_was_at_work(run: Callable[[str], str]):
    code = """
with large_context() as context:
    expected = next_state(context)
context = large_context(2 * 49152)
contents = next_state(context)
wait_for_progress()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        assert not thread_status()
        own = large_context()
        see_thread()
        assert next_state(own) == expected
        own.close()
        context.close()
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert context.state_seq_get_data(0) == contents
wait_for_end()
print("fine")
"""
    assert run(code) == "fine\n"


def test_memory_that_a_child_shares_is_not_copied_until_the_child_has_ended(run: Callable[[str], str]):
    code = """
context = large_context()
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    os.read(reading, 1)  # until the parent closes it
    os._exit(7)
at_fork = in_large_pages()
wait_for_end()
assert in_large_pages() - at_fork < 8 * MIB
os.close(writing)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
LlamaContext(model, params()).close()  # the next thread visits what is left
wait_for_end()
print(in_large_pages() // MIB)
"""
    assert int(run(code)) >= 24


@pytest.mark.parametrize("end", ["sys.exit()", "del context, model; gc.collect()", "context.close(); model.close()"])
def test_a_process_ends_while_the_thread_works(end: str, run: Callable[[str], str]):
    assert run(f"context = large_context(2 * 49152); wait_for_progress(); print('end', flush=True); {end}") == "end\n"


# ----------------------------------------------------------------------------- weights that are mapped from a file

OWN_MODEL = """
import mmap

def logits_of(model):
    with LlamaContext(model, params()) as context:
        context.decode(batch_of([1, 2, 3]))
        return bytes(memoryview(context.get_logits_ith(-1)))
"""


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 64 MiB of weights, of which each token reads all."""
    path = tmp_path_factory.mktemp("mapped") / "large.gguf"
    return write_one_layer(path, n_vocab=64, n_head=16, n_head_kv=16, head_width=64, n_ff=4096)


@pytest.fixture
def run_with_model(run: Callable[[str], str], large_model: Path) -> Callable[[str], str]:
    return lambda code: run(f"PATH = {str(large_model)!r}" + OWN_MODEL + code)


def test_mapped_weights_are_replaced_while_they_are_read(run_with_model: Callable[[str], str]):
    code = """
own = load(PATH, n_gpu_layers=0)
assert 60 * MIB < own.n_mapped_bytes <= own.size
expected = logits_of(own)
own.copy_mapped_weights()
own.copy_mapped_weights()  # as good as once
see_thread()
while thread_status():
    assert logits_of(own) == expected
print(in_large_pages() // MIB)
assert logits_of(own) == expected
own.close()
assert in_large_pages() < 8 * MIB
"""
    assert int(run_with_model(code)) >= 30  # of 64


def test_what_another_process_maps_stays_shared(run_with_model: Callable[[str], str]):
    code = """
reading, writing = os.pipe()
ready, tell = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writing)
    with open(PATH, "rb") as file:
        shared = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
    os.write(tell, b"!")
    os.read(reading, 1)  # until the parent closes it
    os._exit(7)
os.read(ready, 1)
own = load(PATH, n_gpu_layers=0)
before = in_large_pages()
own.copy_mapped_weights()
see_thread()
wait_for_end()
assert in_large_pages() - before < 8 * MIB
os.close(writing)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
own.copy_mapped_weights()
wait_for_end()
print(in_large_pages() // MIB)
"""
    assert int(run_with_model(code)) >= 30


def test_models_come_and_go_while_their_weights_are_copied(run_with_model: Callable[[str], str]):
    code = """
own = load(PATH, n_gpu_layers=0)
expected = logits_of(own)
own.copy_mapped_weights()
wait_for_progress()
for i in range(20):
    other = load(PATH, n_gpu_layers=0)
    other.copy_mapped_weights()
    assert logits_of(other) == expected
    if i % 2:
        other.close()
    del other
    pid = os.fork()
    if pid == 0:
        assert own.n_mapped_bytes > 0
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
wait_for_end()
assert logits_of(own) == expected
own.close()
try:
    own.copy_mapped_weights()
except RuntimeError as error:
    print(error)
"""
    assert run_with_model(code) == "the model is closed\n"


def test_an_llm_copies_mapped_weights_if_there_is_room(large_model: Path, run: Callable[[str], str]):
    code = f"""
import cyllama.loading
from cyllama.config import ModelConfig

def copied(available=None, **options):
    if available is not None:
        cyllama.loading.available_memory = lambda: available
    model = cyllama.loading.load_model({str(large_model)!r}, ModelConfig(n_gpu_layers=0, **options), None)
    wait_for_end()  # of the thread, if the load has started one
    large = in_large_pages() // MIB
    model.close()
    return large >= 30

print(copied(), copied(load_mode="mmap"), copied(2**62), copied(100 * MIB))
"""
    assert run(code) == "True False True False\n"
