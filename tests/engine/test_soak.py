"""Everything at once for a long time: no call hangs, no error is unexpected, and nothing is left behind.

``CYLLAMA_SOAK_SECONDS`` says how long the slow one takes.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError, DecodeError, EmbeddingCancelledError, SessionError
from cyllama.errors import SessionFileError

from ..support.harness import ANIMALS, ENDLESS, engine_of, settled, story, turn

N_THREADS, N_TASKS = 32, 32
NAMES = ("ada", "bob", "eve", "kim", "leo", "mia")  # conversations that all threads and tasks use
MIB = 2**20
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class InterruptionError(Exception):
    """What callbacks raise."""


class Load:
    """What 32 threads and 32 tasks do until they are told to stop.

    Attributes:
        done: How often each kind of call has ended.
        errors: Errors that no user expected.
    """

    def __init__(self, llm: LLM, folder: Path, seed: int) -> None:
        self.llm = llm
        self.done: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._folder = folder
        self._seed = seed
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(N_THREADS)]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._run_loop())))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Tell all to stop, and wait until every call has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, i: int) -> None:
        rng = random.Random(f"{self._seed} {i}")
        calls = (
            *[self._plain] * 4,
            *[self._conversation] * 4,
            *[self._shared_conversation] * 3,
            *[self._stream] * 3,
            self._group,
            self._saved,
            self._refused,
            self._grown,
            self._dropped,
            self._constrained,
            self._tool_call,
            self._embedded,
        )
        while not self._stop.is_set() and not self.errors:
            call = rng.choice(calls) if rng.random() > 0.01 else self._disturbance
            try:
                call(rng)
            except BaseException as error:
                self.errors.append(error)
            self._note(call.__name__)

    async def _run_loop(self) -> None:
        await asyncio.gather(*(self._awork(i) for i in range(N_TASKS)))

    async def _awork(self, i: int) -> None:
        rng = random.Random(f"{self._seed} task {i}")
        calls = (self._aplain, self._astream, self._aconversation, self._agroup, self._timeout, self._cancelled_task)
        while not self._stop.is_set() and not self.errors:
            call = rng.choice(calls)
            try:
                await call(rng)
            except BaseException as error:
                self.errors.append(error)
            self._note(call.__name__)

    def _note(self, kind: str) -> None:
        with self._lock:
            self.done[kind.strip("_")] += 1

    # --- what threads do

    def _plain(self, rng: random.Random) -> None:
        response = self.llm(story(rng.choice(ANIMALS)), max_tokens=rng.randint(0, 30))
        assert response.finish_reason in {"length", "stop", "cancelled"}

    def _conversation(self, rng: random.Random) -> None:
        """One of its own, that may be branched and forgotten."""
        with self.llm.session(f"own {next(self._numbers)}") as session:
            session(turn(f"My lucky number is {rng.randint(1000, 9999)}."), max_tokens=16)
            if rng.random() < 0.5:
                with session.fork() as branch:
                    branch("\n" + story(rng.choice(ANIMALS)), max_tokens=8)
            for _ in range(rng.randint(1, 3)):
                session("\n" + turn("What is my lucky number?"), max_tokens=16)

    def _shared_conversation(self, rng: random.Random) -> None:
        """One that others use, and that is forgotten when it gets long."""
        session = self.llm.session(rng.choice(NAMES))
        if session.tokens > 600:
            self.llm.reset_context(session=session.name)
        if rng.random() < 0.2:
            with suppress(SessionError):  # there are very many already
                session.fork(f"fork {next(self._numbers)}")
        with session("\n" + story(rng.choice(ANIMALS)), stream=True, max_tokens=rng.randint(1, 20)) as stream:
            for _ in itertools.islice(stream, rng.randint(0, 25)):
                pass

    def _stream(self, rng: random.Random) -> None:
        """One that is closed, dropped, or interrupted by its callback."""

        def on_token(chunk: str) -> None:
            if rng.random() < 0.1:
                raise InterruptionError(chunk)

        with suppress(InterruptionError):
            stream = self.llm(story(rng.choice(ANIMALS)), stream=True, on_token=on_token, **ENDLESS)
            for _ in itertools.islice(stream, rng.randint(0, 20)):
                pass
            if rng.random() < 0.5:
                stream.close()

    def _dropped(self, rng: random.Random) -> None:
        for _ in range(rng.randint(1, 5)):
            self.llm(story(rng.choice(ANIMALS)), stream=True, **ENDLESS)

    def _group(self, rng: random.Random) -> None:
        n = rng.randint(1, 5)
        assert len(self.llm(turn("Tell me a joke."), n=n, max_tokens=12, temperature=1.0)) == n

    def _saved(self, rng: random.Random) -> None:
        session = self.llm.session(rng.choice(NAMES))
        path = self._folder / f"{next(self._numbers)}.session"
        session.save(path)
        with suppress(SessionFileError), self.llm.load_session(path, f"loaded {path.stem}") as loaded:
            loaded("\n" + turn("Hello!"), max_tokens=5)
        path.unlink()

    def _refused(self, rng: random.Random) -> None:
        prompt = [300] * 5000
        with suppress(ContextSizeError):
            self.llm(prompt)
            raise AssertionError("a prompt that is too long was taken")
        session = self.llm.session(rng.choice(NAMES))
        with suppress(ContextSizeError):
            assert session(prompt).finish_reason == "cancelled"
        with suppress(DecodeError):
            options: dict[str, Any] = {"logit_bias": {300: float("inf")}, "frequency_penalty": 3.4e38}
            assert self.llm(story(), max_tokens=20, **options).finish_reason == "cancelled"

    def _grown(self, rng: random.Random) -> None:
        n = rng.choice((100, 300, 800, 1500))
        self.llm([rng.randrange(300, 1200) for _ in range(n)], max_tokens=rng.randint(1, 30))

    def _constrained(self, rng: random.Random) -> None:
        options: dict[str, Any] = {"temperature": 1.5, "seed": rng.randrange(1000), "logprobs": rng.randint(0, 3)}
        response = self.llm(story(), grammar="root ::= [0-9]{6}", max_tokens=20, **options)
        assert response.finish_reason == "cancelled" or re.fullmatch("[0-9]{6}", response), response
        assert response.logprobs is not None
        assert len(response.logprobs) == response.usage.completion_tokens

    def _tool_call(self, rng: random.Random) -> None:
        messages = [{"role": "user", "content": f"What is the weather in {rng.choice(('Paris', 'Rome', 'Oslo'))}?"}]
        with self.llm.chat(messages, tools=[WEATHER], tool_choice="required", stream=True, max_tokens=60) as stream:
            for _ in stream:
                pass
        if stream.response.finish_reason == "tool_calls":
            [call] = stream.response.message.tool_calls
            assert json.loads(call.function.arguments).keys() == {"city"}

    def _embedded(self, rng: random.Random) -> None:
        texts = [story(animal) for animal in rng.sample(ANIMALS, rng.randint(1, 6))]
        with suppress(EmbeddingCancelledError):
            assert len(self.llm.embed(texts)) == len(texts)

    def _disturbance(self, rng: random.Random) -> None:
        rng.choice((self.llm.close, self.llm.reset_context))()

    # --- what tasks do

    async def _aplain(self, rng: random.Random) -> None:
        await self.llm.agenerate(story(rng.choice(ANIMALS)), max_tokens=rng.randint(0, 30))

    async def _astream(self, rng: random.Random) -> None:
        n = rng.randint(0, 20)
        async with self.llm.astream(story(rng.choice(ANIMALS)), **ENDLESS) as stream:
            async for _ in stream:
                n -= 1
                if n < 0:
                    break

    async def _aconversation(self, rng: random.Random) -> None:
        with self.llm.session(f"own {next(self._numbers)}") as session:
            await session.agenerate(turn(f"My name is {rng.choice(NAMES)}."), max_tokens=16)
            both = (session.agenerate("\n" + turn("What is my name?"), max_tokens=12) for _ in range(2))
            await asyncio.gather(*both)

    async def _agroup(self, rng: random.Random) -> None:
        await self.llm.agenerate(turn("Tell me a joke."), n=rng.randint(1, 5), max_tokens=12, temperature=1.0)

    async def _timeout(self, rng: random.Random) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.llm.agenerate(story(), **ENDLESS), rng.random() * 0.1)

    async def _cancelled_task(self, rng: random.Random) -> None:
        task = asyncio.ensure_future(self.llm.agenerate(story(), n=rng.randint(1, 4), **ENDLESS))
        await asyncio.sleep(rng.random() * 0.1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def resident_bytes() -> int:
    """Return the memory in use, without what the allocator keeps to give out again."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def use_one_arena() -> None:
    """Let all threads allocate from one place: many leave holes in many, which looks like a leak of 30 MiB and more."""
    if sys.platform == "linux":
        m_arena_max = -8
        ctypes.CDLL(None).mallopt(m_arena_max, 1)


def soak(folder: Path, seconds: float, measure: Callable[[LLM], None]) -> Counter[str]:
    """Load a model for some time, in two halves; measure after each, while no user calls the model.

    However slow the machine is, each half has 100 calls.
    """
    seed = int(os.environ.get("CYLLAMA_SEED", "1"))
    print(f"CYLLAMA_SEED={seed}")
    done: Counter[str] = Counter()
    before = set(threading.enumerate())
    with LLM(temperature=0, n_threads=1, n_parallel=8, host_cache_mb=16, max_sessions=400) as llm:
        for half in range(2):
            load = Load(llm, folder, seed + half)
            load.start()
            end = time.monotonic() + seconds / 2
            while (time.monotonic() < end or sum(load.done.values()) < 100) and not load.errors:
                time.sleep(0.05)
            load.stop()
            if load.errors:
                raise load.errors[0]
            done += load.done
            settled(llm)
            engine_of(llm).check_integrity()
            assert (llm.stats.running, llm.stats.waiting) == (0, 0)
            for name in llm.sessions:
                llm.reset_context(session=name)
            settled(llm)
            engine_of(llm).check_integrity()
            assert (llm.sessions, llm.stats.kv_cells_used, llm.stats.host_bytes) == ([], 0, 0)
            llm.close()
            measure(llm)
        assert llm(turn("What is the capital of France?")) == "The capital of France is Paris."
        print(llm.stats)
    print(dict(done))
    assert set(threading.enumerate()) <= before
    assert list(folder.iterdir()) == []
    return done


def test_ten_seconds_of_everything(integrity: None, tmp_path: Path):
    done = soak(tmp_path, 8, lambda _: None)
    assert sum(done.values()) > 100
    assert len(done) > 10, "there is some of everything"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_memory_is_as_it_was_after_a_long_time_of_everything(integrity: None, tmp_path: Path):
    use_one_arena()
    sizes: list[int] = []
    soak(tmp_path, float(os.environ.get("CYLLAMA_SOAK_SECONDS", "1200")), lambda _: sizes.append(resident_bytes()))
    print(f"{sizes[0] / MIB:.1f} MiB after one half, {sizes[1] / MIB:.1f} MiB after both")
    assert sizes[1] - sizes[0] < 30 * MIB
