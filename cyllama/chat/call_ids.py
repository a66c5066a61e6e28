"""Ids of tool calls, as a template takes them.

Histories come from other providers with ids such as ``call_0fyp...`` or ``toolu_01A...``. Some templates require a form
of their own. Others write the id without the name of the tool, so that the id has to contain the name. An id is always
converted to the same new id, in this request and in later ones.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

Messages = Sequence[dict[str, Any]]
Rename = Callable[[str, str, int], str]  # id, name of the tool, number of the call in the history -> id

_NINE = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: A template that writes a call by its id and its arguments, without the name.
_NAMED_BY_ID = re.compile(r"<\|tool_call_begin\|>")


def unique_ids(messages: Messages) -> list[dict[str, Any]]:
    """Return messages in which the calls of one answer have different ids; results belong to them in order."""
    return _rename(messages, lambda call_id, *_: call_id)


def nine_letters_or_digits(messages: Messages) -> list[dict[str, Any]]:
    """Return messages with ids of nine letters or digits, which Mistral's templates demand."""
    return _rename(messages, lambda call_id, *_: _nine(call_id))


def named_ids(messages: Messages) -> list[dict[str, Any]]:
    """Return messages with ids such as "functions.get_weather:0", from which Kimi K2 reads the name of a call."""

    def rename(call_id: str, name: str, number: int) -> str:
        return call_id if re.fullmatch(rf"functions\.{re.escape(name)}:\d+", call_id) else f"functions.{name}:{number}"

    return _rename(messages, rename)


def are_nine(messages: Messages) -> bool:
    """Return whether all ids have nine letters or digits."""
    return all(_NINE.fullmatch(call["id"]) for message in messages for call in message.get("tool_calls", ()))


def names_calls_by_id(source: str) -> bool:
    """Return whether a template leaves out the name of a call, because the id contains it."""
    return _NAMED_BY_ID.search(source) is not None and "tool_calls_section_begin" in source


def _nine(call_id: str) -> str:
    if _NINE.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode()).digest()[:8], "big")
    letters = ""
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        letters += _DIGITS[digit]
    return letters


def _rename(messages: Messages, rename: Rename) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    waiting: dict[str, deque[str]] = {}
    n_calls = 0
    for message in messages:
        if message.get("tool_calls"):
            waiting, calls, taken = {}, [], set[str]()
            for call in message["tool_calls"]:
                new, again = rename(call["id"], call["function"]["name"], n_calls), 0
                while new in taken:
                    again += 1
                    new = rename(f"{call['id']}-{again}", call["function"]["name"], n_calls)
                taken.add(new)
                waiting.setdefault(call["id"], deque()).append(new)
                calls.append(call | {"id": new})
                n_calls += 1
            message = message | {"tool_calls": calls}
        elif message["role"] == "tool" and waiting.get(message.get("tool_call_id", "")):
            message = message | {"tool_call_id": waiting[message["tool_call_id"]].popleft()}
        result.append(message)
    return result
