"""The sequences of a KV cache, and which of them leave the context or host memory to make room for others."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

from ..llama.llama_cpp import LlamaContext
from .adapters import AdapterKey
from .cells import CellShare
from .log import EngineLogger
from .memory import Attention
from .residency import FAILURES, HostMemory, Residency
from .sequence import CachedSequence
from .tuning import RETURNING

logger = EngineLogger(__name__)


class SequenceStore:
    """Sequences that move between the context and host memory.

    A sequence is *running* while a request extends it, otherwise *idle*. Running ones are in the context if there is
    one. Idle ones are evicted when their cells or ids are needed: to host memory while it has room, otherwise they are
    dropped.

    Methods whose description does not say that they change something change nothing.

    Attributes:
        idle_cells_max: How many cells idle sequences may keep while others run.
    """

    def __init__(self, memory: Attention, host: HostMemory, idle_cells_max: int) -> None:
        self.idle_cells_max = idle_cells_max
        self._host = host
        self._residency = Residency(memory, host)
        self._sequences: dict[CachedSequence, None] = {}  # an ordered set
        self._clock = 0

    # --- contexts

    def attach(self, context: LlamaContext) -> None:
        """Use an empty context from now on, and move into it what runs and what fits of the rest.

        Changes the cache. There must be no context before.
        """
        self._residency.enter(context)
        for sequence in sorted(self._sequences, key=self.eviction_priority, reverse=True):
            if sequence.running or (self._residency.free_ids and len(sequence.tokens) <= self.free_cells):
                self._enter_context(sequence)
        self._keep_to_host_limit()

    def detach(self, idle_bytes_max: float | None = None) -> None:
        """Move everything to host memory, even beyond its limit, before the context is replaced by another.

        Changes the cache: there is no context after that. What there is no memory for is dropped, and evaluated again
        when it is needed: idle sequences first.

        Args:
            idle_bytes_max: Most bytes for the idle sequences of the context; ``None`` for no limit.
        """
        for sequence in sorted(self._resident(), key=self.eviction_priority, reverse=True):
            n_bytes = 0 if sequence.running else self.bytes_to_move([sequence])
            if idle_bytes_max is not None and n_bytes > idle_bytes_max:
                self._residency.drop(sequence)
                continue
            if idle_bytes_max is not None:
                idle_bytes_max -= n_bytes
            self._swap_out_or_drop(sequence)
        self._residency.leave()

    @property
    def running(self) -> list[CachedSequence]:
        """The sequences that requests are extending."""
        return [sequence for sequence in self._sequences if sequence.extension is not None]

    def bytes_to_move(self, sequences: Iterable[CachedSequence]) -> float:
        """Return how many bytes of host memory these sequences would take, about."""
        return self._host.bytes_for(sequences)

    def close(self) -> None:
        """Forget all sequences, whose leases are of no effect from now on, and give back host memory at once.

        Changes the cache. The context is gone, or about to go: it is not used any more.
        """
        self._residency.leave()
        for sequence in self._sequences:
            sequence.tokens, sequence.planned, sequence.seq_id = [], [], None
            self._host.set_state(sequence, None)
            self._host.set_checkpoints(sequence, [])
        self._sequences.clear()

    def purge(self, sequences: Iterable[CachedSequence]) -> None:
        """Drop sequences whose keys and values are NaN, and wipe the cells of the context.

        Changes the cache; sequences without NaN keep their tokens. Attention multiplies what a cell holds by 0 where
        a sequence does not own it: that is 0 for finite values only.
        """
        context = self._residency.context
        assert context is not None
        for sequence in sequences:
            self._residency.drop(sequence)
        self.detach()
        context.kv_cache_clear(clear_data=True)
        self.attach(context)

    # --- room

    @property
    def n_cells(self) -> int:
        """Cells of the context, 0 without one."""
        return self._residency.n_cells

    @property
    def free_cells(self) -> int:
        """Cells that no sequence owns."""
        return self._residency.free_cells

    @property
    def used_cells(self) -> int:
        """Cells that some sequence owns."""
        return self._residency.cells.used

    @property
    def cell_shares(self) -> dict[int, CellShare]:
        """Cells of each sequence in the context, by its id. Any thread may ask."""
        return self._residency.cells.shares()

    @property
    def idle_cells(self) -> int:
        """Cells that only idle sequences own."""
        return self.used_cells - self._residency.cells.owned_by(self._running_ids())

    @property
    def host_bytes(self) -> int:
        """Bytes of host memory in use."""
        return self._host.used

    def idle_tokens(self, but: CachedSequence | None) -> int:
        """Return how many tokens idle sequences, ``but`` that one, hold that may be in the context together."""
        idle = (s for s in self._sequences if not s.running and s is not but and (s.state or s.seq_id is not None))
        return min(sum(len(sequence.tokens) for sequence in idle), self.idle_cells_max)

    def eviction_priority(self, sequence: CachedSequence) -> tuple[bool, float]:
        """Return how late a sequence is evicted: the least recently used one first, one that was used again later.

        Before all that conversations come back to, those leave that are only kept as prefixes.
        """
        if sequence.running or sequence.awaited:
            return True, 1.0 if sequence.running else 0.5
        age = self._clock - sequence.last_used + 1
        return not sequence.is_prefix, -age / (RETURNING if sequence.calls > 1 else 1)

    def make_room(self, n_cells: int) -> bool:
        """Evict idle sequences until ``n_cells`` are free; return whether they are. Changes the cache."""
        while self.free_cells < n_cells and self.evict():
            pass
        return self.free_cells >= n_cells

    def evict(self) -> bool:
        """Move the idle sequence of least priority to host memory, or drop it; return whether there was one.

        Changes the cache. Cells that it shares with others do not become free.
        """
        return self._evict_least(sequence for sequence in self._resident() if sequence.is_evictable)

    def move_away(self, but: CachedSequence | None = None) -> bool:
        """Move the idle sequence of least priority, ``but`` that one, to host memory, if nothing is dropped for it.

        Changes the cache. Returns whether one was moved.
        """
        idle = (sequence for sequence in self._resident() if sequence.is_evictable and sequence is not but)
        return self._evict_least(sequence for sequence in idle if self._host.has_room_for(sequence))

    def limit_idle(self) -> None:
        """While others run: move idle sequences away that attention would take too long to pass over.

        Changes the cache.
        """
        while self.idle_cells > self.idle_cells_max and self.move_away():
            pass

    def _evict_least(self, sequences: Iterable[CachedSequence]) -> bool:
        """Evict the one of least priority; return whether there was one."""
        least = min(sequences, key=self.eviction_priority, default=None)
        if least is None:
            return False
        self._evict(least)
        return True

    def _evict(self, sequence: CachedSequence) -> None:
        if self._host.limit == 0 or not sequence.tokens:
            self._residency.drop(sequence)
            return
        self._swap_out_or_drop(sequence)
        self._keep_to_host_limit()

    def _swap_out_or_drop(self, sequence: CachedSequence) -> None:
        try:
            self._residency.swap_out(sequence)
        except FAILURES:
            logger.debug("a sequence of %d tokens could not be moved", len(sequence.tokens), exc_info=True)
            self._residency.drop(sequence)

    def _keep_to_host_limit(self) -> None:
        """Drop what has the least priority in host memory until the rest fits into its limit.

        First what is only kept as a prefix, then all checkpoints of sequences but their last ones, then swapped
        sequences, and the last ones of others.
        """
        while self._host.is_exceeded:
            idle = [s for s in self._sequences if (s.state or s.checkpoints) and s.is_evictable]
            if not idle:
                return
            least = min(idle, key=lambda s: (not s.is_prefix, len(s.checkpoints) <= 1, self.eviction_priority(s)))
            if least.seq_id is not None or len(least.checkpoints) > 1:
                self._host.set_checkpoints(least, least.checkpoints[1:])
            else:
                self._residency.drop(least)

    # --- internal: sequences

    def _resident(self) -> list[CachedSequence]:
        return [sequence for sequence in self._sequences if sequence.seq_id is not None]

    def _running_ids(self) -> list[int]:
        return [s.seq_id for s in self._sequences if s.extension is not None and s.seq_id is not None]

    def _add(self, scope: str | None, adapters: AdapterKey) -> CachedSequence:
        sequence = CachedSequence(scope=scope, adapters=adapters)
        self._sequences[sequence] = None
        return sequence

    def _new_resident(
        self, *, scope: str | None, adapters: AdapterKey, beside: CachedSequence | None = None
    ) -> CachedSequence:
        """Return an empty sequence with an id, for which no sequence ``beside`` it is evicted."""
        with nullcontext() if beside is None else beside.pinned():
            if not self._residency.free_ids and not self.evict():
                raise RuntimeError("all sequences of the context are in use")
        sequence = self._add(scope, adapters)
        self._residency.take_id(sequence)
        return sequence

    def _discard(self, sequence: CachedSequence) -> None:
        self._residency.drop(sequence)
        del self._sequences[sequence]

    def _bring_in(self, sequence: CachedSequence) -> bool:
        """Have a sequence in the context; return whether it is."""
        if sequence.seq_id is not None:
            return True
        if sequence.state is None:
            return False
        with sequence.pinned():  # nor dropped from host memory to make room for itself
            has_room = self.make_room(len(sequence.tokens)) and (bool(self._residency.free_ids) or self.evict())
        return has_room and self._residency.swap_in(sequence)

    def _enter_context(self, sequence: CachedSequence) -> None:
        """Move a sequence into the context; a running one that has no state has not been evaluated yet."""
        if sequence.state is not None:
            self._residency.swap_in(sequence)
        elif sequence.running:
            self._residency.take_id(sequence)
