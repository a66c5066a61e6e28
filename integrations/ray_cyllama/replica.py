"""A replica: one model behind the whole API, and its sessions, which other replicas take up."""

# Types are also checked where Ray is not installed.
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json
from ray import serve
from starlette.requests import Request

from cyllama_server import ServerSettings, create_app
from cyllama_server.errors import ApiError
from cyllama_server.models import LoadedModel
from cyllama_server.responses_store import StoredResponses
from cyllama_server.routing_key import ROUTING_KEY
from cyllama_server.server import Server
from cyllama_server.tenants import Tenant

from .routing import key_of
from .storage import SessionStorage

logger = logging.getLogger("cyllama.ray")

Message = MutableMapping[str, Any]
N_LOCKS = 256
REPLICA_HEADER = "x-cyllama-replica"
"""The header of every response that says which replica answered."""


class Forwarded(NamedTuple):
    """A request on its way from the ingress to a replica.

    Attributes:
        scope: What ASGI says of it, as far as the application needs it.
        body: Its body.
        key: By what it was routed.
    """

    scope: dict[str, Any]
    body: bytes
    key: str


class Replica:
    """One replica of a model. Ray makes it.

    Args:
        settings: What the server is configured with; the model is the first one.
        storage: The folder that all replicas share, if there is one.
        most_bytes: Most bytes of sessions in it.
    """

    async def __init__(  # Ray awaits it: a replica is ready when its model is
        self, settings: ServerSettings, storage: str | None, most_bytes: int | None
    ) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id.encode()
        self._app = create_app(settings)
        self._server: Server = self._app.state.server
        self._storage = None if storage is None else SessionStorage(Path(storage), most_bytes)
        if storage is not None:
            self._server.responses = StoredResponses(Path(storage) / "responses", shared=True)
        self._locks = [asyncio.Lock() for _ in range(N_LOCKS)]
        self._lifespan = AsyncExitStack()
        await self._lifespan.enter_async_context(self._app.router.lifespan_context(self._app))

    async def answer(self, request: Forwarded) -> AsyncIterator[list[Message]]:
        """Yield the messages of ASGI that are the response to a request, as they come.

        Args:
            request: The request.
        """
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        gone = asyncio.Event()
        task = asyncio.ensure_future(self._run(request, messages, gone))
        task.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            message = await messages.get()
            while message is not None:
                batch = [message]
                while not messages.empty() and (message := messages.get_nowait()) is not None:
                    batch.append(message)
                yield batch
                message = None if message is None else await messages.get()
            await task
        finally:
            gone.set()  # the server then ends the answer within a step
            await asyncio.wait({task})

    async def answer_whole(self, request: Forwarded) -> list[Message]:
        """Return all messages of the response to a request."""
        return [message async for batch in self.answer(request) for message in batch]

    async def describe(self) -> dict[str, Any]:
        """Return what this replica does, for operators."""
        models = self._loaded()
        return {
            "replica": self._name.decode(),
            "pid": os.getpid(),
            "models": [model.name for model in models],
            "sessions": sum(len(model.llm.sessions) for model in models),
            "running": sum(model.llm.stats.running for model in models),
            "waiting": sum(model.llm.stats.waiting for model in models),
        }

    async def __del__(self) -> None:
        """Save the sessions, and unload the models. Ray calls it once, after the last request has ended."""
        if self._storage is not None:
            for model in self._loaded():
                sessions = model.sessions.all()
                n_saved = await asyncio.to_thread(self._storage.save, model, sessions)
                logger.info("saved %d of %d sessions of the model %s", n_saved, len(sessions), model.name)
        await self._lifespan.aclose()

    def _loaded(self) -> list[LoadedModel]:
        return [each.loaded for each in self._server.models.served.values() if each.loaded is not None]

    async def _run(self, request: Forwarded, messages: asyncio.Queue[Message | None], gone: asyncio.Event) -> None:
        """Let the application answer; the last message comes after what the response left is saved."""
        ROUTING_KEY.set(request.key)
        unread: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
        last: list[Message] = []
        status = 0

        async def receive() -> Message:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REPLICA_HEADER.encode(), self._name)]
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            last.append(message) if is_last else messages.put_nowait(message)

        tenant = self._tenant(request.scope)
        if tenant is not None and self._storage is not None:
            await self._take_up(self._storage, request, tenant)
        await self._app({**request.scope, "app": self._app}, receive, send)
        if tenant is not None and self._storage is not None and status == 200:
            await self._leave(self._storage, request, tenant)
        for message in last:
            messages.put_nowait(message)

    def _tenant(self, scope: Mapping[str, Any]) -> Tenant | None:
        """Return who asks; `None` where the application will refuse the request."""
        try:
            return self._server.identify(Request(dict(scope)))
        except ApiError:
            return None

    # -------------------- what other replicas left, and what this one leaves to them

    async def _take_up(self, storage: SessionStorage, request: Forwarded, tenant: Tenant) -> None:
        """Load what a request continues, if another replica saved it."""
        if request.key:
            async with self._locks[int(request.key, 16) % N_LOCKS]:  # a second request of the key waits for the first
                for model in self._loaded():
                    for name, asked in await asyncio.to_thread(storage.load, model, tenant, request.key):
                        model.sessions.note(name, asked)

    async def _leave(self, storage: SessionStorage, request: Forwarded, tenant: Tenant) -> None:
        """Save what other replicas may be asked for: responses, and forks, which belong to another key."""
        await self._server.responses.written()
        path, method = request.scope["path"], request.scope["method"]
        if method == "POST" and path.startswith("/v1/sessions/") and path.endswith("/fork"):
            await self._hand_over(storage, tenant, from_json(request.body)["conversation"])

    async def _hand_over(self, storage: SessionStorage, tenant: Tenant, conversation: str) -> None:
        """Leave a conversation to the replica of its key."""
        for model in self._loaded():
            sessions = [each for each in model.sessions.of(tenant) if each.conversation == conversation]
            for session in sessions:
                session.routing_key = key_of(tenant.id, conversation)
            if sessions and await asyncio.to_thread(storage.save, model, sessions) == len(sessions):
                model.pool.reset(conversation, tenant=tenant.id)
