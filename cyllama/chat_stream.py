"""Messages while they are generated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from typing_extensions import Self

from .chat import ChatDelta, ChatParser, ChatPlan, ChatResponse
from .errors import StreamNotFinishedError
from .response import Response, TextChunk, TokenLogprob
from .stream import AsyncStream, Stream


class _Answer:
    """The common part of :class:`ChatStream` and :class:`AsyncChatStream`: makes deltas and a response of text."""

    def __init__(self, plan: ChatPlan) -> None:
        self._plan = plan
        self._parser: ChatParser = plan.parser()
        self._logprobs: list[TokenLogprob] = []  # of text that no delta has yet
        self._n_logprobs = 0  # in deltas
        self._response: ChatResponse | None = None

    @property
    def response(self) -> ChatResponse:
        """The whole response, once the stream is exhausted or closed.

        Raises:
            StreamNotFinishedError: The stream is neither exhausted nor closed.
        """
        if self._response is None:
            raise StreamNotFinishedError("the stream has no response yet: read it to its end, or close() it")
        return self._response

    def _push(self, chunk: TextChunk) -> ChatDelta:
        """Read a piece of the answer; return what it adds to the message, which may be nothing yet."""
        delta = self._parser.push(chunk)
        self._logprobs += chunk.logprobs
        if not delta or not self._logprobs:
            return delta
        logprobs, self._logprobs = tuple(self._logprobs), []
        self._n_logprobs += len(logprobs)
        return replace(delta, logprobs=logprobs)

    def _finish(self, response: Response) -> ChatDelta:
        """Make the response; return the delta of the text that was held back or not read yet."""
        delta = self._parser.push(response.text[len(self._parser.text) :])
        last = self._parser.finish()
        message = self._parser.message
        reason = response.finish_reason
        self._response = ChatResponse(
            message,
            "tool_calls" if reason == "stop" and message.tool_calls else reason,
            response.usage,
            response.timings,
            response.model,
            self._plan.response_format,
            response.logprobs,
            self._plan.prefill,
        )
        return _join(delta, last, (response.logprobs or ())[self._n_logprobs :])

    def _check(self) -> None:
        """Validate the calls of strict tools in an answer that was neither cut nor cancelled."""
        if self.response.finish_reason == "tool_calls":
            self._plan.check(self.response.message)


class ChatStream(_Answer, Iterator[ChatDelta]):
    """The pieces of a message, as soon as they are certain; together they are the message.

    It is an iterator of :class:`ChatDelta` and a context manager, as :class:`Stream` is.

    >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
    >>> text = ""
    >>> with llm.chat(messages, stream=True) as stream:
    ...     for delta in stream:
    ...         text += delta.content
    >>> text, stream.response.finish_reason
    ('The capital of France is Paris.', 'stop')
    """

    def __init__(self, stream: Stream, plan: ChatPlan) -> None:
        super().__init__(plan)
        self._stream = stream

    def __next__(self) -> ChatDelta:
        for chunk in self._stream:
            if delta := self._push(chunk):
                return delta
        if self._response is None and (delta := self._finish(self._stream.response)):
            return delta
        self._check()
        raise StopIteration

    def read(self) -> ChatResponse:
        """Return the whole response, after the end of the generation.

        >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
        >>> llm.chat(messages, stream=True).read().text
        'The capital of France is Paris.'

        Raises:
            OutputError: The answer calls a tool with ``strict``, and the arguments are not valid. :attr:`response` has
                the call.
            CyllamaError: What :meth:`Stream.read` raises.
        """
        for _ in self:
            pass
        return self.response

    def cancel(self) -> None:
        """End the generation within one step. Deltas that were generated before can still be read.

        >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
        >>> stream = llm.chat(messages, stream=True)
        >>> stream.cancel()
        >>> stream.read().finish_reason
        'cancelled'
        """
        self._stream.cancel()

    def close(self) -> None:
        """Cancel what is left of the generation and wait until it has ended; then :attr:`response` is complete.

        >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
        >>> stream = llm.chat(messages, stream=True)
        >>> stream.close()
        >>> stream.response.finish_reason
        'cancelled'
        """
        self._stream.close()
        if self._response is None:
            self._finish(self._stream.response)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


class AsyncChatStream(_Answer, AsyncIterator[ChatDelta]):
    """The pieces of a message for an event loop: a :class:`ChatStream` to be used with ``async for``.

    >>> async def main():
    ...     stream = llm.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
    ...     return "".join([delta.content async for delta in stream])
    >>> asyncio.run(main())
    'The capital of France is Paris.'
    """

    def __init__(self, stream: AsyncStream, plan: ChatPlan) -> None:
        super().__init__(plan)
        self._stream = stream

    async def __anext__(self) -> ChatDelta:
        async for chunk in self._stream:
            if delta := self._push(chunk):
                return delta
        if self._response is None and (delta := self._finish(self._stream.response)):
            return delta
        self._check()
        raise StopAsyncIteration

    async def read(self) -> ChatResponse:
        """Return the whole response, after the end of the generation.

        >>> async def main():
        ...     stream = llm.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
        ...     return await stream.read()
        >>> asyncio.run(main()).text
        'The capital of France is Paris.'

        Raises:
            EventLoopError: This runs in another event loop than the one that the stream was made in.
            CyllamaError: What :meth:`ChatStream.read` raises.
        """
        async for _ in self:
            pass
        return self.response

    def cancel(self) -> None:
        """End the generation within one step. Deltas that were generated before can still be read.

        >>> async def main():
        ...     stream = llm.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
        ...     stream.cancel()
        ...     return await stream.read()
        >>> asyncio.run(main()).finish_reason
        'cancelled'
        """
        self._stream.cancel()

    async def aclose(self) -> None:
        """Cancel what is left of the generation and wait until it has ended; then :attr:`response` is complete.

        >>> async def main():
        ...     stream = llm.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
        ...     await stream.aclose()
        ...     return stream.response.finish_reason
        >>> asyncio.run(main())
        'cancelled'

        Raises:
            EventLoopError: This runs in another event loop: the generation is cancelled, and not waited for.
        """
        await self._stream.aclose()
        if self._response is None:
            self._finish(self._stream.response)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.aclose()


def _join(first: ChatDelta, second: ChatDelta, logprobs: tuple[TokenLogprob, ...]) -> ChatDelta:
    return ChatDelta(
        first.content + second.content,
        first.reasoning_content + second.reasoning_content,
        first.tool_calls + second.tool_calls,
        logprobs,
    )
