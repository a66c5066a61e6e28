"""Regular expressions with intersection and complement as deterministic automata.

Look-ahead, word boundaries and lengths beside a pattern are intersections. A state is what is left to match: the
derivative of the expression by the characters so far (Brzozowski).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .characters import LAST, Range, in_json, without
from .gbnf import Rules

MAX_STATES = 1000
_MAX_CLASSES = 64
_ALL_CHARACTERS: tuple[Range, ...] = ((0, LAST),)


class TooLargeError(ValueError):
    """An automaton has too many states."""


@dataclass(frozen=True, eq=False)
class Term:
    """An expression; equal ones are the same object.

    Attributes:
        kind: "none" (matches nothing), "empty", "set", "cat", "or", "and", "not" or "repeat".
        parts: The expressions that it consists of; of a set, its ranges of characters.
        least: How often a repetition matches at least.
        most: How often at most; ``None`` for any number.
        nullable: Whether it matches the empty text.
    """

    kind: str
    parts: tuple[Any, ...] = ()
    least: int = 0
    most: int | None = None
    nullable: bool = False


@dataclass
class Terms:
    """Makes terms, each once, in a form in which terms of the same language are mostly the same object."""

    _known: dict[tuple[Any, ...], Term] = field(default_factory=dict)
    _derived: dict[tuple[Term, int], Term] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.none = self._make("none")
        self.empty = self._make("empty", nullable=True)
        self.anything = self.repeat(self.characters(_ALL_CHARACTERS), 0, None)

    def _make(self, kind: str, parts: tuple[Any, ...] = (), least: int = 0, most: int | None = None, **options: Any):
        key = (kind, frozenset(parts) if kind in ("or", "and") else parts, least, most)
        term = self._known.get(key)
        if term is None:
            term = self._known[key] = Term(kind, parts, least, most, **options)
        return term

    def characters(self, ranges: Iterable[Range]) -> Term:
        """Return the term that matches one of these characters."""
        found = tuple(sorted(ranges))
        return self._make("set", found) if found else self.none

    def cat(self, first: Term, then: Term) -> Term:
        """Return the term that matches these terms one after the other."""
        if self.none in (first, then):
            return self.none
        if first is self.empty:
            return then
        if then is self.empty or (first is self.anything and then is first):
            return first
        if first.kind == "cat":
            return self.cat(first.parts[0], self.cat(first.parts[1], then))
        return self._make("cat", (first, then), nullable=first.nullable and then.nullable)

    def either(self, *terms: Term) -> Term:
        """Return the term that matches one of these terms."""
        return self._combine("or", terms, self.anything, self.none)

    def both(self, *terms: Term) -> Term:
        """Return the term that matches the texts that all of these terms match."""
        return self._combine("and", terms, self.none, self.anything)

    def _combine(self, kind: str, terms: tuple[Term, ...], decides: Term, neutral: Term) -> Term:
        parts: dict[Term, None] = {}
        for term in terms:
            parts.update(dict.fromkeys(term.parts if term.kind == kind else (term,)))
        if decides in parts:
            return decides
        parts.pop(neutral, None)
        if not parts:
            return neutral
        if len(parts) == 1:
            return next(iter(parts))
        nullable = any(part.nullable for part in parts) if kind == "or" else all(part.nullable for part in parts)
        return self._make(kind, tuple(parts), nullable=nullable)

    def negate(self, term: Term) -> Term:
        """Return the term that matches all other texts."""
        if term is self.none:
            return self.anything
        if term is self.anything:
            return self.none
        return term.parts[0] if term.kind == "not" else self._make("not", (term,), nullable=not term.nullable)

    def repeat(self, term: Term, least: int, most: int | None) -> Term:
        """Return the term that matches repetitions of a term."""
        least = 0 if term.nullable else least
        if term is self.none:
            return self.none if least else self.empty
        if most == 0 or term is self.empty:
            return self.empty
        if (least, most) == (1, 1) or (term.kind == "repeat" and (term.least, term.most, most) == (0, None, None)):
            return term
        return self._make("repeat", (term,), least, most, nullable=least == 0)

    def derive(self, term: Term, char: int) -> Term:
        """Return what is left to match after a character."""
        key = (term, char)
        if key not in self._derived:
            self._derived[key] = self._derive(term, char)
        return self._derived[key]

    def _derive(self, term: Term, char: int) -> Term:
        if term.kind == "set":
            return self.empty if any(low <= char <= high for low, high in term.parts) else self.none
        if term.kind == "cat":
            first, then = term.parts
            left = self.cat(self.derive(first, char), then)
            return self.either(left, self.derive(then, char)) if first.nullable else left
        if term.kind in ("or", "and"):
            parts = (self.derive(part, char) for part in term.parts)
            return self.either(*parts) if term.kind == "or" else self.both(*parts)
        if term.kind == "not":
            return self.negate(self.derive(term.parts[0], char))
        if term.kind == "repeat":
            most = None if term.most is None else term.most - 1
            rest = self.repeat(term.parts[0], max(0, term.least - 1), most)
            return self.cat(self.derive(term.parts[0], char), rest)
        return self.none


def _classes(start: Term) -> list[list[Range]]:
    """Split all characters into classes, so that every set of the term contains a class completely or not at all."""
    sets: dict[tuple[Range, ...], None] = {}
    waiting, seen = [start], {start}
    while waiting:
        term = waiting.pop()
        if term.kind == "set":
            sets[term.parts] = None
            continue
        for part in term.parts:
            if part not in seen:
                seen.add(part)
                waiting.append(part)
    classes: list[list[Range]] = [list(_ALL_CHARACTERS)]
    for ranges in sets:
        split = []
        for found in classes:
            outside = without(found, ranges)
            split += [part for part in (without(found, outside), outside) if part]
        classes = split
        if len(classes) > _MAX_CLASSES:
            raise TooLargeError("too many classes of characters")
    return classes


def json_string(terms: Terms, start: Term, rules: Rules) -> tuple[str | None, bool]:
    """Return the GBNF of the JSON strings that a term matches, and whether it allows no others.

    ``None`` stands for no text at all.

    Raises:
        TooLargeError: The automaton has more than :data:`MAX_STATES` states.
    """
    classes = _classes(start)
    arrows = _explore(terms, start, [found[0][0] for found in classes])
    live = _live(arrows)
    if start not in live:
        return None, True
    names = {state: rules.reserve() for state in arrows if state in live}
    exact = True
    for state, name in names.items():
        targets: dict[Term, list[Range]] = {}
        for found, target in zip(classes, arrows[state], strict=True):
            if target in live:
                targets.setdefault(target, []).extend(found)
        alternatives = ['""'] if state.nullable else []
        for target, ranges in targets.items():
            body, same = in_json(ranges)
            exact &= same
            if body is not None:
                alternatives.append(f"{body} {names[target]}")
        rules.define(name, " | ".join(alternatives))
    return f'"\\"" {names[start]} "\\""', exact


def _explore(terms: Terms, start: Term, chars: list[int]) -> dict[Term, list[Term]]:
    arrows: dict[Term, list[Term]] = {}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state in arrows:
            continue
        if len(arrows) >= MAX_STATES:
            raise TooLargeError(f"more than {MAX_STATES} states")
        arrows[state] = [terms.derive(state, char) for char in chars]
        waiting += [target for target in arrows[state] if target not in arrows and target is not terms.none]
    return arrows


def _live(arrows: dict[Term, list[Term]]) -> set[Term]:
    """Return the states from which an accepting state can be reached."""
    before: dict[Term, list[Term]] = {}
    for state, targets in arrows.items():
        for target in targets:
            before.setdefault(target, []).append(state)
    live = {state for state in arrows if state.nullable}
    waiting = list(live)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in live:
                live.add(state)
                waiting.append(state)
    return live
