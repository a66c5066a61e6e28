"""How many of the drafted tokens a step evaluates: as many as pay, by what wider steps have cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

from .tuning import COST_HORIZON, FIRST_COST, MOST_SLOWDOWN, SAMPLES, WORTH


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

    def costs(self, width: int) -> Callable[[int], float] | None:
        """Return a function that estimates how many steps of ``width`` tokens a step of another width is worth.

        A width that was not measured lately is expected to cost little, so that it is tried.

        Returns:
            ``None`` where ``width`` itself was not measured lately.
        """
        if self._is_old(width):
            return None
        plain = median(self._times[width])

        def cost(other: int) -> float:
            expected = plain * (1 + (other - width) * FIRST_COST)
            times = () if self._is_old(other) else self._times[other]
            return median((expected, *times)) / plain

        return cost

    def _is_old(self, width: int) -> bool:
        return width not in self._noted or self._clock - self._noted[width] > COST_HORIZON


def draft_lengths(
    chances: Sequence[Sequence[float]], n_rows: int, cost: Callable[[int], float], most: int
) -> list[int]:
    """Return how many of its drafted tokens each request has evaluated in a step.

    They are chosen so that the requests together get the most tokens per second that can be expected. A step without
    drafts is preferred unless another one is :data:`~cyllama.engine.tuning.WORTH` times as fast, or if a request that
    gains less than others would lose more than :data:`~cyllama.engine.tuning.MOST_SLOWDOWN` allows.

    Args:
        chances: For each draft, how likely it is that a token and all before it are right, from the first token on.
        n_rows: Requests in the step, those without a draft included.
        cost: How long a step of so many tokens takes, relative to one of ``n_rows``.
        most: Most drafted tokens of the step.
    """
    lengths, best = [0] * len(chances), [0] * len(chances)
    gains = [0.0] * len(chances)
    fastest = n_rows * WORTH
    likeliest_first = sorted((-chance, j, i) for i, each in enumerate(chances) for j, chance in enumerate(each))
    for n, (chance, _, i) in enumerate(likeliest_first[:most], 1):
        lengths[i] += 1
        gains[i] -= chance
        duration = cost(n_rows + n)
        least = min(gains) if n_rows == len(gains) else 0.0
        speed = (n_rows + sum(gains)) / duration
        if speed > fastest and duration <= (1 + least) * MOST_SLOWDOWN:
            fastest, best = speed, list(lengths)
    return best
