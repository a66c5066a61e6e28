"""Checks that what a KV cache has recorded agrees with itself and with llama.cpp. Tests make them after every step."""

from __future__ import annotations

from collections.abc import Collection

from .residency import Residency
from .sequence import CachedSequence, Checkpoint


def check_integrity(sequences: Collection[CachedSequence], residency: Residency) -> None:
    """Raise ``AssertionError`` where what is recorded contradicts itself or llama.cpp's memory. Changes nothing.

    Args:
        sequences: All sequences of a cache, none of which is being changed.
        residency: Where they are.
    """
    _check_ids_and_cells(sequences, residency)
    for sequence in sequences:
        _check_leases(sequence)
        _check_places(sequence, residency)
        if sequence.seq_id is not None and residency.context is not None:
            _check_positions(sequence, residency)
    _check_host_memory(sequences, residency)


def _check_ids_and_cells(sequences: Collection[CachedSequence], residency: Residency) -> None:
    ids = [sequence.seq_id for sequence in sequences if sequence.seq_id is not None]
    cells = residency.cells
    assert len(set(ids)) == len(ids), f"two sequences have the same id: {ids}"
    assert not set(ids) & set(residency.free_ids), "an id is in use and free"
    for seq_id in residency.free_ids:
        assert residency.context is not None
        last = residency.context.seq_pos_max(seq_id)
        assert last == -1, f"no sequence has the id {seq_id}, but its last position is {last}"
        assert cells.length(seq_id) == 0, f"no sequence has the id {seq_id}, but it has cells"
    assert cells.used == cells.owned_by(ids), "cells are in use that no sequence owns"
    assert cells.used <= residency.n_cells, f"{cells.used} cells are in use, of {residency.n_cells}"


def _check_leases(sequence: CachedSequence) -> None:
    assert sequence.leases, "a sequence without a lease is kept"
    assert sequence.extension is None or sequence.extension in sequence.leases, "a lease that was released extends"
    assert sequence.n_pins == 0, "a sequence is pinned, but no operation is in progress"
    assert sequence.running or not sequence.planned, "a checkpoint is planned that no request will reach"
    assert sequence.running or not sequence.target, "an idle sequence has a prompt to evaluate"
    n = min(len(sequence.tokens), len(sequence.target))
    assert sequence.tokens[:n] == [*sequence.target[:n]], "a sequence holds other tokens than its request's"


def _check_places(sequence: CachedSequence, residency: Residency) -> None:
    n, resident = len(sequence.tokens), sequence.seq_id is not None
    assert not (sequence.state and resident), "a sequence is in two places"
    assert n == 0 or sequence.state or resident, f"{n} tokens have neither cells nor a state"
    if residency.context is not None:
        assert resident or not sequence.running, "a request is extending a sequence that has no cells"
    places = [checkpoint.n_tokens for checkpoint in sequence.checkpoints]
    assert places == sorted(set(places)), f"checkpoints are not in order: {places}"
    assert not places or 0 < places[0] <= places[-1] <= n, f"checkpoints after {places} tokens of {n}"


def _check_positions(sequence: CachedSequence, residency: Residency) -> None:
    context, seq_id, n = residency.context, sequence.seq_id, len(sequence.tokens)
    assert context is not None
    assert seq_id is not None
    first, last = context.seq_pos_min(seq_id), context.seq_pos_max(seq_id)
    assert last == n - 1, f"{n} tokens are recorded, but the last position is {last}"
    assert residency.is_whole(sequence), f"a sequence of {n} tokens cannot go on: its first position is {first}"
    cells = residency.cells.length(seq_id)
    assert cells == n, f"{n} tokens are recorded, but {cells} cells"


def _check_host_memory(sequences: Collection[CachedSequence], residency: Residency) -> None:
    counts: dict[Checkpoint, int] = {}
    for sequence in sequences:
        for checkpoint in sequence.checkpoints:
            counts[checkpoint] = counts.get(checkpoint, 0) + 1
    for checkpoint, n in counts.items():
        recorded = checkpoint.n_sequences
        assert recorded == n, f"{n} sequences have a checkpoint, but {recorded} are recorded"
    n_bytes = sum(len(sequence.state or b"") for sequence in sequences)
    n_bytes += sum(len(checkpoint.state) for checkpoint in counts)
    used = residency.host.used
    assert used == n_bytes, f"{n_bytes} bytes in host memory, but {used} are recorded"
