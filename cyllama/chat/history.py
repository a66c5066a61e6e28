"""Past calls, their results and the text beside them, so that a template loses nothing of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Messages = Sequence[dict[str, Any]]


def order_results(messages: Messages) -> list[dict[str, Any]]:
    """Return messages with the results of one answer's calls in the order of the calls.

    Templates without ids match results by their order.
    """
    result = list(messages)
    order: dict[str, int] = {}
    i = 0
    while i < len(result):
        if result[i]["role"] == "assistant":
            order = {call["id"]: n for n, call in enumerate(result[i].get("tool_calls", ()))}
        end = i
        while end < len(result) and result[end]["role"] == "tool":
            end += 1
        if end > i:
            result[i:end] = sorted(result[i:end], key=lambda message: order.get(message.get("tool_call_id", ""), 0))
        i = max(end, i + 1)
    return result


def one_call_each(messages: Messages) -> list[dict[str, Any]]:
    """Return messages in which an answer makes one call only, for templates that do not accept more."""
    result: list[dict[str, Any]] = []
    i = 0
    while i < len(messages):
        calls = messages[i].get("tool_calls", ())
        end = i + 1
        while end < len(messages) and messages[end]["role"] == "tool":
            end += 1
        if len(calls) < 2:
            result += messages[i:end]
        for n, call in enumerate(calls if len(calls) > 1 else ()):
            first = messages[i] if n == 0 else {"role": "assistant", "content": ""}
            result.append(first | {"tool_calls": [call]})
            result += [message for message in messages[i + 1 : end] if message.get("tool_call_id") == call["id"]]
        i = end
    return result


def lost_texts(messages: Messages, prompt: str) -> int:
    """Return how many texts that stand beside a call or beside reasoning are missing in a prompt."""
    return sum(text not in prompt for message in messages for text in _texts_beside(message))


def alternatives(messages: Messages) -> Iterator[list[dict[str, Any]]]:
    """Yield other ways to write a history whose texts a template loses beside calls or reasoning."""
    without = [
        {key: value for key, value in message.items() if key != "reasoning_content"}
        if any(_texts_beside(message))
        else message
        for message in messages
    ]
    split = [part for message in messages for part in _split(message)]
    for other in (without, split, [part for message in without for part in _split(message)]):
        if other != list(messages):
            yield other


def _texts_beside(message: dict[str, Any]) -> Iterator[str]:
    if message["role"] == "assistant" and (message.get("tool_calls") or message.get("reasoning_content")):
        content = message.get("content") or ""
        for text in [content] if isinstance(content, str) else [part["text"] for part in content]:
            if text.strip():
                yield text.strip()


def _split(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the text of a message and its calls as two messages."""
    if not message.get("tool_calls") or not any(_texts_beside(message)):
        return [message]
    text = {key: value for key, value in message.items() if key != "tool_calls"}
    calls = {key: value for key, value in message.items() if key != "reasoning_content"} | {"content": ""}
    return [text, calls]
