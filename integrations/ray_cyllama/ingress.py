"""The ingress: reads requests, and forwards each to the replica of its conversation."""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from cyllama_server import ServerSettings
from cyllama_server.chat_answers import error_event
from cyllama_server.connection import ClientGoneError, until_gone
from cyllama_server.errors import ApiError, explain, too_busy
from cyllama_server.messages_answers import error_event as messages_error_event
from cyllama_server.middleware import Guard
from cyllama_server.tenants import Tenants

from .merging import merge_metrics, merge_sessions
from .replica import Forwarded, Message
from .routing import route

TRIES = 3
"""How many replicas a request is sent to while they end before the response begins."""

_PARTS = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client")


class Ingress:
    """The deployment that clients reach. Ray makes it.

    Args:
        settings: What the servers are configured with.
        models: Their deployments, by the names of the models.
    """

    def __init__(self, settings: ServerSettings, models: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._settings = settings
        self._models = models

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application. The replicas check the rest: hosts, origins, keys."""
        gateway = Gateway(self._settings, self._models)
        limits = {"max_body": int(self._settings.max_body_mb * 2**20), "max_body_s": self._settings.max_body_s}
        return Guard(gateway, hosts=None, origins="*", **limits)


class Gateway:
    """Forwards requests.

    Args:
        settings: What the servers are configured with.
        models: Their deployments, by the names of the models; the first one gets what names no model.
    """

    def __init__(self, settings: ServerSettings, models: Mapping[str, DeploymentHandle[Any]]) -> None:
        self._tenants = Tenants(settings.keys)
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        if scope["type"] != "http":
            return None
        reply = _Reply(scope["path"], send)
        try:
            body = await Request(scope, receive).body()
            await until_gone(receive, self._answer(scope, body, reply))
        except (ClientGoneError, ClientDisconnect):
            return None
        except Exception as error:
            await reply.fail(_explain(error))

    async def _answer(self, scope: Scope, body: bytes, reply: _Reply) -> None:
        headers = Headers(scope=scope)
        try:
            tenant = self._tenants.identify(Request(scope)).id
        except ApiError:  # the replica says so
            tenant = ""
        path, method = scope["path"], scope["method"]
        found = route(method, path, headers, body, tenant)
        request = Forwarded({name: scope[name] for name in _PARTS if name in scope}, body, found.key)
        handle = self._models.get(found.model or "", next(iter(self._models.values())))
        if method == "GET" and path in ("/v1/sessions", "/metrics"):
            merge = merge_sessions if path == "/v1/sessions" else merge_metrics
            await reply.send_response(merge(await self._ask_all(request)), scope)
        elif path.startswith("/v1/sessions/") and path != "/v1/sessions/load":
            await reply.send_all(await self._ask_owner(handle, request))
        else:
            await self._forward(handle, request, reply)

    async def _forward(self, handle: DeploymentHandle[Any], request: Forwarded, reply: _Reply) -> None:
        """Send what a replica answers; if it ends before that begins, ask another one."""
        for attempt in range(TRIES):
            try:
                async for batch in _ask(handle, request):
                    await reply.send_all(batch)
            except RayActorError:
                if reply.has_begun or attempt == TRIES - 1:
                    raise
            else:
                return

    async def _ask_owner(self, handle: DeploymentHandle[Any], request: Forwarded) -> list[Message]:
        """Return the response of the replica that has a session: that of its key, or, for an id, any other.

        Copies of a conversation may be at several replicas, where its own was too busy: all of them are deleted.
        """
        first = [message async for batch in _ask(handle, request) for message in batch]
        if _status(first) != 404 and request.scope["method"] != "DELETE":
            return first
        answers = [first, *await self._ask_all(request._replace(key=""))]
        return next((each for each in answers if _status(each) != 404), first)

    async def _ask_all(self, request: Forwarded) -> list[list[Message]]:
        """Return the responses of all replicas of all models. Those that end meanwhile are left out."""
        asked = [handle.broadcast("answer_whole", request) for handle in self._models.values()]
        found = await asyncio.gather(*(each.results_async(return_exceptions=True) for each in asked))
        whole = [answer for each in found for answer in each if isinstance(answer, list)]
        if not whole:
            raise _unavailable("no replica answers: try again later")
        return whole


class _Reply:
    """The response to a client. Until the first piece of its body is there, an error can be the response."""

    def __init__(self, path: str, send: Send) -> None:
        self._path = path
        self._send = send
        self._start: Message | None = None
        self._n_events = 0
        self.has_begun = False

    async def send_all(self, messages: Iterable[Message]) -> None:
        """Send messages of ASGI."""
        for message in messages:
            if message["type"] == "http.response.start":
                self._start = message
                continue
            if not self.has_begun and self._start is not None:
                self.has_begun = True
                await self._send(self._start)
            self._n_events += (b"\n" + message.get("body", b"")).count(b"\nevent: ")  # several may come together
            await self._send(message)

    async def send_response(self, response: Response, scope: Scope) -> None:
        """Send a response that was made here."""
        self.has_begun = True
        await response(scope, _never, self._send)

    async def fail(self, error: ApiError) -> None:
        """Send an error: as the response, or as the last event of it."""
        if not self.has_begun:
            self.has_begun = True
            response = JSONResponse(error.body(self._path), error.status, error.headers)
            await response({"type": "http"}, _never, self._send)
        else:
            body = self._event(error) if self._is_stream else b""
            await self._send({"type": "http.response.body", "body": body, "more_body": False})

    @property
    def _is_stream(self) -> bool:
        headers = {} if self._start is None else dict(self._start["headers"])
        return headers.get(b"content-type", b"").startswith(b"text/event-stream")

    def _event(self, error: ApiError) -> bytes:
        if self._path.startswith("/v1/messages"):
            return messages_error_event(error)
        if self._path.startswith("/v1/responses"):
            said = {"type": "error", "sequence_number": self._n_events, "code": error.code, "message": error.message}
            return f"event: error\ndata: {json.dumps(said | {'param': error.param})}\n\n".encode()
        return error_event(error)


async def _ask(handle: DeploymentHandle[Any], request: Forwarded) -> AsyncIterator[list[Message]]:
    """Yield what a replica answers, which ends it when the caller goes away."""
    answer: Any = handle.options(stream=True, session_id=request.key).answer.remote(request)
    try:
        async for batch in answer:
            yield batch
    finally:
        answer.cancel()


def _explain(error: Exception) -> ApiError:
    """Return what a client is told of an error."""
    if isinstance(error, BackPressureError):
        return too_busy("all replicas have as many requests as they may: try again later", 1)
    if isinstance(error, RayActorError):
        return _unavailable("the replica ended while it answered: send the request again")
    if isinstance(error, (DeploymentUnavailableError, RayError, RayServeException)):
        return _unavailable(f"no replica answers: {type(error).__name__}")
    return explain(error)


def _unavailable(message: str) -> ApiError:
    return ApiError(503, message, code="replica_unavailable", headers={"Retry-After": "1"})


def _status(messages: Iterable[Message]) -> int:
    return next(message["status"] for message in messages if message["type"] == "http.response.start")


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the begin and the end of the server."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
