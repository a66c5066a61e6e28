"""Text while it is generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from typing_extensions import Self

from .errors import StreamNotFinishedError
from .response import Response

if TYPE_CHECKING:
    from .engine import Request
    from .llm import LLM


class Stream(Iterator[str]):
    """The chunks of a generation, as soon as their text is certain; together they are the response.

    It is an iterator and a context manager. Leaving the ``with`` block, or dropping the stream, ends the generation. A
    stream keeps its :class:`~cyllama.LLM` alive.

    >>> with llm("Once upon a time", stream=True) as stream:
    ...     for chunk in stream:
    ...         print(chunk, end="", flush=True)
    >>> stream.response.finish_reason
    'stop'
    """

    def __init__(self, llm: LLM, request: Request, on_token: Callable[[str], object] | None = None) -> None:
        self._llm = llm
        self._request = request
        self._on_token = on_token
        self._response: Response | None = None

    @property
    def response(self) -> Response:
        """The whole response, once the stream is exhausted or closed.

        After an error it holds the text so far, and is "cancelled".

        Raises:
            StreamNotFinishedError: It is not.
        """
        if self._response is None:
            raise StreamNotFinishedError("the stream has no response yet: read it to its end, or close() it")
        return self._response

    def __next__(self) -> str:
        if self._response is not None:
            raise StopIteration
        self._llm._check_process()
        try:
            chunk = self._request.chunks.get()
            if chunk is not None and self._on_token is not None:
                self._on_token(chunk)
        except BaseException:  # Ctrl-C while waiting, or an exception of the callback
            self.cancel()
            raise
        if chunk is None:
            self._end()
            raise StopIteration
        return chunk

    def cancel(self) -> None:
        """End the generation within one step. Chunks that were generated before can still be read."""
        if self._response is None:
            self._llm._cancel(self._request)

    def close(self) -> None:
        """Cancel what is left of the generation and wait until it has ended; then :attr:`response` is complete.

        An error of the generation that iterating would raise is not raised here.
        """
        self.cancel()
        while self._response is None and self._llm._in_own_process():
            if self._request.chunks.get() is None:
                self._end(raise_error=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.cancel()

    def _end(self, *, raise_error: bool = True) -> None:
        self._request.chunks.put(None)  # for whoever else is reading this stream
        self._response = self._llm._to_response(self._request)
        if raise_error and self._request.error is not None:
            raise self._request.error
