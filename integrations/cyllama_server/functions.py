"""Functions, which OpenAI's API had before tools: requests with them as those with tools, and answers back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cyllama import ChatDelta, ToolCall

from .errors import ApiError


def as_tools(functions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return functions as tools.

    >>> as_tools([{"name": "clock"}])
    [{'type': 'function', 'function': {'name': 'clock'}}]
    """
    return [{"type": "function", "function": dict(function)} for function in functions]


def as_tool_choice(call: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Return which function is called as the choice of a tool.

    >>> as_tool_choice({"name": "clock"})
    {'type': 'function', 'function': {'name': 'clock'}}
    """
    return call if isinstance(call, str) else {"type": "function", "function": dict(call)}


def as_tool_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return messages in which calls of functions, and their results, are those of tools.

    >>> called = {"role": "assistant", "function_call": {"name": "clock", "arguments": "{}"}}
    >>> as_tool_messages([called])[0]["tool_calls"]
    [{'id': 'call_0', 'type': 'function', 'function': {'name': 'clock', 'arguments': '{}'}}]

    Raises:
        ApiError: There is a result of a function that was not called before.
    """
    return list(_converted(messages))


def _converted(messages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    called: dict[object, str] = {}  # the id of the last call of each function
    for i, message in enumerate(messages):
        call = message.get("function_call")
        if message.get("role") == "function":
            name = message.get("name")
            if not isinstance(name, str) or name not in called:
                message = f"messages.{i}: there is no call of a function {name!r:.80} before its result"
                raise ApiError(400, message, param="messages")
            yield {"role": "tool", "tool_call_id": called[name], "content": message.get("content")}
        elif message.get("role") == "assistant" and call is not None and not message.get("tool_calls"):
            made = {"id": f"call_{i}", "type": "function", "function": call}
            if isinstance(call, Mapping):
                called[call.get("name")] = made["id"]
            yield {key: value for key, value in message.items() if key != "function_call"} | {"tool_calls": [made]}
        else:
            yield dict(message)


def as_function_call(calls: Sequence[ToolCall]) -> dict[str, Any]:
    """Return the call of a message that may have one."""
    return {"name": calls[0].function.name, "arguments": calls[0].function.arguments}


def as_function_delta(delta: ChatDelta) -> dict[str, Any] | None:
    """Return what a piece of a message adds to the call of a function; `None` for nothing."""
    found = [call.function for call in delta.tool_calls if call.index == 0]
    if not found:
        return None
    names = [{"name": function.name} for function in found if function.name is not None]
    return (names[0] if names else {}) | {"arguments": "".join(function.arguments for function in found)}
