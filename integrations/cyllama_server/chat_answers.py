"""Answers to chats, in the form of OpenAI's API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from cyllama import ChatDelta, ChatResponse, Timings, TokenLogprob, Usage, __version__

from .chat_request import ChatRequest
from .errors import explain
from .events import TextEvent, event
from .functions import as_function_call, as_function_delta
from .generation import Answers

FINGERPRINT = f"cyllama-{__version__}"


def error_event(error: Exception) -> bytes:
    """Return the event of an error that came after the response had begun."""
    return event(explain(error).to_openai())


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return how many tokens answers took."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def timings_of(usage: Usage, timings: Timings) -> dict[str, Any]:
    """Return how long an answer took, as llama-server says it."""
    return {
        "cache_n": usage.cached_tokens,
        "prompt_n": usage.prompt_tokens - usage.cached_tokens,
        "prompt_ms": timings.prompt * 1000,
        "predicted_n": usage.completion_tokens,
        "predicted_ms": timings.generation * 1000,
        "queued_ms": timings.queued * 1000,
        "draft_n": timings.tokens_drafted,
        "draft_n_accepted": timings.tokens_accepted,
    }


def finish_reason_of(response: ChatResponse) -> str:
    """Return why an answer ended; one that took too long is as one that had too many tokens."""
    return "length" if response.finish_reason == "cancelled" else response.finish_reason


class Chat:
    """The answers to a chat, as a client gets them.

    Args:
        body: What was asked.
        answers: The answers.
    """

    def __init__(self, body: ChatRequest, answers: Answers[ChatDelta, ChatResponse]) -> None:
        self._answers = answers
        self._is_end = answers.model.llm.model.vocab.is_eog
        self._wants_logprobs = bool(body.logprobs or body.n_probs)
        self._has_functions = bool(body.functions)
        self._common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model or answers.model.name,
            "system_fingerprint": FINGERPRINT,
        }
        self._text_events: dict[int, TextEvent] = {}

    def completion(self) -> dict[str, Any]:
        """Return all answers, after their end."""
        responses = self._answers.responses
        return {
            **self._common,
            "object": "chat.completion",
            "choices": [self._choice(i, response) for i, response in enumerate(responses)],
            "usage": usage_of(self._answers.usage),
            "timings": timings_of(self._answers.usage, self._answers.timings),
        }

    def _choice(self, index: int, response: ChatResponse) -> dict[str, Any]:
        message = response.message
        result: dict[str, Any] = {"role": "assistant", "content": response.text or None, "refusal": None}
        if message.tool_calls and self._has_functions:
            result["function_call"] = as_function_call(message.tool_calls)
        elif message.tool_calls:
            result["tool_calls"] = [call.model_dump() for call in message.tool_calls]
        else:
            result["content"] = response.text
        if message.reasoning_content:
            result["reasoning_content"] = message.reasoning_content
        return {
            "index": index,
            "message": result,
            "finish_reason": self._finish_reason(response),
            "logprobs": self._logprobs(response.logprobs or ()),
        }

    def first_event(self, index: int) -> bytes:
        """Return the event that an answer begins with."""
        return event(self._chunk(index, {"role": "assistant", "content": ""}))

    def event(self, index: int, delta: ChatDelta) -> bytes:
        """Return the event of a piece of an answer."""
        if delta.reasoning_content or delta.tool_calls or delta.logprobs:
            return event(self._chunk(index, self._delta(delta), delta.logprobs))
        if index not in self._text_events:
            self._text_events[index] = TextEvent(lambda text: self._chunk(index, {"content": text}))
        return self._text_events[index](delta.content)

    def last_events(self, *, with_usage: bool) -> bytes:
        """Return the events that say why the answers ended, the one of their tokens, and the end of the stream."""
        chunks = [self._last_chunk(index, response) for index, response in enumerate(self._answers.responses)]
        return b"".join(map(event, [*chunks, *([self._usage_chunk()] if with_usage else []), None]))

    def _chunk(self, index: int, delta: dict[str, Any], logprobs: Sequence[TokenLogprob] = ()) -> dict[str, Any]:
        """Return the chunk of a piece of an answer."""
        choice = {"index": index, "delta": delta, "finish_reason": None}
        if logprobs:
            choice["logprobs"] = self._logprobs(logprobs)
        return {**self._common, "object": "chat.completion.chunk", "choices": [choice]}

    def _delta(self, delta: ChatDelta) -> dict[str, Any]:
        """Return a piece of a message."""
        found: dict[str, Any] = {}
        if delta.reasoning_content:
            found["reasoning_content"] = delta.reasoning_content
        if delta.content:
            found["content"] = delta.content
        if self._has_functions:
            if (call := as_function_delta(delta)) is not None:
                found["function_call"] = call
        elif delta.tool_calls:
            found["tool_calls"] = [_call_delta(call) for call in delta.tool_calls]
        return found

    def _last_chunk(self, index: int, response: ChatResponse) -> dict[str, Any]:
        """Return the chunk that says why an answer ended."""
        chunk = self._chunk(index, {})
        chunk["choices"][0]["finish_reason"] = self._finish_reason(response)
        return chunk

    def _finish_reason(self, response: ChatResponse) -> str:
        reason = finish_reason_of(response)
        return "function_call" if reason == "tool_calls" and self._has_functions else reason

    def _usage_chunk(self) -> dict[str, Any]:
        """Return the chunk that says how many tokens all answers took."""
        usage, timings = self._answers.usage, self._answers.timings
        return {
            **self._common,
            "object": "chat.completion.chunk",
            "choices": [],
            "usage": usage_of(usage),
            "timings": timings_of(usage, timings),
        }

    def _logprobs(self, logprobs: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        return {"content": logprobs_of(logprobs, self._is_end)} if self._wants_logprobs else None


def logprobs_of(logprobs: Sequence[TokenLogprob], is_end: Callable[[int], bool]) -> list[dict[str, Any]]:
    """Return the log probabilities of tokens, without those that end an answer and have no text."""
    kept = [each for each in logprobs if not is_end(each.token_id)]
    return [_logprob(each) | {"top_logprobs": list(map(_logprob, each.top))} for each in kept]


def _call_delta(call: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": call.function.arguments}
    if call.function.name is not None:
        function["name"] = call.function.name
    found: dict[str, Any] = {"index": call.index, "function": function}
    if call.id is not None:
        found |= {"id": call.id, "type": "function"}
    return found


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": max(token.logprob, -9999.0), "bytes": list(token.bytes)}
