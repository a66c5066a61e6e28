"""What the benchmarks print: where they ran, and what was measured beside what was wanted."""

from __future__ import annotations

import operator
import platform
from collections.abc import Callable
from typing import Literal, NamedTuple


class Bound(NamedTuple):
    """How a number is compared with its goal."""

    sign: str
    holds: Callable[[float, float], bool]


BOUNDS = {"at least": Bound(">=", operator.ge), "at most": Bound("<=", operator.le), "exactly": Bound("=", operator.eq)}


class Row(NamedTuple):
    """One measured number, and the bound that it has to keep."""

    label: str
    value: float
    form: str = "{:.1f}"
    goal: float | None = None
    bound: Literal["at least", "at most", "exactly"] = "at least"

    @property
    def reached(self) -> bool:
        """Whether it keeps its bound; what has none is reached."""
        return self.goal is None or BOUNDS[self.bound].holds(self.value, self.goal)

    def __str__(self) -> str:
        text = f"  {self.label:52}{self.form.format(self.value):>16}"
        if self.goal is None:
            return text
        return f"{text}   goal {BOUNDS[self.bound].sign} {self.goal:g}: {verdict(self.reached)}"


class Table(NamedTuple):
    """What a case measured."""

    title: str
    rows: list[Row]

    @property
    def reached(self) -> bool:
        """Whether all goals are."""
        return all(row.reached for row in self.rows)

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.rows)])


def verdict(reached: bool) -> str:
    """Say whether a goal is reached."""
    return "ok" if reached else "MISSED"


def describe_run(n_threads: int, rounds: int) -> str:
    """Return a line with what all figures of a run depend on."""
    return f"{platform.machine()}, {n_threads} threads, Python {platform.python_version()}, {rounds} rounds"
