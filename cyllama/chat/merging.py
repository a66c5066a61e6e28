"""Histories for strict templates, which require one system message at the beginning or none, and alternating roles.

A history that a template takes is rendered as it is. Otherwise it is rewritten in one of these ways, which keep all of
its text, beginning with the way that changes least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

Messages: TypeAlias = Sequence[dict[str, Any]]
Way: TypeAlias = Callable[[Messages], list[dict[str, Any]]]

_SYSTEM = ("system", "developer")
_PROBE = "cyllamaprobe{}x"  # a word that templates write as it is


def as_it_is(messages: Messages) -> list[dict[str, Any]]:
    """Return messages as they are."""
    return list(messages)


def ways(messages: Messages, *, has_system_role: bool = True) -> Iterator[Way]:
    """Yield ways to rewrite a history, beginning with the one that changes least.

    Args:
        messages: The history.
        has_system_role: Whether the template knows system messages.
    """
    several: list[Way] = [as_it_is, _leading_systems_as_one, _systems_in_turns, _merged]
    if not has_system_role:  # llama.cpp puts a first system message into the message that follows
        several = [] if messages[0]["role"] in _SYSTEM and _role_of_next(messages) != "user" else [as_it_is]
    several += [_user_first(way) for way in several]
    without = [_without_systems, _without_systems_merged]
    several += [*without, *(_user_first(way) for way in without)]
    seen: list[list[dict[str, Any]]] = []
    for way in several:
        written = way(messages)
        if written not in seen:
            seen.append(written)
            yield way


def doubtful_systems(messages: Messages, prompt: str) -> list[int]:
    """Return the indices of the system messages whose text is not found in a prompt."""
    texts = [as_text(message["content"]).strip() for message in messages]
    return [
        i
        for i, message in enumerate(messages)
        if message["role"] in _SYSTEM
        and texts[i]
        and prompt.count(texts[i]) <= sum(text.count(texts[i]) for j, text in enumerate(texts) if j != i)
    ]


def with_probes(way: Way, indexes: Sequence[int]) -> Way:
    """Return a way to write a history with words that can be looked for in place of what some messages say."""

    def probed(messages: Messages) -> list[dict[str, Any]]:
        return way([{**each, "content": _PROBE.format(i)} if i in indexes else each for i, each in enumerate(messages)])

    return probed


def missing_probes(prompt: str, indexes: Sequence[int]) -> int:
    """Return how many of those words a prompt lacks."""
    lower = prompt.lower()
    return sum(_PROBE.format(i) not in lower for i in indexes)


def as_text(content: str | list[dict[str, Any]]) -> str:
    """Return the text of a message's content, of which parts are lines."""
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


# ---------------------------------------------------------------------------------------------------------------- ways


def _leading_systems_as_one(messages: Messages) -> list[dict[str, Any]]:
    n = next((i for i, message in enumerate(messages) if message["role"] not in _SYSTEM), len(messages))
    return list(messages) if n < 2 else [{**messages[0], "content": _joined(messages[:n])}, *messages[n:]]


def _systems_in_turns(messages: Messages, *, keep_first: bool = True) -> list[dict[str, Any]]:
    """Put system messages at the beginning of the next user message, or make them user messages if there is none."""
    result: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    for i, message in enumerate(_leading_systems_as_one(messages)):
        if message["role"] in _SYSTEM and not (keep_first and i == 0):
            waiting.append(message)
            continue
        if waiting and message["role"] == "user":
            message = {**message, "content": _joined([*waiting, message])}
        elif waiting:
            result.append({"role": "user", "content": _joined(waiting)})
        waiting = []
        result.append(message)
    return [*result, {"role": "user", "content": _joined(waiting)}] if waiting else result


def _without_systems(messages: Messages) -> list[dict[str, Any]]:
    return _systems_in_turns(messages, keep_first=False)


def _merged(messages: Messages) -> list[dict[str, Any]]:
    return _merge_turns(_systems_in_turns(messages))


def _without_systems_merged(messages: Messages) -> list[dict[str, Any]]:
    return _merge_turns(_without_systems(messages))


def _merge_turns(messages: Messages) -> list[dict[str, Any]]:
    """Join user messages in a row, and texts of the assistant in a row."""
    result: list[dict[str, Any]] = []
    for message in messages:
        if result and _belong_together(result[-1], message):
            result[-1] = {**result[-1], **message, "content": _joined([result[-1], message])}
        else:
            result.append(message)
    return result


def _user_first(way: Way) -> Way:
    """Add empty messages: a user message before a first answer, and an answer between a tool's result and the user."""

    def written(messages: Messages) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = []
        for message in way(messages):
            if message["role"] == "assistant" and (not result or result[-1]["role"] in _SYSTEM):
                result.append({"role": "user", "content": ""})
            if message["role"] == "user" and result and result[-1]["role"] == "tool":
                result.append({"role": "assistant", "content": ""})
            result.append(message)
        return result

    return written


def _role_of_next(messages: Messages) -> str | None:
    return messages[1]["role"] if len(messages) > 1 else None


def _belong_together(first: dict[str, Any], second: dict[str, Any]) -> bool:
    if first["role"] != second["role"] or first.get("name") != second.get("name"):
        return False
    if first["role"] == "assistant":  # calls end an answer, reasoning begins one
        return not first.get("tool_calls") and not second.get("reasoning_content")
    return first["role"] == "user"


def _joined(messages: Messages) -> str:
    return "\n\n".join(text for message in messages if (text := as_text(message["content"])).strip())
