"""How many of the drafted tokens a step evaluates: as many as pay, by what wider steps have cost."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from statistics import median_low

from .tuning import (
    ALLOWANCE,
    COST_HORIZON,
    FIRST_COST,
    LEAST_ALLOWANCE,
    LOAN,
    MOST_CREDIT,
    MOST_LOSS,
    MOST_SLOWDOWN,
    SAMPLES,
    WORTH,
)


class StepTimes:
    """The times of the latest steps that evaluated no prompt, by their width: the number of tokens in them."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}
        self._noted: dict[int, int] = {}  # when the last one was noted
        self._clock = 0

    def note(self, width: int, seconds: float) -> None:
        """Note how long a step took."""
        self._clock += 1
        if self._is_old(width):
            self._times[width] = deque(maxlen=SAMPLES)
        self._times[width].append(seconds)
        self._noted[width] = self._clock

    def seconds(self, width: int) -> float | None:
        """Return how long a step of ``width`` tokens takes, ``None`` where that was not measured lately."""
        return None if self._is_old(width) else median_low(self._times[width])

    def costs(self, width: int) -> Callable[[int], float] | None:
        """Return a function that estimates how long a wider step takes, relative to one of ``width`` tokens.

        What was not measured lately lies on a line between what was, and a single measurement counts only where it is
        less: the first step of a width takes longer than those that follow.

        Returns:
            ``None`` where ``width`` itself was not measured lately.
        """
        if self._is_old(width):
            return None
        plain = median_low(self._times[width])
        known = sorted(
            (other, times) for other, times in self._times.items() if other > width and not self._is_old(other)
        )
        points = [(width, 1.0)] + [(other, median_low(times) / plain) for other, times in known if len(times) > 1]
        once = {other: times[0] / plain for other, times in known if len(times) == 1}

        def cost(other: int) -> float:
            return min(_on_line(points, other), once.get(other, math.inf))

        return cost

    def _is_old(self, width: int) -> bool:
        return width not in self._noted or self._clock - self._noted[width] > COST_HORIZON


def _on_line(points: Sequence[tuple[int, float]], x: int) -> float:
    """Return the value at ``x`` of the line through these points, which goes on with a slope of ``FIRST_COST``."""
    i = bisect_right(points, (x, math.inf))
    x0, y0 = points[i - 1]
    x1, y1 = points[i] if i < len(points) else (x0 + 1, y0 + FIRST_COST)
    return y0 + (x - x0) * (y1 - y0) / (x1 - x0)


def draft_lengths(
    chances: Sequence[Sequence[float]],
    n_rows: int,
    cost: Callable[[int], float],
    most: int,
    drafting: Callable[[int], float] = lambda _: 0.0,
    worth: float = WORTH,
) -> list[int]:
    """Return how many of its drafted tokens each request has evaluated in a step.

    They are chosen so that the requests together get the most tokens per second that can be expected. A step without
    drafts is preferred unless another one is ``worth`` times as fast, or if a request that gains less than others would
    lose more than :data:`~cyllama.engine.tuning.MOST_SLOWDOWN` allows.

    Args:
        chances: For each draft, how likely it is that a token and all before it are right, from the first token on.
        n_rows: Requests in the step, those without a draft included.
        cost: How long a step of so many tokens takes, relative to one of ``n_rows``.
        most: Most drafted tokens of the step.
        drafting: How long it takes to draft so many tokens of each request, relative to a step of ``n_rows``; nothing
            for drafts that exist.
        worth: How many times as fast a step with drafts has to be.
    """
    lengths, best = [0] * len(chances), [0] * len(chances)
    gains = [0.0] * len(chances)
    fastest = n_rows * worth
    likeliest_first = sorted((-chance, j, i) for i, each in enumerate(chances) for j, chance in enumerate(each))
    for n, (chance, _, i) in enumerate(likeliest_first[:most], 1):
        lengths[i] += 1
        gains[i] -= chance
        duration = cost(n_rows + n) + drafting(max(lengths))
        least = min(gains) if n_rows == len(gains) else 0.0
        speed = (n_rows + sum(gains)) / duration
        if speed > fastest and duration <= (1 + least) * MOST_SLOWDOWN:
            fastest, best = speed, list(lengths)
    return best


class Credit:
    """How many seconds a draft model may lose, so that it loses little whatever it drafts.

    It is granted a small loan to begin with, and a part of all time; besides, it has what drafts have saved. Until they
    have saved more than they have cost, wrong drafts in a row reduce that part, and what is left.

    >>> credit = Credit()
    >>> credit.note(100.0, 100.0, step=0.1)
    >>> credit.allows(2.7), credit.allows(2.9)
    (True, False)
    """

    def __init__(self) -> None:
        self._granted: float | None = None
        self._saved = 0.0  # by drafts; what they have cost, if that is more, is negative
        self._allowance = ALLOWANCE

    def note(self, without: float, seconds: float, step: float | None) -> None:
        """Note a step.

        Args:
            without: Seconds in which the same tokens are generated without drafts.
            seconds: Seconds that it has taken, with the drafts.
            step: Seconds of a step without drafts; ``None`` where that was not measured.
        """
        if step is None:
            return
        before = LOAN * step if self._granted is None else self._granted
        self._granted = min(before + without * self._allowance, MOST_CREDIT * step - self._saved)
        lost = min(seconds - without, MOST_LOSS * step)
        self._saved = min(self._saved - lost, MOST_CREDIT * step - self._granted)

    def note_draft(self, *, is_right: bool) -> None:
        """Note that a draft began rightly, or that all of it was wrong."""
        if is_right or self._saved > 0:
            self._allowance = ALLOWANCE
            return
        if self._granted is not None and self._allowance < ALLOWANCE / 2:
            self._granted -= max(self._granted + self._saved, 0) / 2
        self._allowance = max(self._allowance / 2, LEAST_ALLOWANCE)

    def allows(self, seconds: float) -> bool:
        """Return whether so many seconds may be lost."""
        return self._granted is not None and seconds <= self._granted + self._saved
