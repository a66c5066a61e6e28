"""LangChain's messages as cyllama takes them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from .errors import UnreadableContentWarning

_ROLES = {"human": "user", "ai": "assistant", "function": "tool"}
_SAID = ("text", "words", "reasoning")
_SHOWN = 5  # places that a warning names


def to_cyllama(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as `cyllama.LLM.chat` takes them.

    Content blocks of other providers become text if they contain text or JSON. Other blocks (images, audio, encrypted
    reasoning) are left out, with one `UnreadableContentWarning`.

    Args:
        messages: The whole history.

    Returns:
        Dicts in OpenAI's format.

    Raises:
        MessageError: One of them is a command such as `RemoveMessage`, not a message.
    """
    left_out: list[str] = []
    converted = [each for i, message in enumerate(messages) for each in _convert(message, f"message {i}", left_out)]
    if left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        warnings.warn(
            f"left out of the prompt, since this model reads only text: {', '.join(left_out[:_SHOWN])}{more}. Put into "
            "words what they show",
            UnreadableContentWarning,
            stacklevel=levels_to_the_program() + 1,
        )
    return converted


def _convert(message: BaseMessage, where: str, left_out: list[str]) -> Iterator[dict[str, Any]]:
    if isinstance(message, RemoveMessage):
        raise MessageError(
            f"{where} is a RemoveMessage, which tells a graph to forget the message {message.id!r}, and nothing that a "
            f"model can read: let the graph's state apply it (add_messages), and pass what is left"
        )
    parts = [] if isinstance(message, HumanMessage) else _read(message.content, where, left_out)
    if isinstance(message, AIMessage):
        yield _assistant(message, parts)
    elif isinstance(message, HumanMessage):
        yield from _user(message, where, left_out)
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


def _read(content: Any, where: str, left_out: list[str]) -> list[Part]:
    """Return the parts of a content. The unreadable ones are added to `left_out`."""
    blocks = content if isinstance(content, (list, tuple)) else [content]
    parts = [read_block(block) for block in blocks]
    left_out += [f"{part.text} in {where}" for part in parts if part.kind == "unreadable"]
    return parts


def _content(message: BaseMessage, parts: Sequence[Part]) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    return _joined([part.text for part in parts if part.kind in _SAID])


def _joined(texts: Sequence[str]) -> str | list[dict[str, str]]:
    """Return texts as one content, with a part for each."""
    return "".join(texts) if len(texts) < 2 else [_text(text) for text in texts]


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _message(role: str, message: BaseMessage, content: str | list[dict[str, str]], **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"role": role, "content": content}
    if message.name:
        result["name"] = message.name
    return result | {key: value for key, value in more.items() if value}


def _user(message: HumanMessage, where: str, left_out: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the tool results in a user's message, as Anthropic's and Amazon's formats have them, then the message."""
    rest: list[Any] = []
    for block in message.content if isinstance(message.content, list) else [message.content]:
        result = _result_in(block)
        if result is None:
            rest.append(block)
            continue
        texts = [part.text for part in _read(result[1], where, left_out) if part.kind in _SAID]
        yield {"role": "tool", "content": _joined(texts), "tool_call_id": result[0]}
    if rest or not message.content:
        yield _message("user", message, _content(message, _read(rest, where, left_out)))


def _result_in(block: Any) -> tuple[str, Any] | None:
    """Return the id of a call and the content of its result, if a block is a tool result."""
    if not isinstance(block, Mapping):
        return None
    if block.get("type") == "tool_result":
        return str(block.get("tool_use_id") or ""), block.get("content") or ""
    inner = block.get("toolResult")
    return (str(inner.get("toolUseId") or ""), inner.get("content") or "") if isinstance(inner, Mapping) else None


def _result(message: ToolMessage, content: str | list[dict[str, str]]) -> str | list[dict[str, str]]:
    if message.status != "error" or "error" in json.dumps(content).lower():
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
