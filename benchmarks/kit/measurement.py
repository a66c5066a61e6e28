"""What a scenario measured: every round of every contender, and how cyllama stands beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

OURS = "cyllama"
#: llama.cpp's tools that evaluate the same tokens and sample nothing: the native limit.
LIMITS = ("llama-bench", "llama-batched-bench")
#: What reads the weights as fast as memory gives them, and does nothing else: the bound of decoding.
BOUND = "a read loop"


class Ratio(NamedTuple):
    """How far cyllama is ahead of another contender: above 1 it is ahead, whether more is better or less.

    Attributes:
        median: Of the rounds' own ratios.
        low: Of the least round.
        high: Of the best round.
        rounds: How many there were.
    """

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Standing(NamedTuple):
    """A ratio, and what it is of.

    Attributes:
        title: Of the measurement.
        x: Place on its axis; empty without an axis.
        other: Who cyllama is compared with.
        ratio: To that contender.
    """

    title: str
    x: str
    other: str
    ratio: Ratio


@dataclass
class Measurement:
    """A quantity that all contenders of a scenario have.

    Attributes:
        scenario: Its name on the command line.
        title: What was measured.
        unit: Of the values.
        better: Whether more of it is better, or less.
        axis: What is varied, such as "callers"; empty without an axis.
        samples: Values by contender and by place on the axis, a value for each round.
        failures: Why contenders are missing.
    """

    scenario: str
    title: str
    unit: str
    better: Literal["more", "less"] = "more"
    axis: str = ""
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Measurement:
        """Return what :meth:`to_json` returned."""
        return cls(**{each.name: document[each.name] for each in fields(cls)})

    def add(self, contender: str, value: float, x: object = "") -> None:
        """Note a value of a round."""
        self.samples.setdefault(contender, {}).setdefault(str(x), []).append(value)

    def median(self, contender: str, x: str = "") -> float | None:
        """Return a contender's median; None where it was not measured."""
        values = self.samples.get(contender, {}).get(x)
        return statistics.median(values) if values else None

    def places(self) -> list[str]:
        """Return the places on the axis, in the order of measuring."""
        return list(dict.fromkeys(x for by_x in self.samples.values() for x in by_x))

    def ratio(self, other: str, x: str = "") -> Ratio | None:
        """Return how far cyllama is ahead of another contender, round by round."""
        pairs = zip(self.samples.get(OURS, {}).get(x, []), self.samples.get(other, {}).get(x, []), strict=False)
        ratios = [_quotient(a, b) if self.better == "more" else _quotient(b, a) for a, b in pairs]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None

    def best_peer(self, x: str = "") -> str | None:
        """Return the peer that does best at a place; None without one."""
        no_peers = (OURS, f"{OURS}, plain", BOUND, *LIMITS)
        peers = [name for name in self.samples if name not in no_peers and self.median(name, x) is not None]
        if not peers:
            return None
        return (max if self.better == "more" else min)(peers, key=lambda name: self.median(name, x) or 0.0)

    def limit(self, x: str = "") -> str | None:
        """Return the native limit that was measured at a place."""
        return next((name for name in LIMITS if self.median(name, x) is not None), None)

    def standings(self) -> Iterator[Standing]:
        """Yield the ratio to the best peer, and the one to the native limit, at each place."""
        for x in self.places():
            for other in (self.best_peer(x), self.limit(x)):
                ratio = self.ratio(other, x) if other is not None else None
                if other is not None and ratio is not None:
                    yield Standing(self.title, x, other, ratio)

    def to_json(self) -> dict[str, Any]:
        """Return everything, with the ratios."""
        ratios = [{"x": s.x, "to": s.other, **s.ratio._asdict()} for s in self.standings()]
        return {**asdict(self), "ratios": ratios}

    def __str__(self) -> str:
        lines = [f"{self.title} ({self.unit}, {self.better} is better)"]
        places = self.places()
        width = max(12, 2 + max(map(len, places), default=0))
        if self.axis:
            lines.append(f"  {self.axis:24}" + "".join(f"{x:>{width}}" for x in places))
        for name in sorted(self.samples, key=lambda name: name != OURS):
            values = [self.median(name, x) for x in places]
            lines.append(f"  {name:24}" + "".join(f"{'' if v is None else format_value(v):>{width}}" for v in values))
        lines += [f"  {s.x:>8} cyllama / {s.other}: {s.ratio}" for s in self.standings()]
        lines += [f"  missing: {name}: {reason}" for name, reason in self.failures.items()]
        return "\n".join(lines)


def _quotient(a: float, b: float) -> float:
    return a / b if b else float("inf")


def format_value(value: float) -> str:
    """Return a value with three or more digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def worst(measurements: Iterable[Measurement], n: int = 3) -> list[Standing]:
    """Return where cyllama stands worst, each measurement at most once: at its lowest ratio to a peer or a limit."""
    lowest = [min(standings, key=lambda s: s.ratio.median) for m in measurements if (standings := [*m.standings()])]
    return sorted(lowest, key=lambda s: s.ratio.median)[:n]


def worst_lines(measurements: Iterable[Measurement]) -> str:
    """Return a list in Markdown of the three places where cyllama stands worst."""
    lines = [
        f"- {' '.join(f'{s.title}, {s.x}'.rstrip(', ').split())}: {s.ratio} of {s.other}" for s in worst(measurements)
    ]
    return "\n".join(lines) or "- nothing was compared"


def missing_lines(measurements: Iterable[Measurement]) -> str:
    """Return a list in Markdown of who is missing in which scenarios, and why."""
    scenarios: dict[str, dict[str, None]] = {}
    for measurement in measurements:
        for name, reason in measurement.failures.items():
            scenarios.setdefault(f"{name}: {reason}", {})[measurement.scenario] = None
    return "\n".join(f"- Missing in {', '.join(names)}: {who}" for who, names in scenarios.items())


def markdown(measurements: Iterable[Measurement]) -> str:
    """Return a table of all ratios: the best peer and the native limit in columns of their own."""
    rows = ["| | | cyllama | best peer | ratio | native limit | ratio |", "|---|---|---|---|---|---|---|"]
    for m in measurements:
        for x in m.places():
            ours = m.median(OURS, x)
            if ours is not None:
                place = f"{x} {m.axis}" if x.isdigit() else x
                cells = [
                    f"{format_value(ours)} {m.unit}",
                    *_compared(m, m.best_peer(x), x),
                    *_compared(m, m.limit(x), x),
                ]
                rows.append(f"| {m.title} | {place} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _compared(measurement: Measurement, other: str | None, x: str) -> tuple[str, str]:
    value = None if other is None else measurement.median(other, x)
    if other is None or value is None:
        return "", ""
    return f"{other}: {format_value(value)}", str(measurement.ratio(other, x))
