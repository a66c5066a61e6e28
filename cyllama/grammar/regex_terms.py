"""Regular expressions as terms of automata, with look-ahead, anchors inside and word boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .automaton import Term, Terms
from .characters import LAST, WORDS, no_words, without
from .regex_syntax import characters_of, is_begin, is_end, is_repeat, parse, width
from .regex_syntax import constants as sre

_MAX_DEPTH = 50
#: What is before a place. A character beyond ASCII may be a letter for Python, and is not one for ECMAScript.
_START, _WORD, _OTHER, _FOREIGN, _UNKNOWN = "start", "word", "other", "foreign", "unknown"


def search(pattern: str, terms: Terms) -> tuple[Term, bool]:
    """Return the term of the texts in which a pattern can be found, and whether it allows no others.

    Raises:
        UnsupportedPatternError: It is not a regular expression.
    """
    parsed = parse(pattern)
    builder = _Builder(terms)
    items, flags = list(parsed.data), parsed.state.flags
    term = builder.sequence(items, terms.anything, _START, flags, 0)
    if not items or not is_begin(items[0]):
        foreign = without([(0, LAST)], [*WORDS, *no_words()])
        for before, ranges in ((_WORD, WORDS), (_OTHER, no_words()), (_FOREIGN, foreign)):
            prefix = terms.cat(terms.anything, terms.characters(ranges))
            found = builder.sequence(items, terms.anything, before, flags, 0)
            term = terms.either(term, terms.cat(prefix, found))
    return term, builder.exact


class _Builder:
    """From the parse tree of `re` to terms: of each item together with what follows it."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._repeated = 0  # inside a repetition, what follows an item is not known
        self.exact = True

    def sequence(self, items: Sequence[Any], then: Term, before: str, flags: int, depth: int) -> Term:
        """Return the term of items and what follows them."""
        if depth > _MAX_DEPTH:
            raise RecursionError(f"it is nested deeper than {_MAX_DEPTH}")
        places = [before]
        for kind, value in items:
            places.append(_after(kind, value, places[-1], flags))
        for (kind, value), place in zip(reversed(items), reversed(places[:-1]), strict=True):
            then = self._item(kind, value, then, place, flags, depth)
        return then

    def _item(self, kind: Any, value: Any, then: Term, before: str, flags: int, depth: int) -> Term:
        terms = self._terms
        ranges = characters_of(kind, value, flags)
        if ranges is not None:
            return terms.cat(terms.characters(ranges), then)
        if kind is sre.BRANCH:
            return terms.either(*(self.sequence(list(b), then, before, flags, depth + 1) for b in value[1]))
        if kind is sre.SUBPATTERN:
            _, add_flags, del_flags, items = value
            return self.sequence(list(items), then, before, (flags | add_flags) & ~del_flags, depth + 1)
        if is_repeat(kind):
            least, most, items = value
            self._repeated += 1
            body = self.sequence(list(items), terms.empty, _UNKNOWN, flags, depth + 1)
            self._repeated -= 1
            return terms.cat(terms.repeat(body, int(least), None if most is sre.MAXREPEAT else int(most)), then)
        if kind is sre.AT:
            return self._anchor(value, then, before, flags)
        if kind in (sre.ASSERT, sre.ASSERT_NOT) and value[0] > 0 and not self._repeated:
            ahead = self.sequence(list(value[1]), terms.anything, before, flags, depth + 1)
            return terms.both(ahead if kind is sre.ASSERT else terms.negate(ahead), then)
        self.exact = False
        return then if kind in (sre.ASSERT, sre.ASSERT_NOT) else terms.cat(terms.anything, then)

    def _anchor(self, kind: Any, then: Term, before: str, flags: int) -> Term:
        terms = self._terms
        lines = flags & sre.SRE_FLAG_MULTILINE
        if is_begin((sre.AT, kind)) and not lines and before != _UNKNOWN:
            return then if before == _START else terms.none
        if is_end((sre.AT, kind)) and not lines and not self._repeated:
            return terms.both(terms.empty, then)
        if kind in (sre.AT_BOUNDARY, sre.AT_NON_BOUNDARY) and before != _UNKNOWN and not self._repeated:
            word, other = (terms.cat(terms.characters(found), terms.anything) for found in (WORDS, no_words()))
            if before == _FOREIGN:
                return terms.none
            wants_word = (before == _WORD) != (kind is sre.AT_BOUNDARY)
            return terms.both(word if wants_word else terms.either(terms.empty, other), then)
        self.exact = False
        return then


def _after(kind: Any, value: Any, before: str, flags: int) -> str:
    """Return what is before the place behind an item."""
    ranges = characters_of(kind, value, flags)
    if ranges is not None:
        if not without(ranges, WORDS):
            return _WORD
        return _UNKNOWN if without(ranges, no_words()) else _OTHER
    if is_repeat(kind) and int(value[0]) > 0 and len(value[2]) == 1:
        inner, found = value[2][0]
        return _after(inner, found, _UNKNOWN, flags)
    if kind is sre.SUBPATTERN and len(value[3]):
        *_, items = value
        for inner, found in items:
            before = _after(inner, found, before, flags)
        return before
    return before if width([(kind, value)]) == (0, 0) else _UNKNOWN
