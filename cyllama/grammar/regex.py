"""Regular expressions as grammars of the JSON strings that match them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

if sys.version_info >= (3, 11):
    from re import _constants as sre  # pyright: ignore[reportAttributeAccessIssue] - the stubs have its old name only
    from re import _parser as sre_parse  # pyright: ignore[reportAttributeAccessIssue]
else:
    import sre_constants as sre
    import sre_parse

MAX_REPEAT = 1_000_000
_BLOCK = 1000  # llama.cpp repeats at most 2000 times
_MAX_DEPTH = 50
_SURROGATES = (0xD800, 0xDFFF)
_LAST = 0x10FFFF

Range = tuple[int, int]

#: A character of a JSON string, without halves of surrogate pairs: one escape is one character.
CHAR = (
    r'[\x20-\x21\x23-\x5B\x5D-\x7E\u0080-\uD7FF\uE000-\U0010FFFF] | "\\" ( ["\\/bfnrt] | "u" '
    r"( [0-9a-cA-CefEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2} ) )"
)


class UnsupportedPatternError(ValueError):
    """A regular expression that no grammar can stand for."""


def repeat(rule: str, least: int, most: int | None, add_rule: Callable[[str], str]) -> str:
    """Return the GBNF of a rule repeated, in blocks where llama.cpp would refuse the number.

    Args:
        rule: Name of the rule.
        least: How often at least.
        most: How often at most; ``None`` for any number.
        add_rule: Adds a rule with that body, and returns its name.
    """
    if max(least, most or 0) > MAX_REPEAT:
        raise UnsupportedPatternError(f"more than {MAX_REPEAT} repetitions")
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


def json_string(pattern: str, char: str, add_rule: Callable[[str], str]) -> str:
    r"""Return the GBNF of the JSON strings in which ``pattern`` can be found.

    Character classes such as ``\w`` stand for their ASCII characters.

    Args:
        pattern: A regular expression, searched for as JSON schema has it: anchors are its own.
        char: Name of the rule of any character.
        add_rule: Adds a rule with that body, and returns its name.

    Raises:
        UnsupportedPatternError: It is none, or has look-around, back-references or anchors inside.
    """
    try:
        parsed = sre_parse.parse(pattern)
    except (sre.error, RecursionError, OverflowError) as error:
        raise UnsupportedPatternError(f"it is no regular expression: {error}") from error
    if parsed.state.flags & ~sre.SRE_FLAG_UNICODE:
        raise UnsupportedPatternError("flags inside")
    translation = _Translation(char, add_rule)
    alternatives = [translation.anchored(items) for items in _alternatives(list(parsed.data))]
    return '"\\"" ( ' + " | ".join(alternatives) + ' ) "\\""'


def _alternatives(items: list[Any]) -> list[list[Any]]:
    """Unfold what consists of one group or one choice, since anchors may be inside."""
    if len(items) == 1:
        kind, value = items[0]
        if kind is sre.SUBPATTERN and not value[1] and not value[2]:
            return _alternatives(list(value[3]))
        if kind is sre.BRANCH:
            return [found for branch in value[1] for found in _alternatives(list(branch))]
    return [items]


class _Translation:
    """From the parse tree of `re` to GBNF."""

    def __init__(self, char: str, add_rule: Callable[[str], str]) -> None:
        self._char = char
        self._add_rule = add_rule

    def anchored(self, items: list[Any]) -> str:
        begin = bool(items) and items[0][0] is sre.AT and items[0][1] in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
        items = items[begin:]
        end = bool(items) and items[-1][0] is sre.AT and items[-1][1] in (sre.AT_END, sre.AT_END_STRING)
        items = items[: len(items) - end]
        any_text = f"{self._char}*"
        return " ".join([*([] if begin else [any_text]), self.sequence(items, 0), *([] if end else [any_text])])

    def sequence(self, items: Sequence[Any], depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise UnsupportedPatternError(f"it is nested deeper than {_MAX_DEPTH}")
        return " ".join(self._item(kind, value, depth) for kind, value in items) or '""'

    def _item(self, kind: Any, value: Any, depth: int) -> str:
        if kind in (sre.LITERAL, sre.NOT_LITERAL):
            return _characters([(value, value)], negate=kind is sre.NOT_LITERAL)
        if kind is sre.ANY:
            return _characters([(10, 10)], negate=True)
        if kind is sre.IN:
            return _class(value)
        if kind is sre.BRANCH:
            return "( " + " | ".join(self.sequence(list(branch), depth + 1) for branch in value[1]) + " )"
        if kind is sre.SUBPATTERN:
            _, add_flags, del_flags, items = value
            if add_flags or del_flags:
                raise UnsupportedPatternError("flags inside")
            return "( " + self.sequence(list(items), depth + 1) + " )"
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, repeated = value
            return self._repeat(least, most, repeated, depth)
        return _unsupported(kind)

    def _repeat(self, least: int, most: Any, items: Any, depth: int) -> str:
        rule = self._add_rule(self.sequence(list(items), depth + 1))
        return repeat(rule, int(least), None if most is sre.MAXREPEAT else int(most), self._add_rule)


def _unsupported(kind: Any) -> NoReturn:
    names = {
        sre.AT: "an anchor inside",
        sre.ASSERT: "look-around",
        sre.ASSERT_NOT: "look-around",
        sre.GROUPREF: "a back-reference",
        sre.GROUPREF_EXISTS: "a back-reference",
    }
    raise UnsupportedPatternError(names.get(kind, str(kind).lower()))


_DIGITS: list[Range] = [(48, 57)]
_SPACES: list[Range] = [(9, 13), (32, 32)]
_WORDS: list[Range] = [(48, 57), (65, 90), (95, 95), (97, 122)]
_CATEGORIES: dict[Any, list[Range]] = {
    sre.CATEGORY_DIGIT: _DIGITS,
    sre.CATEGORY_SPACE: _SPACES,
    sre.CATEGORY_WORD: _WORDS,
}
_NEGATED_CATEGORIES: dict[Any, list[Range]] = {
    sre.CATEGORY_NOT_DIGIT: _DIGITS,
    sre.CATEGORY_NOT_SPACE: _SPACES,
    sre.CATEGORY_NOT_WORD: _WORDS,
}


def _class(items: Any) -> str:
    negate = False
    ascii_only = False
    ranges: list[Range] = []
    for kind, value in items:
        if kind is sre.NEGATE:
            negate = True
        elif kind is sre.LITERAL:
            ranges.append((value, value))
        elif kind is sre.RANGE:
            ranges.append(value)
        elif kind is sre.CATEGORY and value in _CATEGORIES:
            ranges += _CATEGORIES[value]
            ascii_only = True
        elif kind is sre.CATEGORY and value in _NEGATED_CATEGORIES:
            ranges += _without([(0, 127)], _NEGATED_CATEGORIES[value])
            if negate:  # what is not \D is a digit of any script: of ours only
                ranges.append((128, _LAST))
        else:
            raise UnsupportedPatternError(f"{value} in a character class")
    return _characters(ranges, negate=negate, ascii_only=negate and ascii_only)


def _without(ranges: list[Range], removed: list[Range]) -> list[Range]:
    for low, high in removed:
        kept = []
        for first, last in ranges:
            if first < low:
                kept.append((first, min(last, low - 1)))
            if last > high:
                kept.append((max(first, high + 1), last))
        ranges = kept
    return ranges


def _characters(ranges: list[Range], *, negate: bool, ascii_only: bool = False) -> str:
    """Return the GBNF of one character of a JSON string, escaped where it has to be."""
    if negate:
        ranges = _without([(0, 127 if ascii_only else _LAST)], ranges)
    ranges = _without(sorted(ranges), [_SURROGATES])
    plain = _without(ranges, [(0, 31), (34, 34), (92, 92)])
    alternatives = ["[" + "".join(map(_range, plain)) + "]"] if plain else []
    for code in [*range(32), 34, 92]:
        if any(low <= code <= high for low, high in ranges):
            alternatives.append(_ESCAPED.get(code) or f'"\\\\u{code:04x}"')
    if not alternatives:
        raise UnsupportedPatternError("a character class that nothing fits")
    return alternatives[0] if len(alternatives) == 1 else "( " + " | ".join(alternatives) + " )"


_ESCAPED = {8: r'"\\b"', 9: r'"\\t"', 10: r'"\\n"', 12: r'"\\f"', 13: r'"\\r"', 34: r'"\\\""', 92: r'"\\\\"'}


def _range(codes: Range) -> str:
    low, high = codes
    return _code(low) if low == high else f"{_code(low)}-{_code(high)}"


def _code(code: int) -> str:
    return chr(code) if chr(code).isalnum() and code < 128 else f"\\U{code:08X}"
