"""The connection to a client: the body of a request, the events of an answer, and whether the client is still there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from pydantic import BaseModel
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import ApiError

T = TypeVar("T")
BodyT = TypeVar("BodyT", bound=BaseModel)

prompt_logger = logging.getLogger("cyllama.server.prompts")
"""Gets the bodies of requests, where `log_prompts` is set."""

KEEP_ALIVE = b": keep-alive\n\n"
SEND_TIMEOUT = 120.0  # seconds that a client may take no data


class ClientGoneError(Exception):
    """The client closed its connection."""


async def read_body(request: Request, kind: type[BodyT]) -> BodyT:
    """Return the JSON body of a request.

    Raises:
        ApiError: It is not JSON, or not an object.
        ValidationError: It is not a valid request.
        ClientGoneError: The client closed its connection before the end of the body.
    """
    try:
        raw = await request.body()
    except ClientDisconnect:
        raise ClientGoneError from None
    if prompt_logger.isEnabledFor(logging.INFO):
        prompt_logger.info("%s %s", request.url.path, raw.decode("utf-8", "replace"))
    if not raw:
        raise ApiError(400, "the request has no body: expected a JSON object", code="invalid_json")
    try:
        value = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body has to be a JSON object, not {type(value).__name__}", code="invalid_type")
    return kind.model_validate(value)


async def until_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of some work, which is cancelled when the client goes away.

    Args:
        receive: Receives from the client, whose request was read to its end.
        work: The work.

    Raises:
        ClientGoneError: The client closed its connection before.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_wait_until_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events, until there are no more or the client goes away.

    This is not `sse_starlette`: that library replaces uvicorn's handler of signals for the whole process, ends streams
    as soon as a shutdown begins, and writes every event to its log.

    Args:
        events: The events, each as the bytes of one.
        close: Called once at the end, also if the client went away before the first event.
        keep_alive: Seconds without an event after which a comment is sent: proxies close connections that are silent.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], close: Callable[[], Awaitable[None]], *, keep_alive: float
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close
        self._keep_alive = keep_alive
        self._last_sent = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI has it
        """Send the events."""
        try:
            with suppress(ClientGoneError):
                await until_gone(receive, self._send_all(send))
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        pulse = asyncio.ensure_future(self._stay_alive(send))
        try:
            async for event in self._events:
                await self._send(send, event)
        finally:
            pulse.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stay_alive(self, send: Send) -> None:
        while True:
            silent = time.monotonic() - self._last_sent
            if silent >= self._keep_alive:
                await self._send(send, KEEP_ALIVE)
                silent = 0
            await asyncio.sleep(self._keep_alive - silent)

    async def _send(self, send: Send, data: bytes) -> None:
        """Send some events as one message, so that two tasks may do so."""
        self._last_sent = time.monotonic()
        try:
            with anyio.fail_after(SEND_TIMEOUT):
                await send({"type": "http.response.body", "body": data, "more_body": True})
        except TimeoutError:
            raise ClientGoneError from None
