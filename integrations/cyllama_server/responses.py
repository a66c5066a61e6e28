"""`/v1/responses`: OpenAI's API whose responses go on from each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import AsyncChatStream

from .connection import read_body
from .conversations import conversation_of
from .generation import Answers
from .models import LoadedModel
from .responses_answers import ResponseAnswer
from .responses_request import ResponsesRequest
from .responses_store import StoredResponse
from .server import Call, Server, server_of
from .sessions import Asked
from .tenants import Tenant

router = APIRouter()


@router.post("/v1/responses", response_model=None)
async def create_response(request: Request) -> Response:
    """Answer an input. With `previous_response_id`, it goes on from there: in its session, or in a fork of it."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, ResponsesRequest)
    before: list[dict[str, Any]] = []
    conversation = conversation_of(body, request.headers)
    if body.previous_response_id is not None:
        previous = await server.responses.find(tenant, body.previous_response_id, status=400)
        before, conversation = previous.messages, conversation or previous.conversation
    turn = _Turn(server, tenant, body, before, conversation)
    return await server.answer(
        request, tenant, body.model, turn.plan, stream=bool(body.stream), events=turn.events, whole=turn.whole
    )


@router.get("/v1/responses/{response_id}", response_model=None)
async def get_response(request: Request, response_id: str) -> Response:
    """Return a response that was stored."""
    server = server_of(request)
    return JSONResponse((await server.responses.find(server.identify(request), response_id)).body)


@router.delete("/v1/responses/{response_id}", response_model=None)
async def delete_response(request: Request, response_id: str) -> Response:
    """Forget a response."""
    server = server_of(request)
    await server.responses.remove(server.identify(request), response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@dataclass(frozen=True)
class _Turn:
    """One request, and what it goes on from."""

    server: Server
    tenant: Tenant
    body: ResponsesRequest
    before: list[dict[str, Any]]
    conversation: str | None

    async def plan(self, model: LoadedModel) -> Call:
        """Return what the request makes of a model."""
        history, compared = await self.server.images.read(self.body.history(self.before), model)
        options = self.body.call_options(limit=self.server.settings.max_tokens)

        def start(cached_in: Mapping[str, Any]) -> AsyncChatStream:
            return model.llm.astream_chat(history, **cached_in, **options)

        return Call(Asked(self.tenant, self.conversation, compared, self.body.prompt_options()), [start])

    def whole(self, answers: Answers[Any, Any]) -> Response:
        """Return the response after the end of the answer."""
        found = ResponseAnswer(self.body, answers).whole()
        self._store(answers, found)
        return JSONResponse(found)

    async def events(self, answers: Answers[Any, Any]) -> AsyncIterator[bytes]:
        """Yield the events of the response."""
        response = ResponseAnswer(self.body, answers)
        try:
            yield b"".join(response.begin())
            async for _, delta in answers:
                yield b"".join(response.pieces(delta))
            last = b"".join(response.end())
            self._store(answers, response.whole())  # before the client can refer to it
            yield last
        except Exception as error:
            yield response.fail(error)

    def _store(self, answers: Answers[Any, Any], response: dict[str, Any]) -> None:
        if self.body.store is not False:
            messages = [*self.before, *self.body.messages(), answers.responses[0].message.to_dict()]
            self.server.responses.add(self.tenant, StoredResponse(response, messages, self.conversation))
