"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import AsyncChatStream

from .chat_answers import Chat, error_event
from .chat_request import ChatRequest
from .connection import read_body
from .conversations import conversation_of
from .generation import Answers
from .models import LoadedModel
from .server import Call, Server, server_of
from .sessions import Asked
from .tenants import Tenant

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(request: Request) -> Response:
    """Answer a chat, as OpenAI's API does."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, ChatRequest)
    conversation = conversation_of(body, request.headers)

    return await server.answer(
        request,
        tenant,
        body.model,
        partial(_plan, server, body, tenant, conversation),
        stream=bool(body.stream),
        events=partial(_events, body),
        whole=partial(_whole, body),
    )


async def _plan(
    server: Server, body: ChatRequest, tenant: Tenant, conversation: str | None, model: LoadedModel
) -> Call:
    llm = model.llm
    options = body.call_options(llm, limit=server.settings.max_tokens)
    messages, compared = await server.images.read(body.history, model)
    asked = Asked(tenant, conversation, compared, body.prompt_options())

    def start(index: int, cached_in: Mapping[str, Any]) -> AsyncChatStream:
        seed = options.get("seed")
        each = options if not index or seed is None else options | {"seed": seed + index}
        return llm.astream_chat(messages, **cached_in, **each)

    return Call(asked, [partial(start, i) for i in range(body.n or 1)])


def _whole(body: ChatRequest, answers: Answers[Any, Any]) -> Response:
    return JSONResponse(Chat(body, answers).completion())


async def _events(body: ChatRequest, answers: Answers[Any, Any]) -> AsyncIterator[bytes]:
    chat = Chat(body, answers)
    try:
        yield b"".join(map(chat.first_event, range(body.n or 1)))
        async for index, delta in answers:
            yield chat.event(index, delta)
        yield chat.last_events(with_usage=body.stream_options is not None and bool(body.stream_options.include_usage))
    except Exception as error:
        yield error_event(error)
