"""Regular expressions as grammars of the JSON strings that match them.

A part that neither GBNF nor an automaton can express, such as a back-reference, is left out: the grammar then allows
every string that the expression matches, and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import automaton
from .characters import LAST, Range, in_json
from .gbnf import CHAR, MAX_REPEAT, Rules
from .regex_syntax import (
    UnsupportedPatternError,
    alternatives,
    characters_of,
    is_begin,
    is_end,
    is_repeat,
    item_width,
    parse,
    width,
)
from .regex_syntax import constants as sre
from .regex_terms import search

_MAX_DEPTH = 50
_ANY_CHARACTER = "any character"


class ImpossiblePatternError(UnsupportedPatternError):
    """No string matches."""


@dataclass(frozen=True)
class Strings:
    """Which strings are allowed.

    Attributes:
        patterns: Regular expressions, searched for as JSON schema has it: anchors are their own.
        least: How long the string is at least, in characters.
        most: How long it is at most.
    """

    patterns: tuple[str, ...] = ()
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Translated:
    """Strings as GBNF.

    Attributes:
        body: The GBNF of JSON strings, with their quotes.
        patterns_left_out: Whether it allows strings that do not match.
        lengths_left_out: Whether it allows strings of another length.
    """

    body: str
    patterns_left_out: bool = False
    lengths_left_out: bool = False


def json_string(strings: Strings, rules: Rules) -> Translated:
    r"""Return the GBNF of the JSON strings that match: one that is as small, or as exact as possible.

    Character classes such as ``\w`` stand for their ASCII characters.

    Args:
        strings: Which ones; with one pattern at least.
        rules: Where rules are added.

    Raises:
        ImpossiblePatternError: No string matches.
        UnsupportedPatternError: A pattern is not a regular expression.
    """
    direct = None
    if len(strings.patterns) == 1:
        direct = _direct(strings, rules)
        if not direct.patterns_left_out and not direct.lengths_left_out:
            return direct
    found = _by_automaton(strings, rules)
    if found is None and (strings.least or strings.most is not None):
        found = _by_automaton(Strings(strings.patterns), rules)
        found = None if found is None else replace(found, lengths_left_out=True)
    if found is not None:
        return found
    return direct or _direct(Strings(strings.patterns[:1], strings.least, strings.most), rules, left_out=True)


def _by_automaton(strings: Strings, rules: Rules) -> Translated | None:
    """Return the GBNF of an automaton, or ``None`` if that becomes too large."""
    terms = automaton.Terms()
    found = [terms.repeat(terms.characters([(0, LAST)]), strings.least, strings.most)]
    exact = True
    try:
        for pattern in strings.patterns:
            term, same = search(pattern, terms)
            found.append(term)
            exact &= same
        body, same = automaton.json_string(terms, terms.both(*found), rules)
    except (automaton.TooLargeError, RecursionError):
        return None
    if body is None:
        raise ImpossiblePatternError("no string matches it")
    return Translated(body, not (exact and same))


def _direct(strings: Strings, rules: Rules, *, left_out: bool = False) -> Translated:
    parsed = parse(strings.patterns[0])
    translation = _Translation(rules, parsed.state.flags)
    bodies, has_lengths = [], True
    bounded = bool(strings.least) or strings.most is not None
    for items in alternatives(list(parsed.data)):
        try:
            fitted = _with_length(items, strings.least, strings.most) if bounded else items
        except ImpossiblePatternError:
            continue
        has_lengths &= fitted is not None
        bodies.append(translation.anchored(items if fitted is None else fitted))
    if not bodies:
        raise ImpossiblePatternError("no string of the length matches it")
    body = '"\\"" ( ' + " | ".join(bodies) + ' ) "\\""'
    return Translated(body, left_out or not translation.exact, not has_lengths)


def _with_length(items: list[Any], least: int, most: int | None) -> list[Any] | None:
    """Return items that match only texts of a length; ``None`` if more than a repetition of one character varies.

    Raises:
        ImpossiblePatternError: There is no such text.
    """
    inner = [item for item in items if not is_begin(item) and not is_end(item)]
    if not inner and not items:
        inner = [(sre.MAX_REPEAT, (0, sre.MAXREPEAT, [(_ANY_CHARACTER, None)]))]
    elif len(inner) != len(items) - 2 or not is_begin(items[0]) or not is_end(items[-1]):
        return None
    low, high = width(inner)
    if low >= least and (most is None or (high is not None and high <= most)):
        return items
    loose = [i for i, (kind, value) in enumerate(inner) if len(set(item_width(kind, value))) > 1]
    if not loose:
        raise ImpossiblePatternError("no string of the length matches it")
    kind, value = inner[loose[0]]
    if len(loose) > 1 or not is_repeat(kind) or (value[2][0][0] is not _ANY_CHARACTER and width(value[2]) != (1, 1)):
        return None
    fixed = low - int(value[0])
    fewest = max(int(value[0]), least - fixed)
    ends = [int(value[1])] if value[1] is not sre.MAXREPEAT else []
    ends += [most - fixed] if most is not None else []
    if ends and min(ends) < fewest:
        raise ImpossiblePatternError("no string of the length matches it")
    inner[loose[0]] = (kind, (fewest, min(ends) if ends else sre.MAXREPEAT, value[2]))
    return [(sre.AT, sre.AT_BEGINNING), *inner, (sre.AT, sre.AT_END)]


class _Translation:
    """From the parse tree of `re` to GBNF."""

    def __init__(self, rules: Rules, flags: int) -> None:
        self._rules = rules
        self._flags = flags
        self._groups: dict[int, str] = {}
        self.exact = True

    def anchored(self, items: list[Any]) -> str:
        anchors = not self._flags & sre.SRE_FLAG_MULTILINE
        begin = anchors and bool(items) and is_begin(items[0])
        items = items[1:] if items and is_begin(items[0]) else items
        end = anchors and bool(items) and is_end(items[-1])
        items = items[:-1] if items and is_end(items[-1]) else items
        self.exact &= anchors
        any_text = f"{self._rules.shared(CHAR)}*"
        body = self._sequence(items, 0, self._flags)
        return " ".join([*([] if begin else [any_text]), body, *([] if end else [any_text])])

    def _sequence(self, items: Sequence[Any], depth: int, flags: int) -> str:
        if depth > _MAX_DEPTH:
            raise UnsupportedPatternError(f"it is nested deeper than {_MAX_DEPTH}")
        parts = (self._item(kind, value, depth, flags) for kind, value in items)
        return " ".join(part for part in parts if part) or '""'

    def _item(self, kind: Any, value: Any, depth: int, flags: int) -> str:
        ranges = [(0, LAST)] if kind is _ANY_CHARACTER else characters_of(kind, value, flags)
        if ranges is not None:
            return self._characters(ranges)
        if kind is sre.BRANCH:
            return "( " + " | ".join(self._sequence(list(branch), depth + 1, flags) for branch in value[1]) + " )"
        if kind is sre.SUBPATTERN:
            group, add_flags, del_flags, items = value
            body = "( " + self._sequence(list(items), depth + 1, (flags | add_flags) & ~del_flags) + " )"
            if group is not None:
                self._groups[group] = body
            return body
        if is_repeat(kind):
            least, most, items = value
            return self._repeat(least, most, items, depth, flags)
        if str(kind) == "ATOMIC_GROUP":
            self.exact = False
            return "( " + self._sequence(list(value), depth + 1, flags) + " )"
        return self._left_out(kind, value)

    def _left_out(self, kind: Any, value: Any) -> str:
        """Return a replacement that allows more, for an item that a grammar cannot express."""
        self.exact = False
        if kind is sre.GROUPREF:
            return self._groups.get(value, f"{self._rules.shared(CHAR)}*")
        if kind in (sre.AT, sre.ASSERT, sre.ASSERT_NOT):
            return ""
        return f"{self._rules.shared(CHAR)}*"

    def _repeat(self, least: int, most: Any, items: Any, depth: int, flags: int) -> str:
        if most is sre.MAXREPEAT and not width(list(items))[0]:
            self.exact = False  # llama.cpp would never end here; an automaton does
            return f"{self._rules.shared(CHAR)}*"
        rule = self._rules.add(self._sequence(list(items), depth + 1, flags))
        highest = None if most is sre.MAXREPEAT else int(most)
        if max(least, highest or 0) > MAX_REPEAT:
            self.exact = False
            least, highest = min(int(least), MAX_REPEAT), None
        return self._rules.repeat(rule, int(least), highest)

    def _characters(self, ranges: list[Range]) -> str:
        body, exact = in_json(ranges)
        self.exact &= exact
        if body is None:
            raise ImpossiblePatternError("a character class that nothing fits")
        return body
