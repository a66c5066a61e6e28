"""From responses and streams of :class:`LLM` to dicts in OpenAI's format."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from ..chat import ChatDelta, ChatResponse, Message
from ..chat_stream import ChatStream
from ..response import Response, TextChunk, Usage
from ..stream import Stream
from .logprobs import CompletionTokens, chat_logprobs
from .types import (
    ChatCompletionMessageToolCall,
    ChatCompletionResponseMessage,
    ChatCompletionStreamResponseChoice,
    CompletionUsage,
    CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse,
    CreateCompletionResponse,
)

_OF_DELTAS = ("role", "content", "function_call", "tool_calls")


class Writer:
    """What all dicts of one call have in common.

    Args:
        model: The name of the model that they give.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = f"cmpl-{uuid.uuid4()}"
        self._created = int(time.time())

    def completion(
        self, responses: Sequence[Response], *, prompt: str, n_prompt: int, echo: bool
    ) -> CreateCompletionResponse:
        """Return continuations of a prompt.

        Args:
            responses: The continuations.
            prompt: The text of the prompt.
            n_prompt: Characters before a continuation.
            echo: Whether a text begins with the prompt.
        """
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "text": (prompt if echo else "") + response.text,
                    "index": i,
                    "logprobs": CompletionTokens(n_prompt).of(response.text, response.logprobs),
                    "finish_reason": response.finish_reason,
                }
                for i, response in enumerate(responses)
            ],
            "usage": _usage([response.usage for response in responses]),
        }

    def completion_chunks(
        self, stream: Stream, *, prompt: str, n_prompt: int, echo: bool
    ) -> Iterator[CreateCompletionResponse]:
        """Yield the chunks of a continuation. The last one has the finish reason and the usage."""
        tokens = CompletionTokens(n_prompt)
        if echo:
            yield self._completion_chunk(prompt)
        with_logprobs = False
        for chunk in stream:
            with_logprobs = with_logprobs or bool(chunk.logprobs)
            if chunk:
                yield self._completion_chunk(chunk, tokens, with_logprobs=with_logprobs)
        last = self._completion_chunk("")
        last["choices"][0]["finish_reason"] = stream.response.finish_reason
        last["usage"] = _usage([stream.response.usage])
        yield last

    def _completion_chunk(
        self, text: TextChunk | str, tokens: CompletionTokens | None = None, *, with_logprobs: bool = False
    ) -> CreateCompletionResponse:
        known = text.logprobs if isinstance(text, TextChunk) and with_logprobs else None
        logprobs = None if tokens is None else tokens.of(text, known)
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"text": str(text), "index": 0, "logprobs": logprobs, "finish_reason": None}],
        }

    def chat(self, responses: Sequence[ChatResponse], ends: frozenset[int]) -> CreateChatCompletionResponse:
        """Return answers to a chat.

        Args:
            responses: The answers.
            ends: The ids of tokens that end a generation.
        """
        return {
            "id": f"chat{self._id}",
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {
                    "index": i,
                    "message": _message(response.message),
                    "logprobs": chat_logprobs(response.logprobs, ends),
                    "finish_reason": response.finish_reason,
                }
                for i, response in enumerate(responses)
            ],
            "usage": _usage([response.usage for response in responses]),
        }

    def chat_chunks(
        self, stream: ChatStream, ends: frozenset[int], *, of_tools: bool
    ) -> Iterator[CreateChatCompletionStreamResponse]:
        """Yield the chunks of an answer: first the role, then what is added, then the finish reason and the usage.

        Args:
            stream: The answer.
            ends: The ids of tokens that end a generation.
            of_tools: Whether tools may be called: then every delta has all keys.
        """
        absent: dict[str, Any] = dict.fromkeys(_OF_DELTAS) if of_tools else {}
        yield self._chat_chunk({**absent, "role": "assistant"})
        for delta in stream:
            added = _delta(delta)
            chunk = self._chat_chunk(absent | added, delta, ends)
            if added or (chunk["choices"][0]["logprobs"] or {}).get("content"):  # not of the end token alone
                yield chunk
        last = self._chat_chunk(absent)
        last["choices"][0]["finish_reason"] = stream.response.finish_reason
        last["usage"] = _usage([stream.response.usage])
        yield last

    def _chat_chunk(
        self, added: dict[str, Any], delta: ChatDelta | None = None, ends: frozenset[int] = frozenset()
    ) -> CreateChatCompletionStreamResponse:
        choice: ChatCompletionStreamResponseChoice = {
            "index": 0,
            "delta": added,
            "logprobs": chat_logprobs(delta.logprobs, ends) if delta is not None and delta.logprobs else None,
            "finish_reason": None,
        }
        return {
            "id": f"chat{self._id}",
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
        }


def _usage(usages: Sequence[Usage]) -> CompletionUsage:
    """Return the tokens of continuations of one prompt."""
    prompt = usages[0].prompt_tokens
    completion = sum(usage.completion_tokens for usage in usages)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _message(message: Message) -> ChatCompletionResponseMessage:
    calls: list[ChatCompletionMessageToolCall] = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in message.tool_calls
    ]
    result: ChatCompletionResponseMessage = {"role": "assistant", "content": message.content}
    if calls:
        result["content"] = message.content or None
        result["tool_calls"] = calls
        result["function_call"] = calls[0]["function"]  # their old form, which programs read too
    if message.reasoning_content:
        result["reasoning_content"] = message.reasoning_content
    return result


def _delta(delta: ChatDelta) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if delta.content:
        result["content"] = delta.content
    if delta.reasoning_content:
        result["reasoning_content"] = delta.reasoning_content
    if delta.tool_calls:
        result["tool_calls"] = [_call(piece) for piece in delta.tool_calls]
        if delta.tool_calls[0].index == 0:
            result["function_call"] = result["tool_calls"][0]["function"]
    return result


def _call(piece: Any) -> dict[str, Any]:
    """Return a piece of a call: its id and name are in the first one only."""
    function = {"name": piece.function.name, "arguments": piece.function.arguments}
    named = {} if piece.id is None else {"id": piece.id}
    return {"index": piece.index, **named, "type": "function", "function": function}
