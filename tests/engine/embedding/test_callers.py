"""Many callers: threads and tasks share passes, and calls end with the context."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from cyllama import (
    LLM,
    DecodeError,
    EmbeddingCancelledError,
    ForkedError,
)
from cyllama.engine.embedding import Embedder

from ...support.embedding import SAME, cosines, some_texts
from ...support.harness import in_threads


def submitted(llm: LLM, texts: str | list[str]) -> Future[list[list[float]]]:
    """Begin to compute embeddings."""
    return llm._submit_texts(texts, normalize=True, truncate=False, n_ctx=None)


def held_pass(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let passes say that they begin, and wait there until they may."""
    begun, go_on = threading.Event(), threading.Event()
    compute = Embedder._compute

    def held(self: Embedder, *args: Any) -> None:
        if self._model is llm.model:
            begun.set()
            assert go_on.wait(60)
        compute(self, *args)

    monkeypatch.setattr(Embedder, "_compute", held)
    return begun, go_on


def test_threads_use_one_context(bert: LLM):
    texts = some_texts(16)
    vectors = in_threads([lambda text=text: bert.embed(text) for text in texts])
    assert cosines(vectors, bert.embed(texts)).min() > SAME
    assert bert.stats.embedding_contexts_created == 1
    assert bert.stats.embedding_context_reuses == 16


def test_calls_share_passes(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)
    first = submitted(bert, "hello")
    assert begun.wait(60)
    others = [submitted(bert, text) for text in some_texts(16, most_words=4)]
    go_on.set()
    vectors = [future.result()[0] for future in (first, *others)]
    assert bert.stats.embedding_passes == 2
    assert cosines(vectors, bert.embed(["hello", *some_texts(16, most_words=4)])).min() > SAME


def test_a_short_call_does_not_wait_for_the_end_of_a_long_one(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)
    ended: list[int] = []
    futures = []
    for n in (40, 1):
        futures.append(submitted(bert, ["fox " * 100] * n))
        futures[-1].add_done_callback(lambda future: ended.append(len(future.result())))
        assert begun.wait(60)
    go_on.set()
    assert [len(future.result()) for future in futures] == [40, 1]
    assert ended == [1, 40]


def test_tasks_embed_without_blocking_the_loop(bert: LLM):
    texts = some_texts(20)

    async def main() -> tuple[list[list[float]], list[float], int]:
        vectors = await asyncio.gather(*(bert.aembed(text) for text in texts))
        n_threads = threading.active_count()
        [last] = await bert.aembed(texts[-1:], normalize=True, truncate=True)
        return vectors, last, n_threads

    n_threads = threading.active_count()
    vectors, last, n_threads_meanwhile = asyncio.run(main())
    assert cosines(vectors, bert.embed(texts)).min() > SAME
    assert cosines([last], vectors[-1:])[0] > SAME
    assert n_threads_meanwhile <= n_threads + 1


def test_a_cancelled_task_frees_its_place(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    begun, go_on = held_pass(bert, monkeypatch)

    async def main() -> None:
        task = asyncio.create_task(bert.aembed(["fox " * 100] * 100))
        while not begun.is_set():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()

    asyncio.run(main())
    assert len(bert.embed("hello")) == 64
    assert bert.stats.texts_embedded <= 2


@pytest.mark.parametrize("end", ["close", "reset_context"])
def test_calls_in_flight_end_with_an_error_when_the_context_is_closed(
    end: str, bert: LLM, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = held_pass(bert, monkeypatch)
    futures = [submitted(bert, ["fox " * 100] * 20) for _ in range(3)]
    assert begun.wait(60)
    join = Embedder.join

    def release_and_join(self: Embedder) -> None:
        go_on.set()
        join(self)

    monkeypatch.setattr(Embedder, "join", release_and_join)
    getattr(bert, end)()
    for future in futures:
        with pytest.raises(EmbeddingCancelledError, match="after 0 of 20 texts"):
            future.result()
    assert bert.stats.embedding_n_ctx == 0
    assert len(bert.embed("hello")) == 64


def test_a_pass_that_fails_is_an_error_and_the_next_call_works(bert: LLM, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:

        def fail(self: Embedder, *args: Any) -> None:
            raise RuntimeError("out of luck")

        patch.setattr(Embedder, "_compute", fail)
        with pytest.raises(DecodeError, match="out of luck"):
            bert.embed(["hello", "world"])
    assert len(bert.embed("hello")) == 64
    assert bert.stats.embedding_contexts_created == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused(bert: LLM):
    bert.embed("hello")
    pid = os.fork()
    if pid == 0:
        try:
            bert.embed("hello")
        except ForkedError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(bert.embed("hello")) == 64
