"""LangChain's messages as cyllama takes them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from cyllama import MessageError
from cyllama.callers import levels_to_the_program

from ._blocks import Part, call_of, read_block
from ._images import image_of
from .errors import UnreadableContentWarning

_ROLES = {"human": "user", "ai": "assistant", "function": "tool"}
_SAID = ("text", "words", "reasoning")
_SHOWN = 5  # places that a warning names
#: What a message contains: a text, or parts that are texts and images.
Content: TypeAlias = str | list[dict[str, Any]]


class _Reader:
    """Reads contents, and notes what cannot be read.

    Args:
        images: Whether the model reads images.

    Attributes:
        left_out: What was left out, and where it is.
    """

    def __init__(self, *, images: bool) -> None:
        self._images = images
        self.left_out: list[str] = []

    def read(self, content: Any, where: str, *, said: bool = False) -> list[Part]:
        """Return the parts of a content, without images if the model `said` it: those are not shown to it."""
        blocks = content if isinstance(content, (list, tuple)) else [content]
        parts = [self._part(block, f"the image in block {i} of {where}", said) for i, block in enumerate(blocks)]
        self.left_out += [f"{part.text} in {where}" for part in parts if part.kind == "unreadable"]
        return parts

    def _part(self, block: Any, name: str, said: bool) -> Part:
        image = image_of(block, name) if self._images and not said else None
        return read_block(block) if image is None else Part("image", image=image)


def to_cyllama(messages: Sequence[BaseMessage], *, images: bool = False) -> list[dict[str, Any]]:
    """Return messages as `cyllama.LLM.chat` takes them.

    Content blocks of other providers become text if they contain text or JSON, and images where the model reads them.
    Other blocks (audio, encrypted reasoning) are left out, with one `UnreadableContentWarning`.

    Args:
        messages: The whole history.
        images: Whether the model reads images.

    Returns:
        Dicts in OpenAI's format.

    Raises:
        MessageError: One of them is a command such as `RemoveMessage`, not a message, or an image is at an address.
        ImageError: An image cannot be read.
    """
    reader = _Reader(images=images)
    converted = [each for i, message in enumerate(messages) for each in _convert(message, f"message {i}", reader)]
    if left_out := reader.left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        kinds = "text and images" if images else "text"
        warnings.warn(
            f"left out of the prompt, since this model reads only {kinds}: {', '.join(left_out[:_SHOWN])}{more}. Put "
            "into words what they show",
            UnreadableContentWarning,
            stacklevel=levels_to_the_program() + 1,
        )
    return converted


def _convert(message: BaseMessage, where: str, reader: _Reader) -> Iterator[dict[str, Any]]:
    if isinstance(message, RemoveMessage):
        raise MessageError(
            f"{where} is a RemoveMessage, which tells a graph to forget the message {message.id!r}, and nothing that a "
            f"model can read: let the graph's state apply it (add_messages), and pass what is left"
        )
    said = isinstance(message, AIMessage)
    parts = [] if isinstance(message, HumanMessage) else reader.read(message.content, where, said=said)
    if isinstance(message, AIMessage):
        yield _assistant(message, parts)
    elif isinstance(message, HumanMessage):
        yield from _user(message, where, reader)
    elif isinstance(message, SystemMessage):
        yield _message(message.additional_kwargs.get("__openai_role__", "system"), message, _content(message, parts))
    elif isinstance(message, ToolMessage):
        content = _result(message, _content(message, parts))
        yield _message("tool", message, content, tool_call_id=message.tool_call_id)
    elif isinstance(message, FunctionMessage):
        yield _message("tool", message, _content(message, parts))
    elif isinstance(message, ChatMessage):
        yield _message(_ROLES.get(message.role, message.role), message, _content(message, parts))
    else:
        raise MessageError(f"{where} is a {type(message).__name__}, which is not one of LangChain's kinds of messages")


def _content(message: BaseMessage, parts: Sequence[Part]) -> Content:
    return message.content if isinstance(message.content, str) else _joined(parts)


def _joined(parts: Sequence[Part]) -> Content:
    """Return what can be read of parts as one content, with a part for each."""
    shown = [part for part in parts if part.kind in _SAID or part.kind == "image"]
    if any(part.kind == "image" for part in shown) or len(shown) > 1:
        return [_text(part.text) if part.image is None else {"type": "image", "image": part.image} for part in shown]
    return "".join(part.text for part in shown)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, message: BaseMessage, content: Content, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"role": role, "content": content}
    if message.name:
        result["name"] = message.name
    return result | {key: value for key, value in more.items() if value}


def _user(message: HumanMessage, where: str, reader: _Reader) -> Iterator[dict[str, Any]]:
    """Yield the tool results in a user's message, as Anthropic's and Amazon's formats have them, then the message."""
    rest: list[Any] = []
    for block in message.content if isinstance(message.content, list) else [message.content]:
        result = _result_in(block)
        if result is None:
            rest.append(block)
            continue
        yield {"role": "tool", "content": _joined(reader.read(result[1], where)), "tool_call_id": result[0]}
    if rest or not message.content:
        yield _message("user", message, _content(message, reader.read(rest, where)))


def _result_in(block: Any) -> tuple[str, Any] | None:
    """Return the id of a call and the content of its result, if a block is a tool result."""
    if not isinstance(block, Mapping):
        return None
    if block.get("type") == "tool_result":
        return str(block.get("tool_use_id") or ""), block.get("content") or ""
    inner = block.get("toolResult")
    return (str(inner.get("toolUseId") or ""), inner.get("content") or "") if isinstance(inner, Mapping) else None


def _result(message: ToolMessage, content: Content) -> Content:
    if message.status != "error" or "error" in json.dumps(content, default=str).lower():
        return content
    return f"Error: {content}" if isinstance(content, str) else [_text("Error:"), *content]


# ------------------------------------------------------------------------------------------------- what a model wrote


def _assistant(message: AIMessage, parts: Sequence[Part]) -> dict[str, Any]:
    result: dict[str, Any] = {"role": "assistant", "content": _said(parts) or _said_elsewhere(message)}
    if calls := list(_calls(message)):
        result["tool_calls"] = calls
    if reasoning := _reasoning(message, parts):
        result["reasoning_content"] = reasoning
    if message.name:
        result["name"] = message.name
    return result


def _said(parts: Sequence[Part]) -> str:
    """Return one text, as it was generated, so that a session reuses it. Descriptions get lines of their own."""
    said = [part for part in parts if part.kind in ("text", "words")]
    lines = [
        "\n" if i and "words" in (part.kind, said[i - 1].kind) and not said[i - 1].text.endswith("\n") else ""
        for i, part in enumerate(said)
    ]
    return "".join(line + part.text for line, part in zip(lines, said, strict=True))


def _said_elsewhere(message: AIMessage) -> str:
    """Return the text that OpenAI's API has outside of an empty content."""
    audio = message.additional_kwargs.get("audio")
    spoken = audio.get("transcript") if isinstance(audio, Mapping) else None
    return str(message.additional_kwargs.get("refusal") or spoken or "")


def _calls(message: AIMessage) -> Iterator[dict[str, Any]]:
    """Yield the tool calls of a message, in the format of any provider."""
    for call in message.tool_calls:
        yield _call(call["id"], call["name"], call["args"])
    for call in message.invalid_tool_calls:
        yield _call(call["id"], call["name"], call["args"] or "{}")
    if message.tool_calls or message.invalid_tool_calls:
        return
    for block in message.content if isinstance(message.content, list) else ():
        if isinstance(block, Mapping) and read_block(block).kind == "call":
            yield _call(*call_of(block))
    function = message.additional_kwargs.get("function_call")
    if isinstance(function, Mapping):
        yield _call(None, function.get("name"), function.get("arguments") or "{}")


def _call(call_id: str | None, name: Any, arguments: Any) -> dict[str, Any]:
    function = {"name": name or "unknown", "arguments": _as_object(arguments)}
    return {"id": call_id or "", "type": "function", "function": function}


def _as_object(arguments: Any) -> dict[str, Any]:
    """Return arguments as a dict, which templates need. Broken JSON is kept, so that the model sees what it wrote."""
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"invalid_arguments": arguments}


def _reasoning(message: AIMessage, parts: Sequence[Part]) -> str:
    given = message.additional_kwargs.get("reasoning_content")
    found = "".join(part.text for part in parts if part.kind == "reasoning")
    return found or (given if isinstance(given, str) else "")
