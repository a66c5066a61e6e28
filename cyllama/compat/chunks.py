"""The streams of :class:`Llama`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from typing_extensions import Self

ChunkT = TypeVar("ChunkT")


class ChunkStream(Iterator[ChunkT], Generic[ChunkT]):
    """The chunks of an answer, dicts in OpenAI's format. Closing or dropping it ends the generation.

    Args:
        chunks: Yields them.
        end: Ends the generation and gives back what it used. It is called once.
    """

    def __init__(self, chunks: Iterator[ChunkT], end: Callable[[], None]) -> None:
        self._chunks = chunks
        self._end: Callable[[], None] | None = end

    def __next__(self) -> ChunkT:
        if self._end is None:
            raise StopIteration
        try:
            return next(self._chunks)
        except BaseException:  # its end, an error, or Ctrl-C
            self.close()
            raise

    def close(self) -> None:
        """End the generation. A stream that has ended stays as it is."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_end"):  # missing if Ctrl-C interrupted the constructor
            self.close()
