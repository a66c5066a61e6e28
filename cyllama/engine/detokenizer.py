"""Bytes of tokens to text, as soon as the text is certain."""

from __future__ import annotations

import codecs
from collections.abc import Iterable


class Detokenizer:
    r"""Turns the bytes of one generation into text.

    A character that is split over several tokens is held back until it is complete. Text that may be the beginning of a
    stop string is held back until it is known not to be one. Everything else is returned at once. Bytes that are not
    valid UTF-8 become U+FFFD, as with ``bytes.decode(errors="replace")``.

    >>> detokenizer = Detokenizer(stop_sequences=["END"])
    >>> detokenizer.push(b"caf\xc3"), detokenizer.push(b"\xa9 E"), detokenizer.push(b"NDLESS")
    ('caf', 'é ', '')
    >>> detokenizer.stopped
    True

    Attributes:
        stopped: Whether a stop string was found. It, and all that follows, is not part of the text.
    """

    def __init__(self, stop_sequences: Iterable[str] = ()) -> None:
        self._stops = tuple(stop_sequences)
        self._longest = max(map(len, self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Add the bytes of the next token; return the text that is certain now."""
        return self._advance(self._decoder.decode(data))

    def finish(self) -> str:
        """End the generation; return what was held back."""
        text = self._advance(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _advance(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        # The stop string that is complete first decides, so that the cut does not depend on where tokens begin and end.
        found = min(((i + len(stop), i) for stop in self._stops if (i := text.find(stop)) >= 0), default=None)
        if found:
            self.stopped = True
            self._held = ""
            return text[: found[1]]
        keep = self._possible_stop(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _possible_stop(self, text: str) -> int:
        """Return the length of the longest end of ``text`` that a stop string starts with."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
