"""`/v1/completions`: texts that go on."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import AsyncStream, TokenLogprob
from cyllama import Response as TextResponse

from .chat_answers import FINGERPRINT, error_event, timings_of, usage_of
from .chat_request import MOST_CHOICES, StreamOptions
from .connection import read_body
from .conversations import NamesConversation, conversation_of
from .errors import ApiError
from .events import TextEvent, event
from .generation import Answers
from .models import LoadedModel
from .sampling import Sampling
from .server import Call, server_of
from .sessions import Asked
from .tenants import Tenant

router = APIRouter()


class CompletionRequest(Sampling, NamesConversation):
    """A text to continue, as OpenAI's API has it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    prompt: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(None, ge=0, le=20)
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several."""
        given = self.prompt
        single = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        found: list[Any] = [given] if single else list(given)
        n_answers = len(found) * (self.n or 1)
        if not 1 <= n_answers <= MOST_CHOICES:
            message = f"prompt: expected 1 to {MOST_CHOICES} answers in all, of each prompt n, not {n_answers}"
            raise ApiError(400, message, param="prompt")
        return found

    def check(self) -> None:
        """Refuse what would change the answer, and is not possible."""
        if self.suffix:
            raise ApiError(400, "suffix: text before a suffix cannot be generated: leave it out", param="suffix")
        if self.best_of not in (None, 1, self.n):
            raise ApiError(400, f"best_of: expected the value of n, {self.n or 1}, not {self.best_of}", param="best_of")


@router.post("/v1/completions", response_model=None)
async def completions(request: Request) -> Response:
    """Continue texts, as OpenAI's API does."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, CompletionRequest)
    body.check()
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


async def _plan(
    body: CompletionRequest, tenant: Tenant, conversation: str | None, model: LoadedModel, *, limit: int | None
) -> Call:
    llm = model.llm
    options = body.options(llm, limit=limit)
    if body.max_tokens is body.n_predict is body.max_completion_tokens is None:
        options["max_tokens"] = 16  # as OpenAI's API has it
    expected = body.response_format or body.json_schema
    options |= {"logprobs": body.logprobs, "grammar": body.grammar or None, "response_format": expected}
    prompts = [prompt for prompt in body.prompts for _ in range(body.n or 1)]
    first = prompts[0] if isinstance(prompts[0], str) else llm.detokenize(prompts[0])

    def start(index: int, cached_in: Mapping[str, Any]) -> AsyncStream:
        seed = options.get("seed")
        each = options if seed is None else options | {"seed": seed + index % (body.n or 1)}
        return llm.astream(prompts[index], **cached_in, **each)

    return Call(Asked(tenant, conversation, first, {}), [partial(start, i) for i in range(len(prompts))])


def _whole(body: CompletionRequest, answers: Answers[Any, Any]) -> Response:
    usage = usage_of(answers.usage)
    if len(body.prompts) > 1:  # each prompt counts once
        firsts = answers.responses[:: body.n or 1]
        usage["prompt_tokens"] = sum(response.usage.prompt_tokens for response in firsts)
        usage["prompt_tokens_details"] = {"cached_tokens": sum(response.usage.cached_tokens for response in firsts)}
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]
    choices = [_choice(body, answers, i, response) for i, response in enumerate(answers.responses)]
    timings = timings_of(answers.usage, answers.timings)
    return JSONResponse({**_common(body, answers), "choices": choices, "usage": usage, "timings": timings})


async def _events(body: CompletionRequest, answers: Answers[Any, Any]) -> AsyncIterator[bytes]:
    common = _common(body, answers)

    def chunk_of(index: int, text: str, logprobs: Any = None, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**common, "choices": [choice]}

    text_events = [TextEvent(partial(chunk_of, i)) for i in range(len(body.prompts) * (body.n or 1))]
    try:
        async for index, chunk in answers:
            if body.logprobs is None:
                yield text_events[index](chunk)
            else:
                yield event(chunk_of(index, chunk, _logprobs(answers, chunk.logprobs)))
        last = [chunk_of(i, "", None, _finish_reason(response)) for i, response in enumerate(answers.responses)]
        if body.stream_options is not None and body.stream_options.include_usage:
            last.append({**common, "choices": [], "usage": usage_of(answers.usage)})
        yield b"".join(map(event, [*last, None]))
    except Exception as error:
        yield error_event(error)


def _common(body: CompletionRequest, answers: Answers[Any, Any]) -> dict[str, Any]:
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model or answers.model.name,
        "system_fingerprint": FINGERPRINT,
    }


def _choice(body: CompletionRequest, answers: Answers[Any, Any], index: int, response: TextResponse) -> dict[str, Any]:
    text = response.text
    if body.echo:
        prompt = body.prompts[index // (body.n or 1)]
        text = (prompt if isinstance(prompt, str) else answers.model.llm.detokenize(prompt)) + text
    logprobs = None if response.logprobs is None else _logprobs(answers, response.logprobs)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": _finish_reason(response)}


def _finish_reason(response: TextResponse) -> str:
    return "length" if response.finish_reason == "cancelled" else response.finish_reason


def _logprobs(answers: Answers[Any, Any], logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log probabilities in the form of this API, which is older than that of chats."""
    is_end = answers.model.llm.model.vocab.is_eog
    kept = [each for each in logprobs if not is_end(each.token_id)]
    offsets = [0]
    for each in kept:
        offsets.append(offsets[-1] + len(each.token))
    return {
        "tokens": [each.token for each in kept],
        "token_logprobs": [max(each.logprob, -9999.0) for each in kept],
        "top_logprobs": [{top.token: max(top.logprob, -9999.0) for top in each.top} for each in kept],
        "text_offset": offsets[:-1],
    }
