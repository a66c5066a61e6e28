"""The streams of :class:`Llama`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from typing_extensions import Self

ChunkT = TypeVar("ChunkT")


class Endable(Protocol):
    """A stream of :class:`LLM`."""

    def cancel(self) -> None:
        """End the generation within one step."""

    def close(self) -> None:
        """End the generation, and wait until it has ended."""


class ChunkStream(Iterator[ChunkT], Generic[ChunkT]):
    """The chunks of an answer, dicts in OpenAI's format. Closing or dropping it ends the generation.

    Args:
        chunks: Yields them.
        stream: What they are made of.
        release: Gives back what the generation used. It is called once.
    """

    def __init__(self, chunks: Iterator[ChunkT], stream: Endable, release: Callable[[], None]) -> None:
        self._chunks = chunks
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __next__(self) -> ChunkT:
        if self._release is None:
            raise StopIteration
        try:
            return next(self._chunks)
        except BaseException:  # its end, an error, or Ctrl-C
            self.close()
            raise

    def cancel(self) -> None:
        """End the generation within one step. Chunks that were generated before can still be read."""
        self._stream.cancel()

    def close(self) -> None:
        """End the generation, and wait until it has ended. A stream that has ended stays as it is."""
        release, self._release = self._release, None
        if release is not None:
            try:
                self._stream.close()
            finally:
                release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # On any thread, so also on the engine's, which nothing may wait for there.
        release = getattr(self, "_release", None)  # missing if Ctrl-C interrupted the constructor
        if release is not None:
            self._release = None
            self._stream.cancel()
            release()
