"""Events on their way to a client: none waits for a later one, and those that wait are sent together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama_server import connection
from cyllama_server.connection import EventStream
from cyllama_server.events import TextEvent, event


@given(st.text(), st.text(), st.integers())
def test_an_event_with_a_text_is_the_same_as_one_that_is_encoded_as_a_whole(name: str, text: str, index: int):
    def chunk(text: str) -> dict[str, Any]:
        return {"model": name, "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}

    assert TextEvent(chunk)(text) == event(chunk(text))
    assert json.loads(event(chunk(text)).removeprefix(b"data: ")) == chunk(text)


class Client:
    """A client as ASGI shows it to an application.

    Args:
        takes: How many messages it takes before it stops.

    Attributes:
        bodies: What it was sent.
    """

    def __init__(self, takes: int = 1000) -> None:
        self.bodies: list[bytes] = []
        self.ended = False
        self._takes = takes

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        if len(self.bodies) >= self._takes:
            await asyncio.Event().wait()
        if message["type"] == "http.response.body":
            self.bodies.append(message["body"])
            self.ended = not message["more_body"]

    def read(self, items: asyncio.Queue[bytes | None], keep_alive: float = 100.0) -> asyncio.Task[None]:
        """Let it read a stream of the items of a queue, up to `None`."""

        async def events() -> AsyncIterator[bytes]:
            while (item := await items.get()) is not None:
                yield item

        async def close() -> None:
            pass

        stream = EventStream(events(), close, goes_on=lambda: not items.empty(), keep_alive=keep_alive)
        return asyncio.ensure_future(stream({"type": "http"}, self.receive, self.send))

    async def wait_for(self, *bodies: bytes) -> None:
        """Wait until it has got all of these."""
        for _ in range(1000):
            if b"".join(self.bodies) == b"".join(bodies):
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{bodies} did not come, but {self.bodies}")


async def test_events_that_wait_are_sent_together_and_no_event_waits_for_the_next():
    items: asyncio.Queue[bytes | None] = asyncio.Queue()
    for item in (b"one", b"two", b"three"):
        items.put_nowait(item)
    client = Client()
    reading = client.read(items)
    await client.wait_for(b"one", b"two", b"three")
    assert client.bodies == [b"onetwothree"]
    items.put_nowait(b"four")
    await client.wait_for(b"onetwothree", b"four")
    items.put_nowait(b"five")
    items.put_nowait(None)
    await asyncio.wait_for(reading, 120)
    assert client.ended
    assert b"".join(client.bodies) == b"onetwothreefourfive"


async def test_a_stream_is_sent_in_parts_of_limited_size_however_much_waits():
    items: asyncio.Queue[bytes | None] = asyncio.Queue()
    texts = [f"{i} ".encode() for i in range(1000)]
    for item in (*texts, None):
        items.put_nowait(item)
    client = Client()
    await asyncio.wait_for(client.read(items), 120)
    assert b"".join(client.bodies) == b"".join(texts)
    assert len(client.bodies) > 10


@pytest.mark.parametrize("keep_alive", [0.01, 100.0])
@pytest.mark.parametrize("takes", [0, 1])
async def test_a_client_that_takes_no_data_is_left(keep_alive: float, takes: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "SEND_TIMEOUT", 0.02)
    items: asyncio.Queue[bytes | None] = asyncio.Queue()
    client = Client(takes)
    reading = client.read(items, keep_alive)
    for item in (b"one", b"two", b"three"):
        items.put_nowait(item)
        await asyncio.sleep(0.01)
    await asyncio.wait_for(reading, 120)  # the third one is never sent, and no event ends the stream
    assert len(client.bodies) == takes
