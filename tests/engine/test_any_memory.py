"""Conversations on every kind of memory, driven at random: whatever happened before, answers are those of a cold start.

Everything that callers do is done in any order: sessions begin, go on, go back, are forked and forgotten, prompts have
several answers, streams run side by side and are cancelled, models are closed. What is recorded is compared with
llama.cpp's memory after every step, and every answer with that of a context that has seen nothing else.
``CYLLAMA_SEED`` repeats what a failure reports.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, Session, Stream
from cyllama.engine import Request

from ..support.cold_start import EXACT, ColdStart
from ..support.harness import Step, held, settled, together
from ..support.random_models import HYBRID, REAL_SLIDING_WINDOW, RECURRENT, SLIDING_WINDOW, write_random_model

KINDS = {
    **{kind: {} for kind in ("llama", "gemma3", *RECURRENT, *HYBRID)},
    "gemma3 with a real window": {"sliding_window": REAL_SLIDING_WINDOW},
    "lfm2 with a window": {"sliding_window": SLIDING_WINDOW},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cells as needed": {"n_parallel": 4},
    "few cells": {"n_parallel": 4, "kv_cells": 1024, "host_cache_mb": 1},
    "few cells, drafted tokens": {"n_parallel": 4, "kv_cells": 1024, "host_cache_mb": 1, "speculation": "lookup"},
    "few cells, no host memory": {"n_parallel": 3, "kv_cells": 1024, "host_cache_mb": 0},
    "many cells, small passes": {"n_parallel": 2, "kv_cells": 4096, "n_ubatch": 64, "host_cache_mb": 2},
}
IDS = np.random.default_rng(11).integers(10, 1270, 4000).tolist()
NEARLY_TIED = 0.05
LONGEST = 900


def tokens_of(session: Session) -> list[int]:
    conversation = session.llm._runtime.conversations.find(session.name)
    return [] if conversation is None else list(conversation.tokens)


class Driver:
    """Callers of one model, who do anything."""

    def __init__(self, llm: LLM, seed: int, *, grows: bool) -> None:
        self.llm = llm
        self.grows = grows
        self.rng = random.Random(seed)
        self.sessions: list[Session] = []
        self.streams: list[Stream] = []
        self.actions: dict[Callable[[], object], int] = {
            self.begin: 6,
            self.go_on: 8,
            self.go_back: 3,
            self.fork: 3,
            self.forget: 2,
            self.read: 12,
            self.finish: 4,
            self.cancel: 2,
            self.call: 3,
            self.call_several: 3,
            self.call_again: 4,
            self.begin_together: 2,
            self.close: 1,
        }

    def run(self, n: int) -> None:
        """Do ``n`` things, and wait for what was begun."""
        for _ in range(n):
            (action,) = self.rng.choices(list(self.actions), list(self.actions.values()))
            action()
            if len(self.streams) > 6:
                self.finish()
        for stream in self.streams:
            stream.read()
        for session in self.sessions:
            session.close()
        settled(self.llm)

    def text(self, longest: int) -> list[int]:
        """Return the beginning of one of three texts, or a part of another one."""
        n = int(longest ** self.rng.uniform(0.2, 1))
        start = self.rng.choice((0, 1000, 2000, self.rng.randint(0, 3000)))
        return IDS[start : start + n]

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"max_tokens": self.rng.choice((1, 3, 10, 30)), "ignore_eos": True}
        if self.grows and self.rng.random() < 0.1:
            options["n_ctx"] = 1024
        return options

    def some_session(self) -> Session | None:
        return self.rng.choice(self.sessions) if self.sessions else None

    def start(self, session: Session | None, tokens: list[int], **options: Any) -> None:
        where = {} if session is None else {"session": session.name}
        self.streams.append(self.llm(tokens, stream=True, **where, **self.options(), **options))

    def begin(self) -> None:
        session = self.llm.session()
        self.sessions.append(session)
        tokens = self.text(LONGEST - 200)
        if (other := self.some_session()) is not None and self.rng.random() < 0.5:
            tokens = [*tokens_of(other)[: self.rng.randint(1, 500)], *self.text(50)]
        self.start(session, tokens)

    def begin_together(self) -> None:
        with held(self.llm):
            system = self.text(300)
            for _ in range(3):
                session = self.llm.session()
                self.sessions.append(session)
                self.start(session, [*system, *self.text(40)])

    def go_on(self) -> None:
        if (session := self.some_session()) is not None and session.tokens < LONGEST - 150:
            self.streams.append(session(self.text(60), stream=True, **self.options()))

    def go_back(self) -> None:
        if (session := self.some_session()) is not None and session.tokens:
            known = tokens_of(session)
            self.start(session, [*known[: self.rng.randint(0, len(known))], *self.text(20)])

    def fork(self) -> None:
        if (session := self.some_session()) is not None:
            self.sessions.append(session.fork())

    def forget(self) -> None:
        if len(self.sessions) > 3:
            self.sessions.pop(self.rng.randrange(len(self.sessions))).close()

    def read(self) -> None:
        if self.streams:
            stream = self.rng.choice(self.streams)
            for _ in range(self.rng.randint(1, 10)):
                next(stream, None)

    def finish(self) -> None:
        if self.streams:
            self.streams.pop(self.rng.randrange(len(self.streams))).read()

    def cancel(self) -> None:
        if self.streams:
            stream = self.streams.pop(self.rng.randrange(len(self.streams)))
            stream.cancel()
            stream.read()

    def call(self) -> None:
        self.llm(self.text(LONGEST), max_tokens=3, ignore_eos=True)

    def call_several(self) -> None:
        n = self.rng.choice((2, 4, 7))
        together(self.llm, n, lambda: self.llm(self.text(400), n=n, max_tokens=5, ignore_eos=True))

    def call_again(self) -> None:
        """Begin as calls before did, or as a session does."""
        key, tokens = self.rng.choice((True, "a", "b")), [*self.text(500), *self.text(50)]
        if self.rng.random() < 0.5:
            self.start(None, tokens, prefix_cache=key)
        else:
            self.llm(tokens, n=self.rng.choice((1, 3)), max_tokens=3, ignore_eos=True, prefix_cache=key)

    def close(self) -> None:
        self.llm.close()


@pytest.fixture(scope="module", params=KINDS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = request.param.split()[0]
    return write_random_model(tmp_path_factory.mktemp("models") / "model.gguf", kind, **KINDS[request.param])


@pytest.fixture(scope="module")
def cold(path: Path) -> Iterator[ColdStart]:
    with LLM(path, n_threads=1) as llm:
        cold = ColdStart(llm)
        yield cold
        cold.close()


def drive(path: Path, options: dict[str, Any], seed: int, n: int) -> None:
    with LLM(path, **EXACT, **options) as llm:
        Driver(llm, seed, grows="kv_cells" not in options).run(n)
        stats = llm.stats
        assert stats.host_bytes == 0 or stats.resident + stats.swapped + stats.kept_prefixes > 0
        llm._runtime.running_engine().check_integrity()


def check_all(requests: list[Request], cold: ColdStart, hint: str) -> None:
    for request in requests:
        assert request.error is None, f"{hint}: {request.error!r}"
        if request.tokens:
            cold.check(request, NEARLY_TIED)


SEED = int(os.environ.get("CYLLAMA_SEED", "0"))


@pytest.mark.filterwarnings("ignore:speculation='lookup' has no effect")
@pytest.mark.parametrize("options", OPTIONS)
def test_answers_are_those_of_a_cold_start_whatever_happened_before(
    path: Path, options: str, cold: ColdStart, requests: list[Request]
):
    drive(path, OPTIONS[options], SEED, 40)
    check_all(requests, cold, f"CYLLAMA_SEED={SEED}")


def test_batches_of_a_model_with_windows_are_computed_in_one_pass(
    path: Path, cold: ColdStart, requests: list[Request], steps: list[Step]
):
    """A batch of several passes may lose a part of a window. A pass has sequences of one length if there is a state."""
    with LLM(path, **EXACT, n_parallel=3, n_ubatch=64) as llm:
        with held(llm):
            streams = [llm(IDS[i : i + n], stream=True, max_tokens=40) for i, n in ((0, 20), (500, 200), (900, 300))]
        for stream in streams:
            stream.read()
        has_windows, has_state = llm.model.n_swa > 0, llm.model.is_hybrid
    lengths = [[*step.prompts.values(), *(1 for _ in step.generated)] for step in steps]
    assert (max(map(sum, lengths)) <= 64) == has_windows
    assert all(len(set(each)) == 1 for each in lengths) or not (has_windows and has_state)
    check_all(requests, cold, "several prompts")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:speculation='lookup' has no effect")
@pytest.mark.parametrize("options", OPTIONS)
def test_answers_are_those_of_a_cold_start_whatever_happened_for_long(
    path: Path, options: str, cold: ColdStart, requests: list[Request]
):
    for seed in range(SEED + 1, SEED + 11):
        requests.clear()
        drive(path, OPTIONS[options], seed, 150)
        check_all(requests, cold, f"CYLLAMA_SEED={seed}")
