"""Contexts that have to grow: how large they become, and what happens where the memory for it is missing.

Missing memory is simulated: what asks the system for it, or llama.cpp for a context or a copy, is replaced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, ContextMemoryError, ContextSizeError
from cyllama.config import ModelConfig
from cyllama.engine import Request, tuning
from cyllama.engine.context import create_context, sizes_between
from cyllama.engine.memory_needs import check_kv_memory, kv_cache_bytes
from cyllama.llama.llama_cpp import LlamaContext

from ..support.cold_start import EXACT, NEARLY_TIED_EXACTLY, ColdStart
from ..support.harness import Step, held, in_threads, settled, together
from ..support.random_models import write_random_model

IDS = np.random.default_rng(3).integers(10, 1270, 9000).tolist()
ENDLESS = {"max_tokens": None, "ignore_eos": True}

pytestmark = pytest.mark.usefixtures("long_quanta")  # what runs goes on, also where others need room


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tmp_path_factory.mktemp("models") / "llama.gguf", "llama")


@pytest.fixture(scope="module")
def cold(path: Path) -> Iterator[ColdStart]:
    with LLM(path) as llm:
        cold = ColdStart(llm, n_ctx=4096)
        yield cold
        cold.close()


@pytest.fixture
def new_llm(path: Path) -> Iterator[Callable[..., LLM]]:
    """Load the random model; afterwards it is closed, and what is recorded of its sequences is compared once more."""
    loaded: list[LLM] = []

    def load(**options: Any) -> LLM:
        loaded.append(LLM(path, **EXACT, **options))
        return loaded[-1]

    yield load
    for llm in loaded:
        settled(llm)
        llm._runtime.running_engine().check_integrity()
        llm.close()


def check_all(requests: list[Request], cold: ColdStart) -> None:
    for request in requests:
        assert request.error is None
        cold.check(request, NEARLY_TIED_EXACTLY)


# -------------------- how large


def test_callers_with_a_limit_of_their_own_share_a_context_of_that_size_while_they_need_no_more(
    new_llm: Callable[..., LLM],
):
    llm = new_llm(n_parallel=16, n_ctx=8192)
    calls = [lambda i=i: llm(IDS[i : i + 50], max_tokens=50) for i in range(16)]
    together(llm, 16, lambda: in_threads(calls))
    assert (llm.stats.n_ctx, llm.stats.contexts_created) == (8192, 1)


def test_a_limit_is_exact_for_each_caller_however_large_the_context_has_become(new_llm: Callable[..., LLM]):
    llm = new_llm(n_parallel=4, n_ctx=700)
    calls = [lambda i=i: llm(IDS[i : i + 50], **ENDLESS) for i in range(4)]
    answers = together(llm, 4, lambda: in_threads(calls))
    assert [answer.usage.total_tokens for answer in answers] == [700] * 4
    assert 700 < llm.stats.n_ctx <= 4 * 700
    with pytest.raises(ContextSizeError, match="701 tokens but n_ctx is 700"):
        llm(IDS[:701])


def test_sizes_between_the_least_and_a_roomy_one_are_tried():
    assert sizes_between(1000, 1000) == [1000]
    assert sizes_between(1000, 500) == [1000]
    assert sizes_between(1000, 1100) == [1000]
    assert sizes_between(1000, 3000) == [3000, 2000, 1500, 1250, 1000]


# -------------------- without the memory for it


def test_a_state_that_there_is_no_memory_to_move_is_evaluated_again(
    new_llm: Callable[..., LLM], cold: ColdStart, requests: list[Request], monkeypatch: pytest.MonkeyPatch
):
    llm = new_llm()
    idle = llm.session()
    idle(IDS[:100], max_tokens=2)
    with llm(IDS[200:300], stream=True, max_tokens=100, ignore_eos=True) as stream:
        next(stream)
        copies: list[int] = []

        def fail(self: LlamaContext, seq_id: int, flags: int = 0) -> Any:
            copies.append(seq_id)
            raise MemoryError("no memory for a copy")

        monkeypatch.setattr(LlamaContext, "state_seq_copy", fail)
        llm(IDS[1000:2000], max_tokens=5)
        monkeypatch.undo()
        assert copies
        assert stream.read().usage.completion_tokens == 100
    idle(IDS[300:310], max_tokens=2)
    check_all(requests, cold)


class Memory:
    """Memory for contexts of at most some size.

    Attributes:
        most: Tokens of the largest context that there is memory for.
        refused: How often there was none.
    """

    def __init__(self) -> None:
        self.most = 2**30
        self.refused = 0

    def create(self, model: Any, params: Any, way_out: str) -> LlamaContext:
        if params.n_ctx > self.most:
            self.refused += 1
            raise ContextMemoryError("no memory for a context")
        return create_context(model, params, way_out)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr("cyllama.engine.context.create_context", memory.create)
    return memory


def test_a_context_that_cannot_become_as_large_as_wanted_becomes_as_large_as_possible(
    new_llm: Callable[..., LLM], memory: Memory, cold: ColdStart, requests: list[Request]
):
    llm = new_llm()
    memory.most = 900
    answer = llm(IDS[:50], stream=True, **ENDLESS).read()
    assert answer.finish_reason == "length"
    assert 700 < answer.usage.total_tokens <= 901, "from 768 tokens on, twice as many were wanted"
    assert memory.refused > 0
    requests[0].tokens[200:] = []
    check_all(requests, cold)


def test_a_growth_that_failed_is_tried_again_while_others_run(
    new_llm: Callable[..., LLM],
    memory: Memory,
    cold: ColdStart,
    lockstep: threading.Event,
    steps: list[Step],
    requests: list[Request],
):
    llm = new_llm(n_parallel=2)
    with llm(IDS[:50], stream=True, max_tokens=1500, ignore_eos=True) as stream:
        next(stream)
        n_ctx = memory.most = llm.stats.n_ctx
        large = llm(IDS[: n_ctx + 100], stream=True, max_tokens=5, ignore_eos=True)
        while memory.refused == 0:
            next(stream)
        memory.most = 2**30
        lockstep.set()
        assert large.read().usage.completion_tokens == 5
    assert any(step.requests == set(requests) for step in steps), "both ran"
    assert llm.stats.n_ctx > n_ctx
    del requests[0].tokens[200:]
    check_all(requests, cold)


def test_where_not_even_the_old_context_can_be_had_again_what_ran_in_it_waits_and_goes_on(
    new_llm: Callable[..., LLM], memory: Memory, cold: ColdStart, requests: list[Request]
):
    llm = new_llm(n_parallel=3)
    with held(llm):
        streams = [llm(IDS[i : i + 100], stream=True, max_tokens=60, ignore_eos=True) for i in (0, 500)]
    for stream in streams:
        next(stream)
    n_ctx = llm.stats.n_ctx
    memory.most = n_ctx - 256
    with pytest.raises(ContextMemoryError):
        llm(IDS[: 2 * n_ctx], max_tokens=5)
    for stream in streams:
        assert stream.read().usage.completion_tokens == 60
    assert llm.stats.n_ctx <= memory.most
    check_all([request for request in requests if request.tokens], cold)


def test_a_request_is_not_refused_for_memory_that_paused_ones_give_back(
    new_llm: Callable[..., LLM], cold: ColdStart, requests: list[Request], monkeypatch: pytest.MonkeyPatch
):
    for name in ("QUANTUM", "FIRST_QUANTUM"):  # here, what runs gives its place to others
        monkeypatch.setattr(f"cyllama.engine.waiting.{name}", getattr(tuning, name))
    llm = new_llm(n_parallel=1)
    refused: list[bool] = []

    def available() -> int:
        """Return nothing while both of the first two have begun, and one has not ended."""
        first = requests[:2]
        refused.append(all(each.tokens for each in first) and any(each.finish_reason is None for each in first))
        return 0 if refused[-1] else 2**30

    monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", available)
    with held(llm):
        sizes = ((50, 60), (60, 60), (3000, 5), (70, 5))
        streams = [llm(IDS[n:][:n], stream=True, max_tokens=most, ignore_eos=True) for n, most in sizes]
    assert [stream.read().usage.completion_tokens for stream in streams] == [most for _, most in sizes]
    assert any(refused)
    check_all(requests, cold)


def test_growing_takes_the_memory_of_what_moves_into_account(path: Path, monkeypatch: pytest.MonkeyPatch):
    with LLM(path) as llm:
        model, config = llm.model, ModelConfig()
        n_bytes = [kv_cache_bytes(model, config, n) or 0 for n in (1024, 2048)]
        monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", lambda: n_bytes[1] - n_bytes[0] + 100)
        check_kv_memory(model, config, 2048, held=1024, moved=100)
        with pytest.raises(ContextMemoryError, match="n_ctx=2048"):
            check_kv_memory(model, config, 2048, held=1024, moved=101)


def test_idle_conversations_that_there_is_no_memory_to_move_are_evaluated_again(
    new_llm: Callable[..., LLM], cold: ColdStart, requests: list[Request], monkeypatch: pytest.MonkeyPatch
):
    llm = new_llm()
    idle = llm.session()
    idle(IDS[:300], max_tokens=2, ignore_eos=True)
    config = ModelConfig(type_k="f32", type_v="f32")
    most = kv_cache_bytes(llm.model, config, 4096) or 0

    def available() -> int:
        return most - (kv_cache_bytes(llm.model, config, llm.stats.kv_cells) or 0) - llm.stats.host_bytes

    monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", available)
    llm(IDS[1000:3000], max_tokens=2, n_ctx=4096)
    monkeypatch.undo()
    assert llm.stats.dropped == 1
    assert idle(IDS[300:310], max_tokens=2).usage.cached_tokens == 0
    check_all(requests, cold)


# -------------------- as many cells as there are


def test_forks_that_share_cells_with_one_another_run_together(
    new_llm: Callable[..., LLM], cold: ColdStart, requests: list[Request], steps: list[Step]
):
    llm = new_llm(n_parallel=8, kv_cells=1024)
    origin = llm.session()
    origin(IDS[:600], max_tokens=2, ignore_eos=True)
    forks = [origin.fork() for _ in range(8)]
    calls = [
        lambda f=fork, i=i: f(IDS[700 + 10 * i :][:8], max_tokens=20, ignore_eos=True) for i, fork in enumerate(forks)
    ]
    together(llm, 8, lambda: in_threads(calls))
    assert max(len(step.generated) for step in steps) == 8
    check_all(requests, cold)
