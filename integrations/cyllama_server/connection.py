"""The connection to a client: the body of a request, the events of an answer, and whether the client is still there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

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
MOST_JOINED = 64  # events that are sent together


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
    return await _guarded(work, _wait_until_gone(receive))


async def _guarded(work: Coroutine[Any, Any, T], guard: Coroutine[Any, Any, NoReturn]) -> T:
    """Return the result of some work, which is cancelled when its guard ends by an exception: that is raised then."""
    task, guarding = asyncio.ensure_future(work), asyncio.ensure_future(guard)
    try:
        await asyncio.wait({task, guarding}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else guarding.result()
    finally:
        task.cancel()
        guarding.cancel()
        await asyncio.gather(task, guarding, return_exceptions=True)


async def _wait_until_gone(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGoneError


class EventStream(Response):
    """Server-sent events, until there are no more or the client goes away.

    This is not `sse_starlette`: that library replaces uvicorn's handler of signals for the whole process, ends streams
    as soon as a shutdown begins, and writes every event to its log.

    Args:
        events: The events, each as the bytes of one or several.
        close: Called once at the end, also if the client went away before the first event.
        goes_on: Whether the next event is there already: then it is sent together with those before it.
        keep_alive: Seconds without an event after which a comment is sent: proxies close connections that are silent.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        *,
        goes_on: Callable[[], bool],
        keep_alive: float,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close
        self._goes_on = goes_on
        self._keep_alive = keep_alive
        self._last_sent = time.monotonic()
        self._is_sending = True  # until the headers are sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI has it
        """Send the events."""
        try:
            with suppress(ClientGoneError):
                await until_gone(receive, _guarded(self._send_all(send), self._watch(send)))
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._is_sending = False
        waiting: list[bytes] = []
        async for event in self._events:
            waiting.append(event)
            if not self._goes_on() or len(waiting) == MOST_JOINED:
                if data := b"".join(waiting):
                    await self._send(send, data)
                waiting.clear()
        await send({"type": "http.response.body", "body": b"".join(waiting), "more_body": False})

    async def _watch(self, send: Send) -> NoReturn:
        """Send comments where there are no events for long, and find out when the client takes no data.

        One task does so for the whole stream: a timer for each event would take a third of the time of sending it.

        Raises:
            ClientGoneError: The client took no data for too long.
        """
        while True:
            limit = SEND_TIMEOUT if self._is_sending else self._keep_alive
            silent = time.monotonic() - self._last_sent
            if silent < limit:
                await asyncio.sleep(min(limit - silent, self._keep_alive, SEND_TIMEOUT))
            elif self._is_sending:
                raise ClientGoneError
            else:
                with anyio.move_on_after(SEND_TIMEOUT):
                    await self._send(send, KEEP_ALIVE)
                    continue
                raise ClientGoneError

    async def _send(self, send: Send, data: bytes) -> None:
        """Send some events as one message, so that two tasks may do so."""
        self._last_sent = time.monotonic()
        self._is_sending = True
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._is_sending = False
