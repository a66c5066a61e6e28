"""Large buffers on the CPU ask the operating system for large pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

LARGE = 32 * 2**20
MEASURE = """
import re
from cyllama import LLM

def advised():
    # Bytes in mappings that may have large pages: "hg" in proc_pid_smaps(5)
    text = open("/proc/self/smaps").read()
    mappings = re.findall(r"(?s)^Size: +([0-9]+) kB$.*?^VmFlags:([^\\n]*)$", text, re.MULTILINE)
    return sum(1024 * int(size) for size, flags in mappings if "hg" in flags.split())

def measure(n_ctx):
    with LLM(n_ctx=n_ctx) as llm:
        llm("Once", max_tokens=1)
        print(sum(llm.stats.kv_cache_bytes.values()), advised())
    print(0, advised())

measure(256)
measure(49152)
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system offers no large pages to ask for"
)
def test_a_large_kv_cache_may_have_large_pages_and_a_small_one_does_not_ask(in_process: Callable[..., str]):
    small, after_small, large, after_large = (map(int, line.split()) for line in in_process(MEASURE).splitlines())
    n_small, advised_by_small = small
    n_large, advised_by_large = large
    assert n_small < LARGE < n_large
    assert (advised_by_small, *after_small, *after_large) == (0, 0, 0, 0, 0)
    assert advised_by_large >= n_large - 2**20  # but for what shares a page with other memory
