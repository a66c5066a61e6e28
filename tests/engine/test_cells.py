"""The accounts of cells that sequences share, beside accounts that name every single cell."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama.engine.cells import Cells

SEQUENCES = range(4)
seq_ids, counts = st.sampled_from(SEQUENCES), st.integers(0, 12)
operations = st.one_of(
    st.tuples(st.just("append"), seq_ids, counts),
    st.tuples(st.just("truncate"), seq_ids, counts),
    st.tuples(st.just("copy"), st.tuples(seq_ids, seq_ids), counts),
)


class NamedCells:
    """The same, with a name for every cell."""

    def __init__(self) -> None:
        self.names = itertools.count()
        self.cells: dict[int, list[int]] = {seq_id: [] for seq_id in SEQUENCES}

    def append(self, seq_id: int, n: int) -> None:
        self.cells[seq_id] += itertools.islice(self.names, n)

    def truncate(self, seq_id: int, n: int) -> None:
        del self.cells[seq_id][n:]

    def copy(self, source: int, target: int, n: int) -> None:
        self.cells[target] = self.cells[source][:n]

    def n_alone(self, seq_id: int) -> int:
        others = set[int]().union(*(cells for other, cells in self.cells.items() if other != seq_id))
        return len(set(self.cells[seq_id]) - others)

    def owned_by(self, seq_ids: list[int]) -> int:
        return len(set().union(*(self.cells[seq_id] for seq_id in seq_ids)))


@given(st.lists(operations, max_size=40))
def test_every_cell_counts_once_however_many_sequences_share_it(steps: list[tuple]):
    cells, named = Cells(), NamedCells()
    for what, where, n in steps:
        if what == "copy":
            source, target = where
            if source == target:
                continue
            for ledger in (cells, named):
                ledger.truncate(target, 0)
                ledger.copy(source, target, n)
        else:
            getattr(cells, what)(where, n)
            getattr(named, what)(where, n)
        assert cells.used == named.owned_by(list(SEQUENCES))
        for seq_id in SEQUENCES:
            assert cells.length(seq_id) == len(named.cells[seq_id])
            share = cells.shares().get(seq_id, (0, 0, 0.0))
            assert share == (named.n_alone(seq_id), len(named.cells[seq_id]) - named.n_alone(seq_id), share[2])
        assert sum(share.part for share in cells.shares().values()) == pytest.approx(cells.used)
        for size in SEQUENCES:
            for some in itertools.combinations(SEQUENCES, size):
                assert cells.owned_by(some) == named.owned_by(list(some))


def test_a_shared_prefix_is_free_again_when_its_last_owner_gives_it_up():
    cells = Cells()
    cells.append(0, 100)
    cells.copy(0, 1, 60)
    cells.append(1, 5)
    assert (cells.used, cells.owned_by([1]), cells.owned_by([0, 1])) == (105, 65, 105)
    cells.truncate(0, 0)
    assert cells.used == 65
    cells.truncate(1, 30)
    assert cells.used == 30
    cells.truncate(1, 0)
    assert cells.used == 0


def test_what_one_sequence_appends_to_a_shared_prefix_is_its_own():
    cells = Cells()
    cells.append(0, 10)
    cells.copy(0, 1, 10)
    cells.append(0, 1)
    cells.append(1, 2)
    assert (cells.length(0), cells.length(1), cells.used) == (11, 12, 13)


@pytest.mark.parametrize("n", [0, 1, 9, 10, 11])
def test_truncating_one_owner_leaves_the_other_whole(n: int):
    cells = Cells()
    cells.append(0, 10)
    cells.copy(0, 1, 10)
    cells.truncate(0, n)
    assert (cells.length(0), cells.length(1), cells.used) == (min(n, 10), 10, 10)
