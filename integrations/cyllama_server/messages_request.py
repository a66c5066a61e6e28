"""Requests of Anthropic's `/v1/messages`, as chats."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from .conversations import NamesConversation, stable_messages
from .errors import ApiError

_SESSION = re.compile(r'session_(?:id"\s*:\s*")?([0-9A-Za-z-]{8,64})')
"""A session in `metadata.user_id`, where agents put one besides a person: `user_..._session_<id>`, or JSON."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class ToolChoice(_Part):
    """Whether and what the model has to call."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(_Part):
    """Whether the model reasons before it answers, and how long."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=0)


class MessageParam(_Part):
    """A message of the history."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, JsonValue]]


class CountRequest(NamesConversation):
    """Messages whose tokens are counted."""

    messages: list[MessageParam] = Field(min_length=1)
    model: str | None = None
    system: str | list[dict[str, JsonValue]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    metadata: dict[str, Any] | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The messages in OpenAI's form, without what differs in every request.

        Raises:
            ApiError: A block of their content cannot be read.
        """
        found: list[dict[str, Any]] = []
        if self.system:
            found.append({"role": "system", "content": _text(self.system, "system")})
        for i, message in enumerate(self.messages):
            found += _converted(message, f"messages.{i}.content")
        return stable_messages(found)

    def prompt_options(self) -> dict[str, Any]:
        """Return the options that change the prompt."""
        found: dict[str, Any] = {}
        if self.tools:
            found["tools"] = [_tool(tool, i) for i, tool in enumerate(self.tools)]
        if self.thinking is None or self.thinking.type == "disabled":
            found["enable_thinking"] = False
        elif self.thinking.type == "enabled":
            found["enable_thinking"] = True
        return found

    @property
    def session_of_agent(self) -> str | None:
        """The session that an agent names in the metadata."""
        metadata = self.metadata or {}
        for name in ("session_id", "conversation_id"):
            if isinstance(metadata.get(name), str):
                return metadata[name]
        found = _SESSION.search(str(metadata.get("user_id") or ""))
        return None if found is None else found[1]


class MessagesRequest(CountRequest):
    """Messages to answer, as Anthropic's API has them. Unknown fields are ignored."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    stop_sequences: list[str] | None = Field(None, max_length=64)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = None
    top_k: int | None = None
    speculation: str | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None

    def call_options(self, *, limit: int | None) -> dict[str, Any]:
        """Return the options of the call that answers it.

        Args:
            limit: Most tokens of any answer.
        """
        found = self.prompt_options()
        found["max_tokens"] = self.max_tokens if limit is None else min(limit, self.max_tokens)
        for name in ("temperature", "top_p", "top_k", "speculation"):
            if (value := getattr(self, name)) is not None:
                found[name] = value
        if self.thinking is not None and self.thinking.budget_tokens is not None:
            found["reasoning_budget"] = self.thinking.budget_tokens
        if stops := [stop for stop in self.stop_sequences or () if stop]:
            found |= {"stop_sequences": stops, "logprobs": 0}  # the tokens tell which sequence ended the answer
        choice = self.tool_choice
        found["parallel_tool_calls"] = choice is None or not choice.disable_parallel_tool_use
        if choice is not None and (self.tools or choice.type in ("any", "tool")):
            found["tool_choice"] = _choice(choice)
        if (expected := self._format()) is not None:
            found["response_format"] = expected
        return found

    def _format(self) -> dict[str, Any] | None:
        expected = self.output_format or (self.output_config or {}).get("format")
        if expected is None:
            return None
        if not isinstance(expected, dict) or not isinstance(expected.get("schema"), dict):
            raise ApiError(400, f"output_config.format: expected a type and a schema, not {expected!r:.80}")
        return expected["schema"]


def _choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.type != "tool":
        return choice.type
    return {"type": "function", "function": {"name": choice.name or ""}}


def _tool(tool: dict[str, Any], index: int) -> dict[str, Any]:
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        kind = tool.get("type")
        raise ApiError(
            400,
            f"tools.{index}: expected an input_schema; a tool of type {kind!r:.40} would run at Anthropic"
            if kind not in (None, "custom")
            else f"tools.{index}.input_schema: expected an object, not {schema!r:.80}",
        )
    function = {"name": tool.get("name"), "description": tool.get("description"), "parameters": schema}
    return {"type": "function", "function": function | {"strict": tool.get("strict") is True}}


def _converted(message: MessageParam, where: str) -> list[dict[str, Any]]:
    """Return a message in OpenAI's form; results of tools are messages of their own there."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if message.role == "assistant":
        return [_assistant(message.content, where)]
    results = [
        {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _result(block, f"{where}.{i}")}
        for i, block in enumerate(message.content)
        if block.get("type") == "tool_result"
    ]
    others = [block for block in message.content if block.get("type") != "tool_result"]
    if not others and results:
        return results
    return [*results, {"role": message.role, "content": _content(others, where)}]


def _assistant(blocks: list[dict[str, JsonValue]], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"role": "assistant", "content": ""}
    for i, block in enumerate(blocks):
        kind = block.get("type")
        if kind == "text":
            found["content"] += _text([block], f"{where}.{i}")
        elif kind == "thinking":
            found["reasoning_content"] = found.get("reasoning_content", "") + str(block.get("thinking") or "")
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": block.get("input") or {}}
            found.setdefault("tool_calls", []).append({"id": block.get("id"), "type": "function", "function": function})
        elif kind != "redacted_thinking":
            raise _unreadable(kind, f"{where}.{i}")
    return found


def _result(block: dict[str, JsonValue], where: str) -> str | list[dict[str, Any]]:
    content = block.get("content")
    found = "" if content is None else _content(content, f"{where}.content")
    if block.get("is_error") is not True:
        return found
    return f"Error: {found}" if isinstance(found, str) else [{"type": "text", "text": "Error:"}, *found]


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return some content in OpenAI's form: a text, or parts if there is an image among the blocks."""
    if not isinstance(content, list) or not any(_is_image(block) for block in content):
        return _text(content, where)
    return [
        _image(block, f"{where}.{i}") if _is_image(block) else {"type": "text", "text": _text([block], f"{where}.{i}")}
        for i, block in enumerate(content)
    ]


def _is_image(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "image"


def _image(block: dict[str, Any], where: str) -> dict[str, Any]:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if not isinstance(source, dict) or kind != "base64":
        reason = "no address is fetched" if kind == "url" else "expected base64"
        raise ApiError(
            400,
            f"{where}.source: a source of type {kind!r:.40} cannot be read here, {reason}: send the image as "
            '{"type": "base64", "media_type": "image/png", "data": ...}',
            code="invalid_image",
        )
    media, data = source.get("media_type"), source.get("data")
    if not isinstance(media, str) or not isinstance(data, str):
        raise ApiError(400, f"{where}.source: expected media_type and data, two texts", code="invalid_image")
    return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}


def _text(content: Any, where: str) -> str:
    """Return the text of some content; several blocks are lines."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ApiError(400, f"{where}: expected a text or blocks, not {content!r:.80}")
    texts: list[str] = []
    for i, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind != "text" or not isinstance(block.get("text"), str):
            raise _unreadable(kind, f"{where}.{i}")
        texts.append(block["text"])
    return "\n".join(texts)


def _unreadable(kind: Any, where: str) -> ApiError:
    return ApiError(400, f"{where}: a block of type {kind!r:.40} cannot be read here: send its content as a text")
