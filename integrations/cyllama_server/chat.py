"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import AsyncChatStream

from .chat_answers import Chat, error_event, event
from .chat_request import ChatRequest
from .connection import read_body
from .conversations import conversation_of
from .generation import Answers
from .models import LoadedModel
from .server import Call, server_of
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
        partial(_plan, body, tenant, conversation, limit=server.settings.max_tokens),
        stream=bool(body.stream),
        events=partial(_events, body),
        whole=partial(_whole, body),
    )


def _plan(
    body: ChatRequest, tenant: Tenant, conversation: str | None, model: LoadedModel, *, limit: int | None
) -> Call:
    llm, messages = model.llm, body.history
    options = body.call_options(llm, limit=limit)
    asked = Asked(tenant, conversation, messages, body.prompt_options())

    def start(index: int, session: str | None) -> AsyncChatStream:
        seed = options.get("seed")
        each = options if not index or seed is None else options | {"seed": seed + index}
        return llm.astream_chat(messages, session=session, **each)

    return Call(asked, [partial(start, i) for i in range(body.n or 1)])


def _whole(body: ChatRequest, answers: Answers[Any, Any]) -> Response:
    return JSONResponse(Chat(body, answers).completion())


async def _events(body: ChatRequest, answers: Answers[Any, Any]) -> AsyncIterator[bytes]:
    chat = Chat(body, answers)
    try:
        for i in range(body.n or 1):
            yield event(chat.chunk(i, {"role": "assistant", "content": ""}))
        async for index, delta in answers:
            yield event(chat.chunk(index, chat.delta(delta), delta.logprobs))
        for index, response in enumerate(answers.responses):
            yield event(chat.last_chunk(index, response))
        if body.stream_options is not None and body.stream_options.include_usage:
            yield event(chat.usage_chunk())
    except Exception as error:
        yield error_event(error)
        return
    yield event(None)
