"""`/v1/messages` and `/v1/messages/count_tokens`: Anthropic's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import AsyncChatStream

from .connection import read_body
from .conversations import conversation_of
from .generation import Answers
from .messages_answers import MessageAnswer, error_event
from .messages_request import CountRequest, MessagesRequest
from .models import LoadedModel
from .server import Call, Server, server_of
from .sessions import Asked
from .tenants import Tenant

router = APIRouter()


@router.post("/v1/messages", response_model=None)
async def messages(request: Request) -> Response:
    """Answer messages, as Anthropic's API does."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, MessagesRequest)
    conversation = conversation_of(body, request.headers) or body.session_of_agent

    return await server.answer(
        request,
        tenant,
        body.model,
        partial(_plan, server, body, tenant, conversation),
        stream=bool(body.stream),
        events=partial(_events, body),
        whole=partial(_whole, body),
    )


@router.post("/v1/messages/count_tokens", response_model=None)
async def count_tokens(request: Request) -> Response:
    """Return how many tokens the prompt of some messages has."""
    server = server_of(request)
    server.identify(request)
    body = await read_body(request, CountRequest)
    async with server.models.keep_loaded(body.model) as model:
        options: dict[str, Any] = body.prompt_options()
        read = await server.images.read(body.history, model)
        n_tokens = await asyncio.to_thread(model.llm.count_tokens, read.messages, **options)
    return JSONResponse({"input_tokens": n_tokens})


async def _plan(
    server: Server, body: MessagesRequest, tenant: Tenant, conversation: str | None, model: LoadedModel
) -> Call:
    options = body.call_options(limit=server.settings.max_tokens)
    history, compared = await server.images.read(body.history, model)

    def start(cached_in: Mapping[str, Any]) -> AsyncChatStream:
        return model.llm.astream_chat(history, **cached_in, **options)

    return Call(Asked(tenant, conversation, compared, body.prompt_options()), [start])


def _whole(body: MessagesRequest, answers: Answers[Any, Any]) -> Response:
    return JSONResponse(MessageAnswer(body, answers).whole())


async def _events(body: MessagesRequest, answers: Answers[Any, Any]) -> AsyncIterator[bytes]:
    message = MessageAnswer(body, answers)
    try:
        yield message.begin()
        async for _, delta in answers:
            yield b"".join(message.pieces(delta))
        yield b"".join(message.end())
    except Exception as error:
        yield error_event(error)
