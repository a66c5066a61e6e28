"""What is checked of every request before it is read: where it comes from, and how large it is."""

from __future__ import annotations

import ipaddress
import logging
import time
import uuid
from collections.abc import Iterable
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, explain
from .metrics import Metrics

logger = logging.getLogger("cyllama.server")

POLLED = {"/live/state"}
"""Routes that a page asks for every second: their requests would hide the others in the log."""


class Guard:
    """Refuses requests that web pages of other sites send through a user's browser, and bodies beyond the limits.

    A page of any site may send requests to 127.0.0.1, and the name of a site may mean 127.0.0.1 (DNS rebinding). So the
    header `Host` has to be an address or a name of this server, and the header `Origin`, where there is one, has to
    be a site that was allowed, or this server itself.

    Args:
        app: What answers.
        hosts: Names of this server, besides addresses; `None` to allow all.
        origins: Sites whose pages may send requests.
        max_body: Most bytes of a body.
        max_body_s: Most seconds that a body may take to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str] | None, origins: Iterable[str], max_body: int, max_body_s: float
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else {"localhost", *(host.lower() for host in hosts)}
        self._origins = set(origins)
        self._max_body = max_body
        self._max_body_s = max_body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        limited = _LimitedBody(receive, self._max_body, self._max_body_s)
        try:
            self._check_host(headers)
            self._check_origin(headers)
            limited.check_length(headers.get("content-length"))
        except ApiError as error:
            # What is left of the body is not read: the connection ends.
            response = JSONResponse(error.body(scope["path"]), error.status, {**error.headers, "Connection": "close"})
            return await response(scope, receive, send)
        return await self._app(scope, limited, send)

    def _check_host(self, headers: Headers) -> None:
        host = _host_name(headers.get("host", ""))
        if self._hosts is None or host in self._hosts or _is_address(host):
            return
        raise ApiError(
            403,
            f"the header Host names {host!r:.80}, which this server does not know: start it with "
            "--allowed-host and that name",
            code="bad_host",
        )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        if urlsplit(origin).netloc == headers.get("host"):
            return
        raise ApiError(
            403,
            f"pages of {origin!r:.80} may not use this server: start it with --cors-origin and that address",
            code="bad_origin",
        )


class _LimitedBody:
    """Receives a body, up to limits of bytes and seconds."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._n_bytes = 0
        self._deadline: float | None = None
        self._is_whole = False

    async def __call__(self) -> Message:
        if self._is_whole:
            return await self._receive()
        now = time.monotonic()
        self._deadline = now + self._seconds if self._deadline is None else self._deadline
        try:
            with anyio.fail_after(self._deadline - now):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408,
                f"the body did not arrive in {self._seconds:g} seconds, the limit (max_body_s)",
                code="request_timeout",
                headers={"Connection": "close"},
            ) from None
        self._is_whole = not message.get("more_body", False)
        self._n_bytes += len(message.get("body", b""))
        self._check(self._n_bytes)
        return message

    def check_length(self, length: str | None) -> None:
        """Refuse a body by the length that its header says."""
        if length is not None and length.isdecimal():
            self._check(int(length[:20]))

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self._limit:
            raise ApiError(
                413, f"the body has more than {self._limit} bytes, the limit (max_body_mb)", code="too_large"
            )


class Observer:
    """Gives each request an id, counts it, and logs it without anything that it says.

    Args:
        app: What answers.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id, begin, status = f"req_{uuid.uuid4().hex}", time.monotonic(), 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception as error:
            found = explain(error)  # which logs it: uvicorn would log the whole message
            if not status:
                await JSONResponse(found.body(scope["path"]), found.status)(scope, receive, send_observed)
        finally:
            seconds = time.monotonic() - begin
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.count_request(route, status, seconds)
            level = logging.DEBUG if route in POLLED else logging.INFO
            logger.log(level, "%s %s %s %d %.3f s", request_id, scope["method"], route, status, seconds)


def _host_name(host: str) -> str:
    """Return the name or the address of a header `Host`, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
