"""A client for streams over HTTP that costs next to nothing: what is measured is the server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple


class Streamed(NamedTuple):
    """What came of a stream.

    Attributes:
        status: The status of HTTP.
        first: Seconds until its first event.
        seconds: Seconds until its end.
        body: All of it.
    """

    status: int
    first: float
    seconds: float
    body: bytes

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end without an error."""
        return self.status == 200 and b'"error"' not in self.body and b"data: [DONE]" in self.body

    @property
    def n_tokens(self) -> int:
        """How many tokens were generated, where the request asked for the usage."""
        return int(re.findall(rb'"completion_tokens":\s*(\d+)', self.body)[-1])


def request(path: str, body: Any, *, host: str, headers: str = "") -> bytes:
    """Return a whole request that posts JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{headers}Connection: close\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


@asynccontextmanager
async def sent(port: int, data: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request on a connection of its own, which ends with the ``async with`` block."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        yield reader
    finally:
        writer.transport.abort()


async def stream(port: int, path: str, body: Any) -> Streamed:
    """Post JSON, and read the stream that it is answered with to its end."""
    start, first, parts = time.perf_counter(), 0.0, list[bytes]()
    async with sent(port, request(path, body, host=f"127.0.0.1:{port}")) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        while part := await reader.read(65536):
            if not first and b"data:" in part:
                first = time.perf_counter() - start
            parts.append(part)
    return Streamed(int(head.split(b" ", 2)[1]), first, time.perf_counter() - start, b"".join(parts))
