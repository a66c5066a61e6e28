"""Nothing is left behind by many generations, or by many contexts."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from cyllama import LLM

from ..support.random_models import write_random_adapter, write_random_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm"),
]
LIMIT = 10 * 2**20


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_generations_leave_memory_as_it_is(llm: LLM):
    def generate(n: int) -> None:
        for i in range(n):
            llm("Once upon a time", max_tokens=3, temperature=1, seed=i, repeat_penalty=1.1)
            if i % 10 == 0:
                list(llm("Once upon a time", max_tokens=3, stream=True, stop_sequences=["."]))

    generate(500)
    before = resident_bytes()
    generate(10_000)
    assert resident_bytes() - before < LIMIT


def test_five_hundred_contexts_leave_memory_as_it_is(llm: LLM):
    def cycle(n: int) -> None:
        for _ in range(n):
            llm("Once upon a time", max_tokens=2)
            llm.close()

    cycle(50)
    before = resident_bytes()
    cycle(500)
    assert resident_bytes() - before < LIMIT


def test_a_hundred_models_leave_memory_as_it_is(tiny_chat: Path):
    def cycle(n: int) -> None:
        for _ in range(n):
            LLM(tiny_chat)("Once upon a time", max_tokens=2)

    cycle(10)
    before = resident_bytes()
    cycle(100)
    assert resident_bytes() - before < LIMIT


def test_two_hundred_adapters_leave_memory_as_it_is(tmp_path: Path):
    model = write_random_model(tmp_path / "model.gguf", "llama")
    adapter = write_random_adapter(tmp_path / "adapter.gguf", model, rank=64)  # 500 KB

    with LLM(model, n_threads=1) as llm:

        def cycle(n: int) -> None:
            for i in range(n):
                llm.load_lora("adapter", adapter)
                llm("Once upon a time", max_tokens=2, session="a", lora={"adapter": 1 + i})
                llm.unload_lora("adapter")
                llm("Once upon a time", max_tokens=2, session="b")

        cycle(20)
        before = resident_bytes()
        cycle(200)
        assert resident_bytes() - before < LIMIT
