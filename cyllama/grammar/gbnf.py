"""Pieces of GBNF: rules that are added once, literals, and choices whose common beginnings are written once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MAX_REPEAT = 1_000_000
_BLOCK = 1000  # llama.cpp repeats at most 2000 times
_MAX_DEPTH = 24  # of nested groups in a choice

#: Names of the rules that all schemas share. llama.cpp's own names in a grammar of tools begin otherwise.
SPACE, CHAR, VALUE = "schema-space", "schema-char", "schema-value"
STRING, NUMBER, INTEGER, BOOLEAN, NULL = (
    f"schema-{kind}" for kind in ("string", "number", "integer", "boolean", "null")
)
OBJECT, ARRAY = "schema-object", "schema-array"

#: White space between the tokens of JSON: none, one space, or a new line with its indentation.
SPACE_BODY = r'| " " | "\n" ( " "{0,20} | "\t"{1,8} )'

_INTEGRAL = "( [0] | [1-9] [0-9]{0,19} )"  # every integer of 64 bits
_FRACTION = '( "." [0-9]{1,20} )?'

#: A number that is finite with any digits.
NUMBER_BODY = f'"-"? {_INTEGRAL} {_FRACTION} ( [eE] ( "-" [0-9]{{1,3}} | "+"? [0-9] [0-9]? ) )?'

#: A character of a JSON string, without halves of surrogate pairs: one escape is one character.
CHAR_BODY = (
    r'[\x20-\x21\x23-\x5B\x5D-\uD7FF\uE000-\U0010FFFF] | "\\" ( ["\\/bfnrt] | "u" '
    r"( [0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2} ) )"
)

_SHARED: dict[str, tuple[str, tuple[str, ...]]] = {
    SPACE: (SPACE_BODY, ()),
    CHAR: (CHAR_BODY, ()),
    STRING: (f'"\\"" {CHAR}* "\\""', (CHAR,)),
    NUMBER: (NUMBER_BODY, ()),
    INTEGER: (f'"-"? {_INTEGRAL}', ()),
    BOOLEAN: ('"true" | "false"', ()),
    NULL: ('"null"', ()),
    VALUE: (
        f"{OBJECT} | {ARRAY} | {STRING} | {NUMBER} | {BOOLEAN} | {NULL}",
        (OBJECT, ARRAY, STRING, NUMBER, BOOLEAN, NULL),
    ),
    OBJECT: (
        f'"{{" {SPACE} ( {STRING} ":" {SPACE} {VALUE} ( "," {SPACE} {STRING} ":" {SPACE} {VALUE} )* {SPACE} )? "}}"',
        (SPACE, STRING, VALUE),
    ),
    ARRAY: (f'"[" {SPACE} ( {VALUE} ( "," {SPACE} {VALUE} )* {SPACE} )? "]"', (SPACE, VALUE)),
}


class Rules:
    """The rules of one schema. Equal bodies are one rule.

    Args:
        prefix: What the names of new rules begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.bodies: dict[str, str] = {}
        self._prefix = prefix
        self._names: dict[str, str] = {}
        self._n_reserved = 0

    def __len__(self) -> int:
        return len(self.bodies)

    def add(self, body: str) -> str:
        """Return the name of the rule with that body, and add it if it does not exist."""
        name = self._names.get(body)
        if name is None:
            name = self._names[body] = f"{self._prefix}{len(self._names)}"
            self.bodies[name] = body
        return name

    def reserve(self) -> str:
        """Return a name for a rule that is to be defined."""
        self._n_reserved += 1
        return f"{self._prefix}r{self._n_reserved}"

    def define(self, name: str, body: str) -> None:
        """Add a rule whose name was referred to before."""
        self.bodies[name] = body

    def shared(self, name: str) -> str:
        """Return the name of a rule that all schemas share, and add it and what it refers to."""
        waiting = [name]
        while waiting:
            found = waiting.pop()
            if found not in self.bodies:
                self.bodies[found], needed = _SHARED[found]
                waiting += needed
        return name

    def repeat(self, rule: str, least: int, most: int | None) -> str:
        """Return the GBNF of a rule repeated, in blocks where llama.cpp would refuse the number.

        Args:
            rule: Name of the rule.
            least: How often at least.
            most: How often at most; ``None`` for any number.
        """
        return repeat(rule, least, most, self.add)


def repeat(rule: str, least: int, most: int | None, add_rule: Callable[[str], str]) -> str:
    """Return the GBNF of a rule repeated: :meth:`Rules.repeat`, with what adds a rule."""
    if max(least, most or 0) > MAX_REPEAT:
        raise ValueError(f"more than {MAX_REPEAT} repetitions")
    parts = [_exactly(rule, least, add_rule)] if least else []
    if most is None:
        parts.append(f"{rule}*")
    elif most > least:
        blocks, rest = divmod(most - least, _BLOCK)
        if not blocks:
            parts.append(f"{rule}{{0,{rest}}}")
        else:
            block = add_rule(f"{rule}{{{_BLOCK}}}")
            fewer = f"{block}{{0,{blocks - 1}}} {rule}{{0,{_BLOCK - 1}}}"
            last = f"{block}{{{blocks}}}" + (f" {rule}{{0,{rest}}}" if rest else "")
            parts.append(f"( {fewer} | {last} )")
    return " ".join(parts) or '""'


def _exactly(rule: str, times: int, add_rule: Callable[[str], str]) -> str:
    blocks, rest = divmod(times, _BLOCK)
    parts = [f"{rule}{{{rest}}}"] if rest else []
    if blocks:
        parts.append(f"{add_rule(f'{rule}{{{_BLOCK}}}')}{{{blocks}}}")
    return " ".join(parts)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(text: str) -> str:
    """Return the GBNF of a text."""
    return '"' + "".join(_ESCAPES.get(char) or _escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def json_text(value: Any) -> str:
    """Return a value as JSON in its compact form."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def json_key(name: str) -> str:
    """Return the name of a property as it is written before its value."""
    return json_text(name) + ":"


def choice(texts: Mapping[str, str] | Iterable[str]) -> str:
    """Return the GBNF of one of several texts, so that llama.cpp does not follow each of them from its beginning.

    Args:
        texts: The texts, and where it is a mapping, the GBNF of what follows each of them.
    """
    rest = dict(texts) if isinstance(texts, Mapping) else dict.fromkeys(texts, "")
    return _choice(sorted(rest), rest, 0, 0)


def _choice(texts: Sequence[str], rest: Mapping[str, str], begin: int, depth: int) -> str:
    """Return a choice of sorted texts that are the same up to ``begin``."""
    alternatives: list[str] = []
    first = 0
    while first < len(texts):
        text = texts[first]
        last = first + 1
        while depth < _MAX_DEPTH and len(text) > begin and last < len(texts) and texts[last][begin] == text[begin]:
            last += 1
        if last - first == 1:
            parts = [literal(text[begin:])] if len(text) > begin or not rest[text] else []
            alternatives.append(" ".join([*parts, *([rest[text]] if rest[text] else [])]))
        else:
            end = _common(text, texts[last - 1], begin)
            inner = _choice(texts[first:last], rest, end, depth + 1)
            alternatives.append(f"{literal(text[begin:end])} ( {inner} )")
        first = last
    return " | ".join(alternatives)


def _common(one: str, other: str, begin: int) -> int:
    """Return the length of the common beginning; of sorted texts, that of the first and the last is that of all."""
    end = begin
    while end < min(len(one), len(other)) and one[end] == other[end]:
        end += 1
    return end
