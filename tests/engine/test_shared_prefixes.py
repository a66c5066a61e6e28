"""Requests with the same beginning, on every kind of memory: it is evaluated once, and no request waits in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama import LLM
from cyllama.engine import Request
from cyllama.llama.llama_cpp import LlamaContext

from ..support.cold_start import EXACT, ColdStart
from ..support.harness import Step, held, in_threads, together
from ..support.random_models import HYBRID, REAL_SLIDING_WINDOW, RECURRENT, SLIDING_WINDOW, write_random_model

IDS = np.random.default_rng(5).integers(10, 1270, 4000).tolist()
SYSTEM = IDS[:300]
KINDS = {
    **{kind: {} for kind in ("llama", "gemma3", *RECURRENT, *HYBRID)},
    "gemma3 with a real window": {"sliding_window": REAL_SLIDING_WINDOW},
    "lfm2 with a window": {"sliding_window": SLIDING_WINDOW},
}
NEARLY_TIED = 0.05
OPTIONS: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = request.param.split()[0]
    return write_random_model(tmp_path_factory.mktemp("models") / f"{kind}.gguf", kind, **KINDS[request.param])


@pytest.fixture(scope="module")
def cold(path: Path) -> Iterator[ColdStart]:
    with LLM(path, n_threads=1) as llm:
        cold = ColdStart(llm)
        yield cold
        cold.close()


@pytest.fixture
def check(cold: ColdStart, requests: list[Request]) -> Callable[[], None]:
    """Compare all answers with those of a cold start."""

    def check() -> None:
        assert requests
        for request in requests:
            assert request.error is None
            cold.check(request, NEARLY_TIED)

    return check


def question(i: int, n: int = 20) -> list[int]:
    return [20 + i, *IDS[1000 + 100 * i : 1000 + 100 * i + n]]


def known(requests: list[Request]) -> list[int]:
    return [request.n_reused or 0 for request in requests]


def test_conversations_that_come_together_evaluate_what_they_share_once(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=4) as llm:
        calls = [lambda i=i: llm.session()([*SYSTEM, *question(i)], **OPTIONS) for i in range(4)]
        together(llm, 4, lambda: in_threads(calls))
    assert sorted(known(requests)) == [0, 300, 300, 300]
    check()


def test_a_third_conversation_finds_what_the_second_one_shared_with_the_first(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT) as llm:
        for i in range(4):
            llm.session()([*SYSTEM, *question(i, n=60)], **OPTIONS)
        goes_back = not (llm.model.is_recurrent or llm.model.is_hybrid)
    assert known(requests) == [0, 300 if goes_back else 0, 300, 300]
    check()


def test_calls_that_keep_their_prefix_evaluate_it_once_or_twice(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    """Where a state cannot go back, the second one leaves a checkpoint where it differs from the first."""
    with LLM(path, **EXACT, prefix_cache=True) as llm:
        for i in range(5):
            llm([*SYSTEM, *question(i, n=60)], **OPTIONS)
        goes_back = not (llm.model.is_recurrent or llm.model.is_hybrid)
    assert known(requests) == [0, 300 if goes_back else 0, 300, 300, 300]
    check()


def test_calls_that_keep_their_prefix_and_come_together_evaluate_it_once(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=4, prefix_cache="documents") as llm:
        together(llm, 4, lambda: in_threads([lambda i=i: llm([*SYSTEM, *question(i)], **OPTIONS) for i in range(4)]))
    assert sorted(known(requests)) == [0, 300, 300, 300]
    check()


def test_the_same_prompt_in_two_conversations_is_evaluated_once(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=2) as llm:
        together(llm, 2, lambda: in_threads([lambda: llm.session()(SYSTEM, **OPTIONS)] * 2))
    assert sorted(known(requests)) == [0, 299]
    check()


def test_answers_that_are_asked_for_again_go_on_from_the_same_place(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT) as llm:
        ada = llm.session()
        ada([*SYSTEM, *question(0)], **OPTIONS)
        for i in range(1, 5):
            llm([*SYSTEM, *question(i)], session=ada.name, **OPTIONS)
    assert known(requests)[2:] == [300] * 3
    check()


def test_where_there_can_be_no_checkpoint_no_request_waits_for_one(
    path: Path, requests: list[Request], steps: list[Step], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=2, host_cache_mb=0) as llm:
        calls = [lambda i=i: llm.session()([*SYSTEM, *question(i)], **OPTIONS) for i in range(2)]
        together(llm, 2, lambda: in_threads(calls))
        drops_tails = llm._runtime.running_engine()._kv_cache.drops_tails
    first = {next(i for i, step in enumerate(steps) if request in step.requests): request for request in requests}
    if drops_tails:
        assert sum(bool(request.n_reused) for request in requests) == 1
    elif len(first) > 1:  # else both begin together
        earlier = first[min(first)]
        assert max(first) <= max(i for i, step in enumerate(steps) if earlier in step.prompts)
    check()


def test_those_that_wait_for_one_that_is_cancelled_evaluate_it_themselves(
    path: Path, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=4, n_batch=64) as llm:
        with held(llm):
            streams = [llm.session()([*SYSTEM, *question(i)], stream=True, **OPTIONS) for i in range(3)]
        streams[0].cancel()
        answers = in_threads([stream.read for stream in streams])
    assert [answer.usage.completion_tokens for answer in answers[1:]] == [5, 5]
    check()


def test_copies_that_fail_are_evaluated_and_disturb_no_other_request(
    path: Path, requests: list[Request], check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
):
    def fail(self: LlamaContext, *args: Any) -> Any:
        raise MemoryError("no memory for a copy")

    with LLM(path, **EXACT, n_parallel=4, kv_cells=4096, n_ubatch=64) as llm:
        origin = llm.session()
        origin(SYSTEM, **OPTIONS)
        with llm(question(9), stream=True, max_tokens=60, ignore_eos=True) as stream:
            next(stream)
            with monkeypatch.context() as patch:
                patch.setattr(LlamaContext, "state_seq_copy", fail)
                patch.setattr(LlamaContext, "state_seq_set_data", fail)
                assert len(llm(IDS[500:700], n=3, **OPTIONS)) == 3
                for i in range(2):
                    origin.fork()(question(i), **OPTIONS)
            origin(question(3), **OPTIONS)
            assert stream.read().usage.completion_tokens == 60
    check()


@pytest.mark.parametrize("host_cache_mb", [0, 64])
def test_several_answers_beside_streams_that_take_most_cells(
    path: Path, host_cache_mb: int, requests: list[Request], check: Callable[[], None]
):
    with LLM(path, **EXACT, n_parallel=4, kv_cells=1024, host_cache_mb=host_cache_mb) as llm:
        streams = [llm(IDS[i : i + 250], stream=True, max_tokens=30, ignore_eos=True) for i in (0, 500)]
        for stream in streams:
            next(stream)
        answers = llm(IDS[1000:1400], n=4, **OPTIONS)
        assert [answer.usage.completion_tokens for answer in answers] == [5] * 4
        assert [stream.read().usage.completion_tokens for stream in streams] == [30] * 2
    check()
