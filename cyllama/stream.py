"""Text while it is generated."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar, copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from typing_extensions import Self

from .engine import Request
from .errors import ConfigTypeError, EventLoopError, StreamNotFinishedError
from .response import Response, TextChunk
from .runtime import Runtime

if TYPE_CHECKING:
    import asyncio

    from .grammar import ResponseFormat

T = TypeVar("T")

Chunks = SimpleQueue[TextChunk | None]
"""The queue that a :class:`Stream` takes its chunks from; ``None`` ends it."""

_loop_of_caller: ContextVar[asyncio.AbstractEventLoop] = ContextVar("_loop_of_caller")


def check_callable(name: str, value: object) -> None:
    """Raise :class:`ConfigTypeError` for what is given as a callback and cannot be called."""
    if value is not None and not callable(value):
        raise ConfigTypeError(f"{name} is a function, not {type(value).__name__}: {value!r:.80}")


def _check_synchronous(on_token: Callable[[str], object] | None) -> None:
    """Raise :class:`ConfigTypeError` for a callback that returns something to await: a thread cannot do that."""
    if on_token is not None and any(map(inspect.iscoroutinefunction, (on_token, type(on_token).__call__))):
        raise _asynchronous(on_token)


def _asynchronous(on_token: object) -> ConfigTypeError:
    return ConfigTypeError(
        f"on_token is an async function, which only agenerate() and astream() can wait for: {on_token!r:.80}"
    )


class _Generation:
    """The common part of :class:`Stream` and :class:`AsyncStream`: a request, and its response after the end."""

    def __init__(
        self,
        runtime: Runtime,
        request: Request,
        on_token: Callable[[str], object] | None = None,
        response_format: ResponseFormat | None = None,
    ) -> None:
        check_callable("on_token", on_token)
        self._on_token = on_token
        self._response_format = response_format
        self._response: Response | None = None
        self._runtime = runtime
        self._request = request

    @property
    def response(self) -> Response:
        """The whole response, once the stream is exhausted or closed.

        After an error it holds the text so far, and its finish reason is "cancelled".

        Raises:
            StreamNotFinishedError: The stream is neither exhausted nor closed.
        """
        if self._response is None:
            raise StreamNotFinishedError("the stream has no response yet: read it to its end, or close() it")
        return self._response

    def cancel(self) -> None:
        """End the generation within one step. Chunks that were generated before can still be read.

        >>> stream = llm("Once upon a time", stream=True)
        >>> stream.cancel()
        >>> stream.read().finish_reason
        'cancelled'
        """
        if self._response is None:
            self._runtime.cancel(self._request)

    def __del__(self) -> None:
        if hasattr(self, "_request"):  # missing if the constructor raised, or Ctrl-C interrupted it
            self.cancel()

    def _end(self, *, raise_error: bool = True) -> None:
        request = self._request
        request.answer.outlet.put(None)  # for another thread that reads this stream as well
        self._response = Response(
            request.answer.text,
            finish_reason=request.finish_reason or "cancelled",
            usage=request.usage,
            timings=request.answer.timings,
            model=self._runtime.name,
            logprobs=None if request.config.logprobs is None else tuple(request.answer.logprobs),
            response_format=self._response_format,
        )
        if raise_error and request.error is not None:
            raise request.error


class Stream(_Generation, Iterator[TextChunk]):
    """The chunks of a generation, as soon as their text is certain; together they are the response.

    It is an iterator and a context manager. Leaving the ``with`` block, or dropping the stream, ends the generation. A
    stream keeps its model loaded and its context alive. A chunk is a :class:`TextChunk`, a ``str`` that also has the
    ``logprobs`` asked for. Where they were, the last chunk may have no text: it has those of a stop string, and of a
    token without a text.

    Generation does not wait for its reader. Chunks that are not read yet are kept, at most one for each token of the
    context, of less than a kilobyte each without ``logprobs``. If you do not want the rest, cancel the stream.

    >>> text = ""
    >>> with llm("Once upon a time", max_tokens=16, stream=True) as stream:
    ...     for chunk in stream:
    ...         text += chunk
    >>> stream.response == text, stream.response.finish_reason
    (True, 'length')
    """

    def __init__(
        self,
        runtime: Runtime,
        request: Request,
        chunks: Chunks,
        on_token: Callable[[str], object] | None = None,
        response_format: ResponseFormat | None = None,
    ) -> None:
        _check_synchronous(on_token)
        super().__init__(runtime, request, on_token, response_format)
        self._chunks = chunks

    def __next__(self) -> TextChunk:
        if self._response is not None:
            raise StopIteration
        self._runtime.check_process()
        try:
            chunk = self._chunks.get()
            if chunk is not None and self._on_token is not None:
                outcome = self._on_token(chunk)
                if inspect.isawaitable(outcome):
                    if inspect.iscoroutine(outcome):
                        outcome.close()  # no warning that it was never awaited
                    raise _asynchronous(self._on_token)
        except BaseException:  # Ctrl-C while waiting, or an exception of the callback
            self.cancel()
            raise
        if chunk is None:
            self._end()
            raise StopIteration
        return chunk

    def read(self) -> Response:
        """Return the whole response, after the end of the generation.

        >>> llm("Once upon a time", max_tokens=16, stream=True).read().usage.completion_tokens
        16

        Raises:
            DecodeError: llama.cpp failed; :attr:`response` has the text so far.
            GrammarError: Following the grammar takes too much work; :attr:`response` has the text so far.
            CyllamaError: What :meth:`LLM.__call__` raises where the generation could not begin.
        """
        for _ in self:
            pass
        return self.response

    def close(self) -> None:
        """Cancel what is left of the generation and wait until it has ended; then :attr:`response` is complete.

        An error of the generation that iterating would raise is not raised here.

        >>> stream = llm("Once upon a time", stream=True)
        >>> stream.close()
        >>> stream.response.finish_reason
        'cancelled'
        """
        self.cancel()
        while self._response is None and self._runtime.in_own_process:
            if self._chunks.get() is None:
                self._end(raise_error=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


async def start_in_thread(start: Callable[[], T]) -> T:
    """Return what a function returns that begins a stream, and runs in a thread.

    Before a generation begins, its prompt is rendered and tokenized, and its schemas become grammars. That may take a
    second, in which an event loop that does it by itself does nothing else.

    >>> import asyncio
    >>> from cyllama import LLM
    >>> async def main() -> int:
    ...     with LLM(temperature=0) as llm:
    ...         stream = await start_in_thread(lambda: llm.astream("Once upon a time", max_tokens=8))
    ...         return (await stream.read()).usage.completion_tokens
    >>> asyncio.run(main())
    8

    Args:
        start: Calls a method such as :meth:`LLM.astream_chat`. The stream belongs to the event loop that awaits this.

    Returns:
        The result of ``start``. If the task is cancelled meanwhile, a stream is dropped, which ends its generation.
    """
    import asyncio

    context = copy_context()
    context.run(_loop_of_caller.set, asyncio.get_running_loop())
    return await asyncio.get_running_loop().run_in_executor(None, context.run, start)


class _Mailbox:
    """Takes the chunks of all streams of an event loop there, with one wake-up for all that arrive meanwhile.

    A wake-up takes a system call, at which the engine's thread gives up the interpreter's lock. So one for every chunk
    would let it wait for the loop as often as it has requests, between two steps.
    """

    def __init__(self) -> None:
        self._items: deque[tuple[asyncio.Queue[TextChunk | None], TextChunk | None]] = deque()
        self._is_woken = False

    def put(
        self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[TextChunk | None], item: TextChunk | None
    ) -> None:
        """Take an item to a queue of the loop, from any thread. After the loop was closed, it is dropped."""
        self._items.append((queue, item))
        if self._is_woken and not loop.is_closed():
            return
        self._is_woken = True
        try:
            loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:  # the loop was closed: it will not be read
            self._items.clear()

    def _deliver(self) -> None:
        self._is_woken = False  # first: what arrives from now on wakes the loop again
        for _ in range(len(self._items)):
            queue, item = self._items.popleft()
            queue.put_nowait(item)


_mailboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Mailbox] = WeakKeyDictionary()


class LoopOutlet:
    """Takes chunks from the engine's thread to an event loop.

    Attributes:
        queue: The chunks that arrived there; ``None`` after the last one.
    """

    def __init__(self) -> None:
        import asyncio  # here, since calls of threads do without

        self._loop = _loop_of_caller.get(None) or asyncio.get_running_loop()
        self._mailbox = _mailboxes.setdefault(self._loop, _Mailbox())
        self.queue: asyncio.Queue[TextChunk | None] = asyncio.Queue()

    def check_loop(self) -> None:
        """Raise :class:`EventLoopError` in another event loop: no chunk arrives there."""
        import asyncio

        if asyncio.get_running_loop() is not self._loop:
            raise EventLoopError(
                "this stream was made in another event loop, and only code that runs there can read it: call astream() "
                "in the loop that reads it, or use a Stream, which any thread can read"
            )

    def put(self, item: TextChunk | None) -> None:
        """Take an item, from any thread. It does not raise: after the loop was closed, the item is dropped."""
        self._mailbox.put(self._loop, self.queue, item)


class AsyncStream(_Generation, AsyncIterator[TextChunk]):
    """The chunks of a generation for an event loop: a :class:`Stream` to be used with ``async for``.

    Cancelling the task that reads it, leaving the ``async with`` block or dropping it ends the generation within one
    step. It belongs to the event loop in which it was made, and can be read there only. What :class:`Stream` says of
    chunks and slow readers holds here as well.

    >>> async def main():
    ...     text = ""
    ...     async with llm.astream("Once upon a time", max_tokens=16) as stream:
    ...         async for chunk in stream:
    ...             text += chunk
    ...     return stream.response == text
    >>> asyncio.run(main())
    True
    """

    def __init__(
        self,
        runtime: Runtime,
        request: Request,
        outlet: LoopOutlet,
        on_token: Callable[[str], object] | None = None,
        response_format: ResponseFormat | None = None,
    ) -> None:
        super().__init__(runtime, request, on_token, response_format)
        self._outlet = outlet
        self._queue = outlet.queue

    async def __anext__(self) -> TextChunk:
        """Return the next chunk.

        Raises:
            EventLoopError: This runs in another event loop than the one that the stream was made in.
        """
        if self._response is not None:
            raise StopAsyncIteration
        self._runtime.check_process()
        self._outlet.check_loop()
        try:
            chunk = await self._queue.get()
            if chunk is not None and self._on_token is not None:
                outcome = self._on_token(chunk)
                if inspect.isawaitable(outcome):
                    await outcome
        except BaseException:  # the task was cancelled, or the callback failed
            self.cancel()
            raise
        if chunk is None:
            self._end()
            raise StopAsyncIteration
        return chunk

    async def read(self) -> Response:
        """Return the whole response, after the end of the generation.

        >>> async def main():
        ...     return await llm.astream("Once upon a time", max_tokens=16).read()
        >>> asyncio.run(main()).usage.completion_tokens
        16

        Raises:
            EventLoopError: This runs in another event loop than the one that the stream was made in.
            CyllamaError: What :meth:`Stream.read` raises.
        """
        async for _ in self:
            pass
        return self.response

    async def aclose(self) -> None:
        """Cancel what is left of the generation and wait until it has ended; then :attr:`response` is complete.

        An error of the generation that iterating would raise is not raised here.

        >>> async def main():
        ...     stream = llm.astream("Once upon a time")
        ...     await stream.aclose()
        ...     return stream.response.finish_reason
        >>> asyncio.run(main())
        'cancelled'

        Raises:
            EventLoopError: This runs in another event loop: the generation is cancelled, and not waited for.
        """
        self.cancel()
        if self._response is None:
            self._outlet.check_loop()
        while self._response is None and self._runtime.in_own_process:
            if await self._queue.get() is None:
                self._end(raise_error=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.aclose()
