"""What the routes of one server share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from .connection import EventStream, until_gone
from .generation import Answers, Start
from .images import ImageReader
from .metrics import Metrics
from .models import LoadedModel, Models
from .responses_store import StoredResponses
from .sessions import Asked
from .settings import ServerSettings
from .tenants import Tenant, Tenants


class Call(NamedTuple):
    """What a request makes of a model.

    Attributes:
        asked: What it says of its session.
        starts: Starts each of its answers, in the session of a name.
    """

    asked: Asked
    starts: Sequence[Start]


#: Returns what a request makes of a model.
Plan: TypeAlias = Callable[[LoadedModel], Awaitable[Call]]


class Server:
    """The state of one server.

    Args:
        settings: What it is configured with.

    Attributes:
        settings: What it is configured with.
        models: Its models.
        tenants: Who may use them.
        responses: Responses that may be continued.
        metrics: What an operator can see.
        images: Reads the images of requests.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.models = Models(settings)
        admin_key = None if settings.admin_key is None else settings.admin_key.get_secret_value()
        self.tenants = Tenants(settings.keys, admin_key)
        folder = settings.session_dir
        self.responses = StoredResponses(None if folder is None else folder / "responses")
        self.metrics = Metrics(lambda: self.models.loaded, lambda: self.models.in_progress)
        self.images = ImageReader(settings.max_image_mp)

    def identify(self, request: Request) -> Tenant:
        """Return who a request comes from, or raise `ApiError`."""
        return self.tenants.identify(request)

    async def close(self) -> None:
        """Unload all models, and finish what is being written."""
        await self.models.close()
        await asyncio.to_thread(self.responses.close)
        self.images.close()

    async def answer(
        self,
        request: Request,
        tenant: Tenant,
        model_name: str | None,
        plan: Plan,
        *,
        stream: bool,
        events: Callable[[Answers[Any, Any]], Any],
        whole: Callable[[Answers[Any, Any]], Response],
    ) -> Response:
        """Return the response to a request, which ends when its client goes away.

        Args:
            request: The request.
            tenant: Who asks.
            model_name: The model; `None` for the first one.
            plan: Returns what the request makes of the model.
            stream: Whether the client wants events.
            events: Returns the events, as bytes, with an error as the last one.
            whole: Returns the response after the answers have ended.

        Raises:
            ApiError: There is no such model, or too many requests wait for it.
            ClientGoneError: The client closed its connection before the response began.
            CyllamaError: The request is not valid, or a generation failed before the response began.
        """

        async def work() -> Response:
            answers = await self._begin(model_name, plan, tenant)
            stack.push_async_callback(answers.aclose)
            if not stream:
                await answers.read()
                return whole(answers)
            keep_alive = self.settings.keep_alive_s
            await answers.wait_for_first(keep_alive)
            return EventStream(events(answers), answers.aclose, goes_on=answers.goes_on, keep_alive=keep_alive)

        # The answers belong to the stack, and not to the task of `work`, whose result is lost if the client goes away.
        async with AsyncExitStack() as stack:
            response = await until_gone(request.receive, work())
            if stream:
                stack.pop_all()
        return response

    async def _begin(self, model_name: str | None, plan: Plan, tenant: Tenant) -> Answers[Any, Any]:
        """Return the answers of a request, which are being generated. The caller closes them."""
        async with AsyncExitStack() as stack, AsyncExitStack() as until_end:
            until_end.enter_context(self.models.place(model_name, tenant))
            model = await stack.enter_async_context(self.models.keep_loaded(model_name))
            call = await plan(model)
            seconds = self.settings.max_time_s
            answers = Answers[Any, Any](model, stack.pop_all(), until_end.pop_all(), self.metrics, seconds)
            stack.push_async_callback(answers.aclose)
            await answers.start(call.asked, call.starts)
            stack.pop_all()
        return answers


def server_of(request: Request) -> Server:
    """Return the server that got a request."""
    return request.app.state.server
