"""Answers in the form of Anthropic's API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from cyllama import ChatDelta, ChatResponse, Usage

from .errors import explain
from .events import event
from .generation import Answers
from .messages_request import MessagesRequest

_REASONS = {"stop": "end_turn", "length": "max_tokens", "cancelled": "max_tokens", "tool_calls": "tool_use"}


def error_event(error: Exception) -> bytes:
    """Return the event of an error that came after the response had begun."""
    return _event("error", error=explain(error).to_anthropic()["error"])


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return how many tokens an answer took; those that were cached are not counted as input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.completion_tokens,
    }


class MessageAnswer:
    """The answer to messages, as a client gets it.

    Args:
        body: What was asked.
        answers: The answer.
    """

    def __init__(self, body: MessagesRequest, answers: Answers[ChatDelta, ChatResponse]) -> None:
        self._answers = answers
        self._stops = [stop for stop in body.stop_sequences or () if stop]
        self._common = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": body.model or answers.model.name,
        }
        self._block: tuple[str, int] | None = None  # the kind of the block that is open, and which call it is
        self._index = -1

    def whole(self) -> dict[str, Any]:
        """Return the whole answer, after its end."""
        [response] = self._answers.responses
        message = response.message
        content: list[dict[str, Any]] = []
        if message.reasoning_content:
            content.append({"type": "thinking", "thinking": message.reasoning_content, "signature": ""})
        if response.text or not message.tool_calls:
            content.append({"type": "text", "text": response.text})
        for call in message.tool_calls:
            content.append({"type": "tool_use", "id": call.id, "name": call.function.name, "input": _input(call)})
        return {**self._common, "content": content, **self._end(response), "usage": usage_of(response.usage)}

    def _end(self, response: ChatResponse) -> dict[str, Any]:
        """Return why the answer ended."""
        stop = self._stop_sequence(response)
        return {
            "stop_reason": _REASONS[response.finish_reason] if stop is None else "stop_sequence",
            "stop_sequence": stop,
        }

    def _stop_sequence(self, response: ChatResponse) -> str | None:
        """Return the stop sequence that ended the answer: the text of its tokens goes on with that."""
        if response.finish_reason != "stop" or not response.logprobs:
            return None
        is_end = self._answers.model.llm.model.vocab.is_eog
        if is_end(response.logprobs[-1].token_id):
            return None
        text = b"".join(token.bytes for token in response.logprobs).decode("utf-8", "replace")
        found = [(text.rfind(stop), stop) for stop in self._stops if stop in text]
        return max(found)[1] if found else None

    # -------------------- events

    def begin(self) -> bytes:
        """Return the event that a message begins with. How long its prompt is, the last event says."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        message = {**self._common, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        return _event("message_start", message=message)

    def pieces(self, delta: ChatDelta) -> Iterator[bytes]:
        """Yield the events of a piece of the answer: blocks that begin, grow and end."""
        if delta.reasoning_content:
            yield from self._open("thinking", 0, {"type": "thinking", "thinking": "", "signature": ""})
            yield self._grow({"type": "thinking_delta", "thinking": delta.reasoning_content})
        if delta.content:
            yield from self._open("text", 0, {"type": "text", "text": ""})
            yield self._grow({"type": "text_delta", "text": delta.content})
        for call in delta.tool_calls:
            block = {"type": "tool_use", "id": call.id, "name": call.function.name, "input": {}}
            yield from self._open("tool_use", call.index, block)
            yield self._grow({"type": "input_json_delta", "partial_json": call.function.arguments})

    def end(self) -> Iterator[bytes]:
        """Yield the events that a message ends with."""
        [response] = self._answers.responses
        if self._index < 0:
            yield from self._open("text", 0, {"type": "text", "text": ""})
        yield from self._close()
        yield _event("message_delta", delta=self._end(response), usage=usage_of(response.usage))
        yield _event("message_stop")

    def _open(self, kind: str, call: int, block: dict[str, Any]) -> Iterator[bytes]:
        """Begin a block, unless it is open."""
        if self._block == (kind, call):
            return
        yield from self._close()
        self._block = (kind, call)
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _grow(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> Iterator[bytes]:
        if self._block is not None:
            self._block = None
            yield _event("content_block_stop", index=self._index)


def _input(call: Any) -> Any:
    """Return the arguments of a call; none where the answer was cut."""
    try:
        return json.loads(call.function.arguments or "{}")
    except ValueError:
        return {}


def _event(name: str, **data: Any) -> bytes:
    """Return an event of a type."""
    return event({"type": name, **data}, name)
