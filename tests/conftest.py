"""What all tests share: the embedded model, loaded once."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cyllama import LLM
from cyllama.engine import Engine, Request
from cyllama.engine.batch import Row
from cyllama.models import TINY_CHAT

from .support.harness import Step, n_unread
from .support.processors import computes

# How long examples take depends on what else the machine does. Every run has the same examples, so that what passed
# for one change passes for the next; `--hypothesis-profile=explore` looks for others.
UNCHECKED = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("explore", deadline=None, suppress_health_check=UNCHECKED)
settings.register_profile("cyllama", settings.get_profile("explore"), derandomize=True)
settings.load_profile("cyllama")


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "run only the tests that depend on how a processor rounds"
    parser.addoption("--computing", action="store_true", help=help)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("computing") and not computes(collection_path) else None


def pytest_configure() -> None:
    """Forget what a machine says of colors, widths, locales and proxies: tests set what they need."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "LC_ALL"):
        os.environ.pop(name, None)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"


def pytest_collection_finish() -> None:
    """Leave all that was imported and collected out of garbage collections, of which tests ask for hundreds."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let Python free all of that at its end."""
    gc.unfreeze()


@pytest.fixture
def tiny_chat() -> Path:
    return TINY_CHAT


@pytest.fixture(scope="session")
def _loaded() -> Iterator[LLM]:
    with LLM(temperature=0, n_threads=1) as llm:  # a second thread would only wait for a busy machine's other work
        yield llm


@pytest.fixture
def llm(_loaded: LLM) -> LLM:
    """The embedded model at temperature 0, without a context and without sessions."""
    _loaded.reset_context()
    return _loaded


@pytest.fixture(autouse=True)
def integrity(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compare what the engine has recorded with llama.cpp's state after every step."""
    wrong: list[AssertionError] = []
    step = Engine._step

    def checked_step(self: Engine) -> None:
        step(self)
        try:
            self._check_integrity()
        except AssertionError as error:  # the engine takes it for a failed step: remember it beyond that
            wrong.append(error)
            raise

    monkeypatch.setattr(Engine, "_step", checked_step)
    yield
    assert wrong == []


@pytest.fixture
def long_quanta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause no running request for those that wait, in models that are loaded in this test."""
    for name in ("QUANTUM", "FIRST_QUANTUM"):
        monkeypatch.setattr(f"cyllama.engine.waiting.{name}", 10**6)


@pytest.fixture
def lockstep(integrity: None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Generate the next token only after the last one was read, or when something is asked of the engine.

    So what a test does after some tokens comes before the end of the answer, however slow the test's thread is. A test
    that reads several streams in turn gives, as a parameter, how many chunks of each may be unread.

    Returns:
        An event that ends this, when it is set.
    """
    step, most, ended = Engine._step, getattr(request, "param", 0), threading.Event()

    def step_after_reading(self: Engine) -> None:
        deadline = time.monotonic() + 120
        while self._inbox.empty() and any(n_unread(each.answer.outlet) > most for each in self._scheduler.running):
            assert time.monotonic() < deadline, "a stream is not read"
            if ended.wait(0.0005):
                break
        step(self)

    monkeypatch.setattr(Engine, "_step", step_after_reading)
    return ended


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that an engine is given, in order."""
    seen: list[Request] = []
    submit = Engine.submit

    def recorded_submit(self: Engine, *requests: Request) -> None:
        seen.extend(requests)
        submit(self, *requests)

    monkeypatch.setattr(Engine, "submit", recorded_submit)
    return seen


@pytest.fixture
def steps(integrity: None, monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """What every batch holds."""
    seen: list[Step] = []
    next_batch, step = Engine._next_batch, Engine._step

    def recorded_next_batch(self: Engine, n_batch: int) -> list[Row]:
        chunk_size = self._scheduler.chunk
        rows = next_batch(self, n_batch)
        prompts = {row.request: len(row.tokens) for row in rows if not row.request.tokens}
        generated = [row.request for row in rows if row.request.tokens]
        seen.append(Step(prompts, generated, 0, chunk_size))
        return rows

    def recorded_step(self: Engine) -> None:
        n = len(seen)
        step(self)
        if len(seen) > n:
            seen[-1] = seen[-1]._replace(cells=self._kv_cache.used_cells)

    monkeypatch.setattr(Engine, "_next_batch", recorded_next_batch)
    monkeypatch.setattr(Engine, "_step", recorded_step)
    return seen
