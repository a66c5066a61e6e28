"""Answers in the form of OpenAI's `/v1/responses`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

from cyllama import ChatDelta, ChatResponse, ToolCall, Usage

from .chat_answers import logprobs_of
from .errors import explain
from .events import event
from .generation import Answers
from .responses_request import ResponsesRequest
from .routing_key import ROUTING_KEY


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return how many tokens an answer took."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }


class ResponseAnswer:
    """The answer to an input, as a client gets it.

    Args:
        body: What was asked.
        answers: The answer.
    """

    def __init__(self, body: ResponsesRequest, answers: Answers[ChatDelta, ChatResponse]) -> None:
        self._answers = answers
        self._wants_logprobs = "logprobs" in body.call_options(limit=None)
        self._n_events = 0
        self._items: list[dict[str, Any]] = []
        self._open_call: int | None = None  # which call the last item is, while it grows
        self._is_open = False
        self._response: dict[str, Any] = {
            "id": f"resp_{ROUTING_KEY.get()}{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model or answers.model.name,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "store": body.store is not False,
            "temperature": body.temperature,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": None,
        }

    def whole(self) -> dict[str, Any]:
        """Return the whole response, after its end."""
        [response] = self._answers.responses
        message = response.message
        if not self._items:
            if message.reasoning_content:
                self._items.append(_reasoning(message.reasoning_content))
            if response.text or not message.tool_calls:
                self._items.append(_message(response.text))
            self._items += [_call(call) for call in message.tool_calls]
        if self._wants_logprobs:
            self._add_logprobs(response)
        is_cut = response.finish_reason in ("length", "cancelled")
        for item in self._items:
            item["status"] = "completed"
        if is_cut and self._items:
            self._items[-1]["status"] = "incomplete"
        return self._response | {
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": self._items,
            "usage": usage_of(response.usage),
        }

    def _add_logprobs(self, response: ChatResponse) -> None:
        is_end = self._answers.model.llm.model.vocab.is_eog
        for item in self._items:
            if item["type"] == "message":
                item["content"][0]["logprobs"] = logprobs_of(response.logprobs or (), is_end)

    # -------------------- events

    def _event(self, kind: str, **data: Any) -> bytes:
        body = {"type": kind, "sequence_number": self._n_events, **data}
        self._n_events += 1
        return event(body, kind)

    def begin(self) -> Iterator[bytes]:
        """Yield the events that a response begins with."""
        yield self._event("response.created", response=self._response)
        yield self._event("response.in_progress", response=self._response)

    def pieces(self, delta: ChatDelta) -> Iterator[bytes]:
        """Yield the events of a piece of the answer: items that begin, grow and end."""
        if delta.reasoning_content:
            yield from self._open(_reasoning(""))
            yield from self._grow("reasoning_text", delta.reasoning_content)
        if delta.content:
            yield from self._open(_message(""))
            yield from self._grow("output_text", delta.content)
        for call in delta.tool_calls:
            item = _call_item(call.id or "", call.function.name or "", "")
            yield from self._open(item, call.index)
            self._items[-1]["arguments"] += call.function.arguments
            yield self._event("response.function_call_arguments.delta", **self._place, delta=call.function.arguments)

    def end(self) -> Iterator[bytes]:
        """Yield the events that a response ends with."""
        [response] = self._answers.responses
        if not self._items:
            yield from self._open(_message(response.text))
        yield from self._close()
        whole = self.whole()
        yield self._event(f"response.{whole['status']}", response=whole)

    def fail(self, error: Exception) -> bytes:
        """Return the event of an error that came after the response had begun."""
        found = explain(error)
        reason = {"code": found.code or "server_error", "message": found.message}
        return self._event("response.failed", response=self._response | {"status": "failed", "error": reason})

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _open(self, item: dict[str, Any], call: int | None = None) -> Iterator[bytes]:
        """Begin an item, unless it is the one that grows."""
        if self._is_open and self._items[-1]["type"] == item["type"] and self._open_call == call:
            return
        yield from self._close()
        self._items.append(item)
        self._is_open, self._open_call = True, call
        shown = item | ({"content": []} if "content" in item else {})
        yield self._event("response.output_item.added", output_index=len(self._items) - 1, item=shown)
        if "content" in item:
            yield self._event("response.content_part.added", **self._place, content_index=0, part=item["content"][0])

    def _grow(self, kind: str, text: str) -> Iterator[bytes]:
        self._items[-1]["content"][0]["text"] += text
        more = {"logprobs": []} if kind == "output_text" else {}
        yield self._event(f"response.{kind}.delta", **self._place, content_index=0, delta=text, **more)

    def _close(self) -> Iterator[bytes]:
        if not self._is_open:
            return
        self._is_open = False
        item, place = self._items[-1], self._place
        item["status"] = "completed"
        if item["type"] == "function_call":
            yield self._event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=item["arguments"]
            )
        else:
            part = item["content"][0]
            more = {"logprobs": []} if part["type"] == "output_text" else {}
            yield self._event(f"response.{part['type']}.done", **place, content_index=0, text=part["text"], **more)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        yield self._event("response.output_item.done", output_index=place["output_index"], item=item)


def _message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"type": "message", "id": f"msg_{uuid.uuid4().hex}", "status": "in_progress", "role": "assistant"}
    return item | {"content": [part]}


def _reasoning(text: str) -> dict[str, Any]:
    part = {"type": "reasoning_text", "text": text}
    item = {"type": "reasoning", "id": f"rs_{uuid.uuid4().hex}", "status": "in_progress", "summary": []}
    return item | {"content": [part]}


def _call(call: ToolCall) -> dict[str, Any]:
    return _call_item(call.id, call.function.name, call.function.arguments)


def _call_item(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{uuid.uuid4().hex}",
        "status": "in_progress",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }
