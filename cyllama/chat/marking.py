"""Marks in messages and tools where they spell control tokens, as :class:`ControlText` explains."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..control_text import BREAK, ControlText, is_escaped
from .tools import Tool

_NAMES_WITHOUT_TEXT = frozenset(("role", "type"))
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_JSON_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\?.", re.DOTALL
)


class Marking:
    """Marks what a template renders.

    Args:
        control_text: The texts of control tokens.
        inside: Texts that are marked although they do not spell a control token by themselves.

    Attributes:
        texts: All texts that were passed to it.
    """

    def __init__(self, control_text: ControlText, inside: Collection[str] = ()) -> None:
        self._control_text = control_text
        self._inside = inside
        self.texts = set[str]()

    def text(self, text: str) -> str:
        """Return a text, marked."""
        self.texts.add(text)
        return self._control_text.mark(text, self._inside)

    def value(self, value: Any) -> Any:
        """Return a value of JSON, marked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key) if isinstance(key, str) else key: self.value(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def json(self, text: str) -> str:
        """Return JSON text, marked: a template may print it, or print what it means."""
        return _JSON_STRING.sub(self._literal, text)

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return messages, marked except for their roles."""
        return [{name: self._field(name, value) for name, value in message.items()} for message in messages]

    def variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return variables of a template, JSON texts, marked except for those that name a token."""
        return {name: text if name.endswith("_token") else self.json(text) for name, text in variables.items()}

    def tools(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return definitions of tools, marked."""
        return [
            replace(
                tool,
                name=self.text(tool.name),
                description=self.text(tool.description),
                parameters=self.value(tool.parameters),
            )
            for tool in tools
        ]

    def _field(self, name: str, value: Any) -> Any:
        if name in _NAMES_WITHOUT_TEXT:
            return value
        if isinstance(value, str):
            return self.json(value) if name == "arguments" else self.text(value)
        if isinstance(value, Mapping):
            return {key: self._field(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._field("", item) for item in value]
        return value

    def _literal(self, match: re.Match[str]) -> str:
        literal = match[0][1:-1]
        if "\\" not in literal:
            return f'"{self.text(literal)}"'
        try:
            text = json.loads(match[0], strict=False)
        except ValueError:
            return f'"{self.text(literal)}"'
        marked = self.text(text)
        if marked == text:
            return match[0]
        # Text between the marks may be written as escapes, which are kept.
        characters = _JSON_CHARACTER.findall(literal)
        if len(characters) != len(text) or len(self._control_text.plain(marked)) != len(text):
            return json.dumps(marked, ensure_ascii=False)
        rest = iter(characters)
        return f'"{"".join(_spelled(part, rest) for part in self._control_text.split(marked))}"'


def _spelled(part: str, characters: Iterator[str]) -> str:
    """Return a part of a marked text, in which marks are kept and characters spelled as in a literal."""
    if part == BREAK:
        return part
    spelled = next(characters)
    return part if is_escaped(part) else spelled
