"""Objects as grammars: properties in the order of the schema, and objects that begin alike written as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import gbnf
from .characters import in_json
from .gbnf import Rules

MAX_IN_ORDER = 64  # of properties that are not required
MAX_COUNTED = 16  # of properties where their number is bounded
_MAX_ARROWS = 4000


@dataclass(frozen=True)
class Shape:
    """An object.

    Attributes:
        properties: Name, as it is written before the value, whether it is required, and the rule of the value.
        extras: GBNF of other names, and the rules of their values.
        least: How many properties there are at least.
        most: How many at most; ``None`` for any number.
    """

    properties: tuple[tuple[str, bool, str], ...] = ()
    extras: tuple[tuple[str, str], ...] = ()
    least: int = 0
    most: int | None = None

    @property
    def counts(self) -> bool:
        """Whether the number of properties matters beyond which of them are required."""
        required = sum(required for _, required, _ in self.properties)
        most = None if self.extras else len(self.properties)
        return self.least > required or (self.most is not None and (most is None or self.most < most))


#: How far an object is: which shape, how many of its properties are written or left out, how many are written.
_Place = tuple[int, int, int]
_State = frozenset[_Place]


@dataclass
class _Arrows:
    """What can be written next: names of properties, GBNF of others, and whether the object can end."""

    named: dict[str, dict[str, set[_Place]]] = field(default_factory=dict)
    others: dict[tuple[str, str], set[_Place]] = field(default_factory=dict)
    ends: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.named.values())) + len(self.others) + 1


class _Objects:
    """Shapes as an automaton whose letters are properties."""

    def __init__(self, shapes: list[Shape]) -> None:
        self._shapes = [_Ordered(shape) for shape in shapes]
        self.start: _State = frozenset((i, 0, 0) for i in range(len(shapes)))

    def arrows(self, state: _State) -> _Arrows:
        found = _Arrows()
        for i, position, count in sorted(state):
            self._shapes[i].add_arrows(found, i, position, count)
        return found

    def all_arrows(self) -> dict[_State, _Arrows] | None:
        """Return the arrows of all states, or ``None`` if these are too many."""
        found: dict[_State, _Arrows] = {}
        waiting = [self.start]
        total = 0
        while waiting:
            state = waiting.pop()
            if state in found:
                continue
            found[state] = self.arrows(state)
            total += len(found[state])
            if total > _MAX_ARROWS and len(self._shapes) > 1:
                return None
            waiting += [frozenset(places) for places in _targets(found[state])]
        return found


class _Ordered:
    """One shape. Properties that are not required come in any order, and again, where they are too many."""

    def __init__(self, shape: Shape) -> None:
        optional = sum(not required for _, required, _ in shape.properties)
        self._loops = optional > MAX_IN_ORDER
        properties = list(shape.properties)
        if self._loops:
            properties.sort(key=lambda item: not item[1])
        self._properties = properties
        self._loop_begin = len(properties) - optional if self._loops else len(properties)
        self._shape = shape
        self._counts = shape.counts
        self._enough = max(shape.least, shape.most or 0) + 1

    def add_arrows(self, found: _Arrows, index: int, position: int, count: int) -> None:
        following = min(count + 1, self._enough) if self._counts else 0
        if self._counts and self._shape.most is not None and count >= self._shape.most:
            found.ends |= not any(required for _, required, _ in self._properties[position:])
            return
        for i in range(position, len(self._properties)):
            key, required, rule = self._properties[i]
            target = (index, self._loop_begin if i >= self._loop_begin else i + 1, following)
            if self._reaches_least(target):
                found.named.setdefault(key, {}).setdefault(rule, set()).add(target)
            if required:
                return
        for extra in self._shape.extras:
            found.others.setdefault(extra, set()).add((index, self._end, following))
        found.ends |= not self._counts or count >= self._shape.least

    @property
    def _end(self) -> int:
        return self._loop_begin if self._loops else len(self._properties)

    def _reaches_least(self, place: _Place) -> bool:
        _, position, count = place
        return (
            not self._counts
            or bool(self._shape.extras)
            or count + len(self._properties) - position >= self._shape.least
        )


def _targets(arrows: _Arrows) -> Iterator[set[_Place]]:
    for rules in arrows.named.values():
        yield from rules.values()
    yield from arrows.others.values()


def fits_together(shapes: list[Shape]) -> bool:
    """Whether several shapes can be written as one without too many rules."""
    return not any(shape.counts for shape in shapes) and _Objects(shapes).all_arrows() is not None


def write_objects(shapes: list[Shape], rules: Rules) -> str:
    """Return the GBNF of objects of one of these shapes.

    Args:
        shapes: The shapes; several only where they fit together.
        rules: Where rules are added.
    """
    objects = _Objects(shapes)
    states = objects.all_arrows()
    assert states is not None
    names = {state: rules.reserve() for state in states if state != objects.start}
    if any(places == objects.start for arrows in states.values() for places in _targets(arrows)):
        names[objects.start] = rules.reserve()
    space = rules.shared(gbnf.SPACE)
    for state, name in names.items():
        arrows = states[state]
        ends = [f'{space} "}}"'] if arrows.ends else []
        more = _next(arrows, names, space) if arrows.named or arrows.others else ""
        rules.define(name, " | ".join([*([f'"," {space} ( {more} )'] if more else []), *ends]))
    first = states[objects.start]
    begins = _next(first, names, space) if first.named or first.others else ""
    if not begins:
        return f'"{{" {space} "}}"'
    return f'"{{" {space} ( {begins} )' if not first.ends else f'"{{" {space} ( {begins} | "}}" )'


def _next(arrows: _Arrows, names: dict[_State, str], space: str) -> str:
    """Return the GBNF of the next property and of what follows it."""
    rests: dict[str, str] = {}
    for key, values in arrows.named.items():
        bodies = [f"{rule} {names[frozenset(places)]}" for rule, places in values.items()]
        rests[key] = f"{space} {bodies[0]}" if len(bodies) == 1 else f"{space} ( {' | '.join(bodies)} )"
    others = [f'{key} ":" {space} {rule} {names[frozenset(places)]}' for (key, rule), places in arrows.others.items()]
    return " | ".join([*([gbnf.choice(rests)] if rests else []), *others])


def other_names(names: list[str], rules: Rules) -> str:
    """Return the GBNF of the JSON strings except the given names."""
    char = rules.shared(gbnf.CHAR)

    def visit(rests: list[str]) -> str:
        firsts: dict[str, list[str]] = {}
        for rest in rests:
            if rest:
                firsts.setdefault(rest[0], []).append(rest[1:])
        codes = sorted((ord(first), ord(first)) for first in firsts)
        alternatives = [f"{in_json(codes, negate=True)[0]} {char}*"]
        for first, inner in firsts.items():
            alternatives.append(f"{in_json([(ord(first), ord(first))])[0]} {rules.add(visit(inner))}")
        return " | ".join([*([] if "" in rests else ['""']), *alternatives])

    return f'"\\"" {rules.add(visit(names))} "\\""'
