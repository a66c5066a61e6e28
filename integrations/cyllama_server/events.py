"""Server-sent events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(data: object, name: str | None = None) -> bytes:
    r"""Return an event with some data.

    >>> event({"text": "é"}), event({}, "ping")
    (b'data: {"text":"\xc3\xa9"}\n\n', b'event: ping\ndata: {}\n\n')

    Args:
        data: What becomes JSON; `None` for the event that ends a stream of OpenAI's older APIs.
        name: The kind of the event, where the API names it.
    """
    head = "" if name is None else f"event: {name}\n"
    text = "[DONE]" if data is None else _encode(data)
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


class TextEvent:
    r"""An event that differs by a text only. All the rest of it is encoded once, not for every token.

    >>> TextEvent(lambda text: {"id": 1, "text": text})("Hi")
    b'data: {"id":1,"text":"Hi"}\n\n'

    Args:
        data_of: Returns the data of the event with a text.
    """

    def __init__(self, data_of: Callable[[str], object]) -> None:
        place = uuid.uuid4().hex  # which nothing else of it contains
        self._before, self._after = event(data_of(place)).split(_encode(place).encode())

    def __call__(self, text: str) -> bytes:
        """Return the event with a text."""
        return self._before + _encode(text).encode("utf-8", "replace") + self._after
