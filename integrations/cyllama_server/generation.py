"""From a request to the pieces of its answers: a model, a session for each answer, and the streams that generate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Generic, TypeVar

import anyio

from cyllama import (
    AsyncChatStream,
    AsyncStream,
    ChatDelta,
    ChatResponse,
    OutputError,
    Response,
    SessionLease,
    TextChunk,
    Timings,
    Usage,
)
from cyllama.stream import start_in_thread

from .errors import cancelled
from .metrics import Metrics
from .models import LoadedModel
from .sessions import Asked
from .tenants import Tenant

DeltaT = TypeVar("DeltaT", ChatDelta, TextChunk)
ResponseT = TypeVar("ResponseT", ChatResponse, Response)
Start = Callable[[Mapping[str, Any]], "AsyncChatStream | AsyncStream"]


class Answers(Generic[DeltaT, ResponseT]):
    """The answers of one request, while they are generated.

    Args:
        model: The model, in use until these are closed.
        stack: What is closed with these: the use of the model, among others.
        until_end: What is given back before the client sees the end, so that its next request finds it free: a place in
            the queue, and the sessions.
        metrics: What counts the answers.
        seconds: After which the answers end, with what there is of them.
    """

    def __init__(
        self,
        model: LoadedModel,
        stack: AsyncExitStack,
        until_end: AsyncExitStack,
        metrics: Metrics,
        seconds: float,
    ) -> None:
        self.model = model
        self._stack = stack
        self._until_end = until_end
        self._metrics = metrics
        self._tenant = Tenant("")
        self._streams: list[Any] = []
        self._n_pieces: list[int] = []
        self._items: asyncio.Queue[tuple[int, DeltaT | Exception] | None] = asyncio.Queue()  # None: the end of all
        self._readers: list[asyncio.Task[None]] = []
        self._first: list[tuple[int, DeltaT]] = []
        self._n_reading = 0
        self._is_read = False
        self._seconds = seconds
        self._late = False

    async def start(self, asked: Asked, starts: Sequence[Start]) -> None:
        """Begin to generate: each answer in a session of its own, which continues what is known of the history.

        Raises:
            CyllamaError: The request cannot be answered.
        """
        self._tenant = asked.tenant
        self._n_reading = len(starts)
        await self._stack.enter_async_context(self._until_end)
        for start in starts:
            lease = self.model.pool.lease(
                asked.history, asked.conversation, tenant=asked.tenant.id, options=asked.options
            )
            await self._begin(asked, lease, start)
        timer = asyncio.get_running_loop().call_later(self._seconds, self._end_late)
        self._stack.callback(timer.cancel)

    async def _begin(self, asked: Asked, lease: SessionLease, start: Start) -> None:
        await self._until_end.enter_async_context(lease)
        stream = await start_in_thread(lambda: lease.hand_over(lambda session: start(self._cached_in(session))))
        self._until_end.push_async_callback(stream.aclose)
        if lease.name is not None:
            self.model.sessions.note(lease.name, asked)  # now that the model knows it
        index = len(self._streams)
        self._streams.append(stream)
        self._n_pieces.append(0)
        reader = asyncio.ensure_future(self._read(index, stream))
        self._stack.callback(reader.cancel)
        self._readers.append(reader)

    def _cached_in(self, session: str | None) -> dict[str, Any]:
        """Return the option that says what an answer shares: its session, or what is kept of its tenant's prefixes.

        An answer has no session where all are in use.
        """
        if session is None and self.model.llm.config.prefix_cache:
            return {"prefix_cache": self._tenant.id or True}
        return {"session": session}

    async def _read(self, index: int, stream: Any) -> None:
        try:
            async for delta in stream:
                self._n_pieces[index] += 1
                self.model.activity.count_piece(self._tenant)
                self._items.put_nowait((index, delta))
        except OutputError:  # a call breaks a rule of its schema that no grammar says: the client sees what it is
            pass
        except Exception as error:
            self._items.put_nowait((index, error))
        self._n_reading -= 1
        if not self._n_reading:
            try:
                await self._until_end.aclose()  # first: the next turn may come as soon as the end is seen
                self._count()
            finally:
                self._items.put_nowait(None)

    def _end_late(self) -> None:
        self._late = True
        for stream in self._streams:
            stream.cancel()

    async def wait_for_first(self, seconds: float) -> None:
        """Wait for the first piece, at most for some seconds, so that an error is the response and no part of it.

        Raises:
            CyllamaError: The generation failed.
        """
        with anyio.move_on_after(seconds):  # before Python 3.12, asyncio.wait_for may lose that its task is cancelled
            if (item := await self._next()) is not None:
                self._first.append(item)

    async def __aiter__(self) -> AsyncIterator[tuple[int, DeltaT]]:
        """Yield the pieces of all answers, each with the index of its answer.

        Raises:
            CyllamaError: A generation failed.
        """
        while self._first:
            yield self._first.pop(0)
        while not self._is_read:
            if (item := await self._next()) is not None:
                yield item

    async def _next(self) -> tuple[int, DeltaT] | None:
        """Return the next piece, or `None` after the last one."""
        item = await self._items.get()
        if item is None:
            self._is_read = True
            return None
        index, delta = item
        if isinstance(delta, Exception):
            raise delta
        return index, delta

    def goes_on(self) -> bool:
        """Whether the next piece, or the end, is there already, so that no time passes before it is read."""
        return bool(self._first) or not self._items.empty()

    async def read(self) -> list[ResponseT]:
        """Return all answers, after their end.

        Raises:
            CyllamaError: A generation failed.
        """
        async for _ in self:
            pass
        return self.responses

    @property
    def responses(self) -> list[ResponseT]:
        """The answers, after all pieces were read.

        Raises:
            ApiError: The server ended one.
        """
        found = [stream.response for stream in self._streams]
        if not self._late and any(response.finish_reason == "cancelled" for response in found):
            raise cancelled()
        return found

    @property
    def usage(self) -> Usage:
        """The tokens of all answers; the prompt, which is the same for all, counts once."""
        found = [response.usage for response in self.responses]
        completion = sum(usage.completion_tokens for usage in found)
        return Usage(found[0].prompt_tokens, completion, found[0].cached_tokens)

    @property
    def timings(self) -> Timings:
        """The times of the first answer."""
        return self.responses[0].timings

    async def aclose(self) -> None:
        """End what still runs, and give back the sessions and the model. Closing twice has no further effect."""
        for stream in self._streams:
            stream.cancel()
        await self._stack.aclose()
        self._count()

    def _count(self) -> None:
        """Count what was generated, once."""
        for stream, n_pieces in zip(self._streams, self._n_pieces, strict=False):  # none is left the second time
            usage = stream.response.usage
            self._metrics.count_answer(self.model.name, usage, stream.response.timings)
            self.model.activity.count_answer(self._tenant, usage, n_pieces)
        self._n_pieces = []
