"""Which cells of a unified KV cache are in use, where sequences share some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class CellShare(NamedTuple):
    """The cells of one sequence.

    Attributes:
        alone: Number of cells that it owns alone.
        shared: Number of cells that others own as well.
        part: Its part of all: the first number, and of each shared cell an equal part for each owner.
    """

    alone: int
    shared: int
    part: float


class Run:
    """Cells at successive positions of the sequences that own them together.

    Attributes:
        length: Number of cells.
        owners: Number of sequences that own them.
    """

    __slots__ = ("length", "owners")

    def __init__(self, length: int) -> None:
        self.length = length
        self.owners = 1


class Cells:
    """The cells that each sequence owns, one for each position from 0 on.

    After a copy, both sequences own the cells of the common prefix, which count once. Each method says what it changes.

    >>> cells = Cells()
    >>> cells.append(0, 100)
    >>> cells.copy(0, 1, 60)
    >>> cells.append(1, 5)
    >>> cells.used, cells.owned_by([1])
    (105, 65)

    Attributes:
        used: Cells that some sequence owns.
    """

    def __init__(self) -> None:
        self.used = 0
        self._runs: dict[int, list[Run]] = {}

    def append(self, seq_id: int, n: int) -> None:
        """Let a sequence own ``n`` more cells, which were free."""
        if n <= 0:
            return
        runs = self._runs.setdefault(seq_id, [])
        if runs and runs[-1].owners == 1:
            runs[-1].length += n
        else:
            runs.append(Run(n))
        self.used += n

    def copy(self, source: int, target: int, n: int) -> None:
        """Let ``target``, which owns no cells, own the first ``n`` cells of ``source`` as well."""
        shared = self._runs.get(source, [])[: self._split(source, n)]
        for run in shared:
            run.owners += 1
        self._runs[target] = list(shared)

    def truncate(self, seq_id: int, n: int) -> None:
        """Let a sequence own only its first ``n`` cells. Cells without an owner become free."""
        keep = self._split(seq_id, n)
        for run in self._runs.get(seq_id, [])[keep:]:
            run.owners -= 1
            if run.owners == 0:
                self.used -= run.length
        if keep:
            del self._runs[seq_id][keep:]
        else:
            self._runs.pop(seq_id, None)

    def n_shared(self, seq_id: int, first: int, n: int) -> int:
        """Return how many of the cells [``first``, ``n``) of a sequence other sequences own as well."""
        runs = self._runs.get(seq_id, [])[self._split(seq_id, first) : self._split(seq_id, n)]
        return sum(run.length for run in runs if run.owners > 1)

    def unshare(self, seq_id: int, first: int, n: int) -> None:
        """Replace the cells [``first``, ``n``) of a sequence that it shares with others by free ones."""
        for i in range(self._split(seq_id, first), self._split(seq_id, n)):
            run = self._runs[seq_id][i]
            if run.owners > 1:
                run.owners -= 1
                self._runs[seq_id][i] = Run(run.length)
                self.used += run.length

    def owned_by(self, seq_ids: Iterable[int], prefix: tuple[int, int] | None = None) -> int:
        """Return how many cells these sequences own together.

        Args:
            seq_ids: Their ids.
            prefix: The id of one more sequence, and how many of its first cells count.
        """
        runs = {id(run): run for seq_id in seq_ids for run in self._runs.get(seq_id, ())}
        if prefix is not None:
            seq_id, n = prefix
            runs |= {id(run): run for run in self._runs.get(seq_id, [])[: self._split(seq_id, n)]}
        return sum(run.length for run in runs.values())

    def length(self, seq_id: int) -> int:
        """Return how many cells a sequence owns."""
        return sum(run.length for run in self._runs.get(seq_id, ()))

    def shares(self) -> dict[int, CellShare]:
        """Return what each sequence owns. Any thread may call this; beside a step, it may be of two moments."""
        return {seq_id: _share_of(runs.copy()) for seq_id, runs in self._runs.copy().items()}

    def _split(self, seq_id: int, n: int) -> int:
        """Divide the run that holds the cell ``n`` and the one before; return how many runs hold the first ``n``."""
        for i, run in enumerate(self._runs.get(seq_id, ())):
            if n <= 0:
                return i
            if n < run.length:
                self._divide(run, n)
                return i + 1
            n -= run.length
        return len(self._runs.get(seq_id, ()))

    def _divide(self, run: Run, n: int) -> None:
        rest = Run(run.length - n)
        rest.owners = run.owners
        run.length = n
        for runs in self._runs.values():
            for i, other in enumerate(runs):
                if other is run:
                    runs.insert(i + 1, rest)
                    break


def _share_of(runs: Iterable[Run]) -> CellShare:
    alone, shared, part = 0, 0, 0.0
    for run in runs:
        owners = max(1, run.owners)  # 0 for a moment, while a thread truncates
        part += run.length / owners
        if owners > 1:
            shared += run.length
        else:
            alone += run.length
    return CellShare(alone, shared, part)
