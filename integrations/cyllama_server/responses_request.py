"""Requests of OpenAI's `/v1/responses`, as chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cyllama.chat import ReasoningEffort

from .conversations import NamesConversation, stable_messages
from .errors import ApiError

_ITEMS = ("message", "function_call", "function_call_output", "reasoning")
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Reasoning(_Part):
    """How the model reasons."""

    effort: ReasoningEffort | None = None


class TextOptions(_Part):
    """What the text of an answer is."""

    format: dict[str, Any] | None = None


class ResponsesRequest(NamesConversation):
    """An input to answer, as OpenAI's API has it. Unknown fields are ignored."""

    input: str | list[dict[str, JsonValue]]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    background: bool | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    speculation: str | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None

    def messages(self) -> list[dict[str, Any]]:
        """Return the input as messages of a chat, without the instructions.

        Raises:
            ApiError: An item cannot be read.
        """
        if self.background:
            raise ApiError(
                400, "background: a response is made while its client waits: leave it out", param="background"
            )
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        found: list[dict[str, Any]] = []
        for i, item in enumerate(self.input):
            _add(found, item, f"input.{i}")
        return found

    def history(self, before: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return all messages that the model is given.

        Args:
            before: The messages of the previous response. Its instructions do not count any more.
        """
        first = [{"role": "system", "content": self.instructions}] if self.instructions else []
        return stable_messages([*first, *before, *self.messages()])

    def prompt_options(self) -> dict[str, Any]:
        """Return the options that change the prompt."""
        found: dict[str, Any] = {}
        if self.tools:
            found["tools"] = [_tool(tool, i) for i, tool in enumerate(self.tools)]
        if self.reasoning is not None and self.reasoning.effort is not None:
            found["reasoning_effort"] = self.reasoning.effort
        return found

    def call_options(self, *, limit: int | None) -> dict[str, Any]:
        """Return the options of the call that answers it.

        Args:
            limit: Most tokens of any answer.
        """
        found = self.prompt_options()
        wanted = (self.max_output_tokens, limit)
        found["max_tokens"] = min((each for each in wanted if each is not None), default=None)
        for name in ("temperature", "top_p", "speculation"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        found["parallel_tool_calls"] = self.parallel_tool_calls is not False
        if self.tool_choice is not None and (self.tools or self.tool_choice not in ("auto", "none")):
            found["tool_choice"] = self.tool_choice
        if "message.output_text.logprobs" in (self.include or ()) or self.top_logprobs:
            found["logprobs"] = self.top_logprobs or 0
        expected = None if self.text is None else self.text.format
        if expected is not None and expected.get("type") != "text":
            found["response_format"] = expected
        return found


def _tool(tool: dict[str, Any], index: int) -> dict[str, Any]:
    kind = tool.get("type", "function")
    if kind != "function":
        message = f"tools.{index}: a tool of type {kind!r:.40} would run at OpenAI: here, the type is 'function'"
        raise ApiError(400, message, param="tools")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if name in tool}}


def _add(found: list[dict[str, Any]], item: dict[str, JsonValue], where: str) -> None:
    """Add an item of the input to messages. What one answer consists of is one message in a chat."""
    kind = item.get("type", "message")
    if kind == "message":
        _add_message(found, item, where)
    elif kind == "function_call_output":
        content = _content(item.get("output"), where)
        found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        _answer(found).setdefault("tool_calls", []).append(call)
    elif kind == "reasoning":
        text = _text(item.get("content") or item.get("summary") or "", where)
        found.append({"role": "assistant", "content": "", "reasoning_content": text})
    else:
        message = f"{where}: an item of type {kind!r:.40} cannot be read here, but {', '.join(_ITEMS)}"
        raise ApiError(400, message, param="input")


def _add_message(found: list[dict[str, Any]], item: dict[str, JsonValue], where: str) -> None:
    content = _content(item.get("content"), where)
    last = found[-1] if found else {}
    if item.get("role") == "assistant" and last.get("role") == "assistant" and not last["content"]:
        last["content"] = content
    else:
        found.append({"role": item.get("role"), "content": content})


def _answer(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the assistant's message that a call belongs to."""
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": ""})
    return found[-1]


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return the content of a message: a text, or parts if there is an image among them."""
    if not isinstance(content, list) or not any(_is_image(part) for part in content):
        return _text(content, where)
    return [_image(part, where) if _is_image(part) else _text_part(part, where) for part in content]


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "input_image"


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part.get("file_id") is not None:
        message = f"{where}: files are not stored here: send the image as a data URL, image_url"
        raise ApiError(400, message, param="input")
    return {"type": "image_url", "image_url": {"url": part.get("image_url")}}


def _text_part(part: Any, where: str) -> dict[str, Any]:
    return {"type": "text", "text": _text([part], where)}


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, f"{where}: expected a text or parts, not {content!r:.80}", param="input")
    texts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _TEXTS or not isinstance(part.get("text"), str):
            message = f"{where}: a part of type {kind!r:.40} cannot be read here, but texts: {', '.join(_TEXTS)}"
            raise ApiError(400, message, param="input")
        texts.append(part["text"])
    return "\n".join(texts)
