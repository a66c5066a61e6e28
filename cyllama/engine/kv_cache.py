"""Which sequence of the context holds which tokens, and what is kept of the others in host memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from ..llama.llama_cpp import LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, LlamaContext, LlamaModel, LlamaState
from .adapters import AdapterKey
from .cells import Cells
from .log import EngineLogger
from .memory import memory_of
from .sequence import CachedSequence, Checkpoint, Lease, common_prefix
from .tuning import COPY_COST, MIN_SHARED, MOST_CHECKPOINTS, RETURNING, SLACK

logger = EngineLogger(__name__)

FAILURES = (RuntimeError, ValueError, MemoryError)  # what llama.cpp and the binding raise for a state


class KVCache:
    """Every sequence that requests run on or that conversations may come back to.

    A sequence is known by its token ids, and by what they were evaluated with: a state is used for a request of the
    same adapters only, and as far as its token ids agree with the request's own. It is compared with llama.cpp's
    positions whenever a request begins to use it, and evaluated again where they disagree. A sequence is *resident* in
    the context, *swapped* to host memory, or *dropped*, and then evaluated again when it is needed. What is shared is
    copied, never taken. Only the engine's thread uses it.

    Attributes:
        idle_cells_max: How many cells idle sequences may keep while others run.
        host_bytes: Host memory in use.
        n_cells: Cells of the context, 0 without one.
        cells_left: Whether cells became free since :meth:`begin_in_order`: the next tokens take them out of order.
    """

    def __init__(
        self,
        model: LlamaModel,
        host_bytes_max: int,
        idle_cells_max: int,
        *,
        swa_full: bool = False,
        token_bytes: float = 1,
        order_decides: bool = False,
    ) -> None:
        """Make an empty cache.

        Args:
            model: What sequences are evaluated with.
            host_bytes_max: Most host memory for sequences that are not in the context, and for checkpoints.
            idle_cells_max: How many cells idle sequences may keep while others run.
            swa_full: Whether contexts keep every token of sliding-window layers.
            token_bytes: Host memory of a token, as far as that is known before the first one is moved there.
            order_decides: Whether the order of a sequence's own cells decides how attention is rounded, and not where
                they lie.
        """
        self._memory = memory_of(model, swa_full=swa_full)
        self._host_bytes_max = host_bytes_max
        self.idle_cells_max = idle_cells_max
        self._context: LlamaContext | None = None
        self._cells = Cells()
        self._sequences: dict[CachedSequence, None] = {}  # an ordered set
        self._free_ids: list[int] = []
        self._clock = 0
        self._highest = 0  # no cell beyond this one is in use
        self._token_bytes = token_bytes  # host memory that a token of the last swapped sequence took
        self._order_decides = order_decides
        self.host_bytes = 0
        self.n_cells = 0
        self.cells_left = False

    # --- contexts

    def attach(self, context: LlamaContext) -> None:
        """Use an empty context from now on, and move into it what ran or fits of what :meth:`detach` saved."""
        self._context = context
        self._memory.attach(context)
        self._cells = Cells()
        self._free_ids = list(range(context.n_seq_max))[::-1]
        self.n_cells = context.n_ctx
        for sequence in sorted(self._sequences, key=self.eviction_priority, reverse=True):
            if sequence.running or (self._free_ids and len(sequence.tokens) <= self.free_cells):
                self._swap_in(sequence)
        self._keep_to_budget()

    def detach(self, idle_bytes_max: float | None = None) -> None:
        """Move everything to host memory, before the context is replaced by another.

        What there is no memory for is dropped, and evaluated again when it is needed: idle sequences first.

        Args:
            idle_bytes_max: Most host memory for the idle sequences of the context; ``None`` takes whatever there is.
        """
        for sequence in sorted(self._resident(), key=self.eviction_priority, reverse=True):
            n_bytes = 0 if sequence.running else self.bytes_to_move([sequence])
            if idle_bytes_max is not None and n_bytes > idle_bytes_max:
                self._drop(sequence)
                continue
            if idle_bytes_max is not None:
                idle_bytes_max -= n_bytes
            try:
                self._swap_out(sequence)
            except FAILURES:
                logger.debug("a sequence of %d tokens could not be moved", len(sequence.tokens), exc_info=True)
                self._drop(sequence)
        self._leave_context()

    def bytes_to_move(self, sequences: Iterable[CachedSequence]) -> float:
        """Return how much host memory these sequences would take, about."""
        return self._token_bytes * sum(len(sequence.tokens) for sequence in sequences)

    @property
    def running(self) -> list[CachedSequence]:
        """The sequences that requests are extending."""
        return [sequence for sequence in self._sequences if sequence.running]

    def close(self) -> None:
        """Forget everything: the context is gone, or about to go. Host memory is given back at once."""
        self._leave_context()
        for sequence in self._sequences:
            sequence.tokens, sequence.checkpoints, sequence.planned = [], [], []
            sequence.seq_id = sequence.state = None
        self._sequences.clear()
        self.host_bytes = 0

    def _leave_context(self) -> None:
        self._context = None
        self._cells = Cells()
        self._free_ids = []
        self._highest = 0
        self.n_cells = 0

    # --- requests

    def open(
        self, tokens: Sequence[int], own: CachedSequence | None, *, shareable: bool, adapters: AdapterKey = ()
    ) -> Lease:
        """Return a lease that extends a resident sequence, which holds as many of ``tokens`` as are known already.

        At least the last one is left to evaluate, so that there are logits to sample from.

        Args:
            tokens: All that has to be in the sequence before the next token is sampled.
            own: What the request's conversation went on from last time. With one lease only, it is extended itself;
                otherwise a copy of it is.
            shareable: Whether the conversation shares prefixes with others, and they with it.
            adapters: What the request is computed with.
        """
        shared = self._shared_prefix(tokens, own, adapters) if shareable and not self.drops_tails else 0
        sequence = self._reuse(tokens, own, shareable=shareable, adapters=adapters)
        if sequence is None:
            sequence = self._new_resident(shareable=shareable, adapters=adapters)
        lease = sequence.extension = self.keep(sequence)
        sequence.planned = []
        if shared >= len(sequence.tokens) + MIN_SHARED:
            self.plan_checkpoint(sequence, shared)
        return lease

    def _reuse(
        self, tokens: Sequence[int], own: CachedSequence | None, *, shareable: bool, adapters: AdapterKey
    ) -> CachedSequence | None:
        """Return a resident sequence that holds the beginning of ``tokens`` already, if there is a usable one."""
        while True:
            source, n = self.longest_prefix(tokens, own, shareable=shareable, adapters=adapters)
            if source is None or not self._bring_in(source):
                return None
            if self._is_whole(source):
                break
            logger.warning("a sequence of %d tokens is evaluated again: llama.cpp holds another", len(source.tokens))
            if source.running:
                return None
            self._clear(source)
        if source is own and len(source.leases) <= 1 and not source.running:
            self._keep(source, n)
            return source
        return self._copy_of(source, n, shareable=shareable)

    def _shared_prefix(self, tokens: Sequence[int], own: CachedSequence | None, adapters: AdapterKey) -> int:
        """Return how many of ``tokens``, but the last, some sequence begins with, even if it cannot go back there."""
        others = (s for s in self._sequences if (s.shareable or s is own) and s.adapters == adapters)
        alike = (s for s in others if s.tokens[:MIN_SHARED] == tokens[:MIN_SHARED])
        return max((min(common_prefix(s.tokens, tokens), len(tokens) - 1) for s in alike), default=0)

    def longest_prefix(
        self, tokens: Sequence[int], own: CachedSequence | None, *, shareable: bool, adapters: AdapterKey = ()
    ) -> tuple[CachedSequence | None, int]:
        """Return the sequence that knows most of ``tokens``, and how many; its own if others are equal."""
        limit = len(tokens) - 1
        if own is not None and own.adapters != adapters:
            own = None
        best, best_n = own, 0
        if own is not None:
            best_n = self._usable(own, min(common_prefix(own.tokens, tokens), limit))
        if shareable:
            for other in self._sequences:
                if not other.shareable or other is own or other.adapters != adapters:
                    continue
                if other.tokens[: best_n + 1] != tokens[: best_n + 1]:
                    continue
                n = self._usable(other, min(common_prefix(other.tokens, tokens), limit))
                copied = 0 if other.seq_id is not None else len(other.tokens)
                if n > best_n and n - best_n >= copied * COPY_COST:
                    best, best_n = other, n
        return (best, best_n) if best_n > 0 else (None, 0)

    def append(self, sequence: CachedSequence, tokens: Iterable[int]) -> None:
        """Note tokens that were evaluated, and take the checkpoint that is planned there."""
        before = len(sequence.tokens)
        sequence.tokens.extend(tokens)
        self._take_cells(sequence, len(sequence.tokens) - before)
        while sequence.planned and sequence.planned[0] <= len(sequence.tokens):
            if sequence.planned.pop(0) == len(sequence.tokens):
                self.take_checkpoint(sequence)

    def plan_checkpoint(self, sequence: CachedSequence, n: int) -> bool:
        """Have a checkpoint taken after ``n`` tokens of a running sequence, or a few less.

        Return whether there will be one: not if the memory of the model needs none, or no host memory is allowed.
        """
        if self.drops_tails or self._host_bytes_max == 0 or n <= len(sequence.tokens):
            return False
        if not any(n - MIN_SHARED < planned <= n for planned in sequence.planned):
            sequence.plan_checkpoint(n)
        return True

    def take_checkpoint(self, sequence: CachedSequence) -> None:
        """Remember the sequence as it is, to come back to when its tail has to be dropped."""
        if self._host_bytes_max == 0:
            return
        assert self._context is not None
        assert sequence.seq_id is not None
        try:
            state = self._context.state_seq_copy(sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        except FAILURES:  # it only saves time
            logger.debug("no checkpoint of %d tokens", len(sequence.tokens), exc_info=True)
            return
        kept = [checkpoint for checkpoint in sequence.checkpoints if checkpoint.n_tokens < len(sequence.tokens)]
        if len(kept) >= MOST_CHECKPOINTS:  # the first one is likely to be shared, the last one to be needed soon
            del kept[1]
        self._set_checkpoints(sequence, [*kept, Checkpoint(len(sequence.tokens), state)])
        self._keep_to_budget()

    def branch(self, sequence: CachedSequence, *, shareable: bool) -> Lease:
        """Return a lease that keeps a copy of a resident sequence; they share the cells.

        Where that fails, idle sequences are evicted until it does not; if there is none left, the copy is empty, and
        what it should have held is evaluated again.
        """
        return self.keep(self._copy_of(sequence, len(sequence.tokens), shareable=shareable))

    def _copy_of(self, sequence: CachedSequence, n: int, *, shareable: bool) -> CachedSequence:
        """Return a copy of the first ``n`` tokens of a resident sequence, for which there is no lease yet."""
        while True:
            copy = self._new_resident(shareable=shareable, adapters=sequence.adapters, beside=sequence)
            try:
                with sequence.pinned(), copy.pinned():
                    self._copy(sequence, copy, n)
                return copy
            except FAILURES:
                logger.debug("a sequence of %d tokens could not be copied", len(sequence.tokens), exc_info=True)
                self._discard(copy)
            except BaseException:
                self._discard(copy)
                raise
            with sequence.pinned():
                has_room = self.evict()
            if not has_room:
                return self._new_resident(shareable=shareable, adapters=sequence.adapters, beside=sequence)

    def keep(self, sequence: CachedSequence) -> Lease:
        """Return one more lease of a sequence."""
        return Lease(sequence, self._on_release)

    def _on_release(self, lease: Lease) -> None:
        """Note the end of a lease: a sequence without any leaves the cache."""
        sequence = lease.sequence
        if lease.extends:
            self._clock += 1
            sequence.extension = None
            sequence.planned = []
            sequence.calls += 1
            sequence.last_used = self._clock
        if not sequence.leases and sequence in self._sequences:
            self._discard(sequence)

    def resync_after_abort(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Resynchronize with llama.cpp after an aborted decode of ``tokens``, of which some may have been evaluated."""
        assert self._context is not None
        assert sequence.seq_id is not None
        if not self._memory.survives_abort:
            self._clear(sequence)
            return
        evaluated = self._context.seq_pos_max(sequence.seq_id) + 1 - len(sequence.tokens)
        if evaluated >= 0:
            self.append(sequence, tokens[:evaluated])
        if evaluated < 0 or not self._is_whole(sequence):
            self._clear(sequence)

    def purge(self, sequences: Iterable[CachedSequence]) -> None:
        """Drop sequences whose keys and values are no numbers, and what the context's cells hold of them.

        Attention multiplies what a cell holds even where a sequence does not own it, by 0: that is 0 for numbers only.
        """
        context = self._context
        assert context is not None
        for sequence in sequences:
            self._drop(sequence)
        self.detach()
        context.kv_cache_clear(clear_data=True)
        self.attach(context)

    # --- space

    @property
    def free_cells(self) -> int:
        """Cells that no sequence owns."""
        return self.n_cells - self._cells.used

    @property
    def used_cells(self) -> int:
        """Cells that some sequence owns."""
        return self._cells.used

    @property
    def idle_cells(self) -> int:
        """Cells that only sequences own which nobody is extending."""
        return self._cells.used - self._cells.owned_by(self._running_ids())

    def idle_tokens(self, but: CachedSequence | None) -> int:
        """Return how many tokens idle sequences, ``but`` that one, hold that may be in the context together."""
        idle = (s for s in self._sequences if not s.running and s is not but and (s.state or s.seq_id is not None))
        return min(sum(len(sequence.tokens) for sequence in idle), self.idle_cells_max)

    def cells_for(
        self, tokens: Sequence[int], own: CachedSequence | None, *, shareable: bool, adapters: AdapterKey = ()
    ) -> tuple[int, int]:
        """Return how many cells a request needs, and how many are free or would be if idle sequences were evicted.

        The arguments are those of :meth:`open`. Cells that it will share with another sequence are in neither number.
        """
        source, n = self.longest_prefix(tokens, own, shareable=shareable, adapters=adapters)
        if source is None or source.seq_id is None:
            return len(tokens), self.n_cells - self._cells.owned_by(self._running_ids())
        kept = self._cells.owned_by(self._running_ids(), prefix=(source.seq_id, n))
        return len(tokens) - n, self.n_cells - kept

    @property
    def drops_tails(self) -> bool:
        """Whether the memory of the model can go back to any earlier position."""
        return self._memory.drops_tails

    @property
    def one_length(self) -> bool:
        """Whether all sequences of a batch must have the same number of tokens."""
        return self._memory.one_length

    def make_room(self, n_cells: int) -> bool:
        """Evict idle sequences until ``n_cells`` are free; return whether they are."""
        while self.free_cells < n_cells and self.evict():
            pass
        return self.free_cells >= n_cells

    def evict(self) -> bool:
        """Move the idle sequence of least priority to host memory, or drop it; return whether there was one."""
        return self._evict_least(sequence for sequence in self._resident() if sequence.is_evictable)

    def move_away(self, but: CachedSequence | None = None) -> bool:
        """Move the idle sequence of least priority, ``but`` that one, to host memory, if nothing is dropped for it.

        Return whether one was moved.
        """
        idle = (sequence for sequence in self._resident() if sequence.is_evictable and sequence is not but)
        return self._evict_least(sequence for sequence in idle if self._fits_host_memory(sequence))

    def limit_idle(self) -> None:
        """While others run: move idle sequences away that attention would take too long to pass over."""
        while self.idle_cells > self.idle_cells_max and self.move_away():
            pass

    def preempt(self, lease: Lease) -> None:
        """Take a sequence that a request extends out of the context: from now on, the lease only keeps it."""
        sequence = lease.sequence
        sequence.extension = None
        sequence.planned = []
        sequence.last_used = self._clock
        if sequence.seq_id is not None:
            self._evict(sequence)

    def compact(self, own: CachedSequence | None) -> None:
        """While nobody runs: clear the context if that makes attention pass over fewer cells for the next request.

        llama.cpp attends to all cells up to the highest one in use. It fills holes only once it has come round, so a
        short sequence may lie behind a long stretch of cells that others have left.

        Args:
            own: What the next request goes on from.
        """
        n = 0 if own is None else len(own.tokens)
        if self._highest > 2 * n + self.idle_cells_max + SLACK:
            while self.move_away(but=own):
                pass
            if own is not None and self._resident() == [own]:
                self._swap_out(own)
        if self._context is not None and not self._resident():
            self._context.kv_cache_clear(clear_data=False)
            self._highest = 0

    def begin_in_order(self, n_cells: int) -> bool:
        """While no request runs: let the next ``n_cells`` tokens take cells in ascending order.

        So a request that runs alone gets the same text whatever is beside it, and idle sequences can stay.

        Returns:
            Whether they will, and attention is rounded the same way for it.
        """
        if not self._order_decides or self._context is None:
            return False
        self.limit_idle()
        if not self.make_room(n_cells):
            return False
        windows = sum(min(len(sequence.tokens), self._memory.window) for sequence in self._resident())
        if n_cells > self._memory.window_cells - windows:
            return False
        self.cells_left = False
        return self._context.kv_cache_rewind()

    def put_in_order(self, sequence: CachedSequence) -> None:
        """While one sequence runs: let it have cells in ascending order, although others have left theirs meanwhile."""
        assert self._context is not None
        try:
            self._swap_out(sequence)
        except FAILURES:  # where it is, it only rounds differently
            logger.debug("a sequence of %d tokens could not be moved", len(sequence.tokens), exc_info=True)
        else:
            self._context.kv_cache_rewind()
            self._swap_in(sequence)
        self.cells_left = False

    # --- carrying over

    def save(self, sequence: CachedSequence) -> tuple[list[int], bytes | None, AdapterKey]:
        """Return the tokens of a sequence, its state if there is one, and what that was computed with."""
        if sequence.seq_id is None:
            state = None if sequence.state is None else bytes(sequence.state)
        elif not sequence.tokens or not self._is_whole(sequence):
            state = None
        else:
            assert self._context is not None
            state = self._context.state_seq_get_data(sequence.seq_id)
        return list(sequence.tokens), state, sequence.adapters

    def adopt(self, tokens: Sequence[int], state: bytes, adapters: AdapterKey = ()) -> Lease:
        """Return a lease that keeps a swapped sequence, which was saved before, perhaps by another process."""
        sequence = self._add(shareable=True, adapters=adapters)
        lease = self.keep(sequence)
        sequence.tokens = list(tokens)
        sequence.last_used = self._clock
        self._set_state(sequence, state)
        self._keep_to_budget()
        return lease

    # --- integrity

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where what is recorded here contradicts itself or llama.cpp's memory."""
        ids = [sequence.seq_id for sequence in self._resident() if sequence.seq_id is not None]
        assert len(set(ids)) == len(ids), f"two sequences have the same id: {ids}"
        assert not set(ids) & set(self._free_ids), "an id is in use and free"
        for seq_id in self._free_ids:
            assert self._context is not None
            last = self._context.seq_pos_max(seq_id)
            assert last == -1, f"no sequence has the id {seq_id}, but its last position is {last}"
            assert self._cells.length(seq_id) == 0, f"no sequence has the id {seq_id}, but it has cells"
        assert self._cells.used == self._cells.owned_by(ids), "cells are in use that no sequence owns"
        assert self._cells.used <= self.n_cells, f"{self._cells.used} cells are in use, of {self.n_cells}"
        for sequence in self._sequences:
            self._check_sequence(sequence)
        self._check_host_memory()

    def _check_sequence(self, sequence: CachedSequence) -> None:
        n = len(sequence.tokens)
        assert sequence.leases, "a sequence without a lease is kept"
        assert sequence.n_pins == 0, "a sequence is pinned, but no operation is in progress"
        assert sequence.extension is None or sequence.extension in sequence.leases, "a lease that was released extends"
        assert not (sequence.state and sequence.seq_id is not None), "a sequence is in two places"
        assert n == 0 or sequence.state or sequence.seq_id is not None, f"{n} tokens have neither cells nor a state"
        places = [checkpoint.n_tokens for checkpoint in sequence.checkpoints]
        assert places == sorted(set(places)), f"checkpoints are not in order: {places}"
        assert not places or 0 < places[0] <= places[-1] <= n, f"checkpoints after {places} tokens of {n}"
        assert sequence.running or not sequence.planned, "a checkpoint is planned that no request will reach"
        if sequence.seq_id is None or self._context is None:
            assert self._context is None or not sequence.running, "a request is extending a sequence that has no cells"
            return
        first, last = self._context.seq_pos_min(sequence.seq_id), self._context.seq_pos_max(sequence.seq_id)
        assert last == n - 1, f"{n} tokens are recorded, but the last position is {last}"
        assert self._is_whole(sequence), f"a sequence of {n} tokens cannot go on: its first position is {first}"
        cells = self._cells.length(sequence.seq_id)
        assert cells == n, f"{n} tokens are recorded, but {cells} cells"

    def _check_host_memory(self) -> None:
        owners: dict[Checkpoint, int] = {}
        for sequence in self._sequences:
            for checkpoint in sequence.checkpoints:
                owners[checkpoint] = owners.get(checkpoint, 0) + 1
        for checkpoint, n in owners.items():
            assert checkpoint.owners == n, f"a checkpoint has {n} owners, but {checkpoint.owners} are recorded"
        host_bytes = sum(len(sequence.state or b"") for sequence in self._sequences)
        host_bytes += sum(len(checkpoint.state) for checkpoint in owners)
        assert self.host_bytes == host_bytes, f"{host_bytes} bytes in host memory, but {self.host_bytes} are recorded"

    # --- internal

    def _resident(self) -> list[CachedSequence]:
        return [sequence for sequence in self._sequences if sequence.seq_id is not None]

    def _running_ids(self) -> list[int]:
        return [s.seq_id for s in self._sequences if s.running and s.seq_id is not None]

    def eviction_priority(self, sequence: CachedSequence) -> float:
        """Return how late a sequence is evicted: later if it was used lately, latest if it was used more than once."""
        if sequence.running:
            return 1.0
        age = self._clock - sequence.last_used + 1
        return -age / (RETURNING if sequence.calls > 1 else 1)

    def _add(self, shareable: bool, adapters: AdapterKey) -> CachedSequence:
        sequence = CachedSequence(shareable=shareable, adapters=adapters)
        self._sequences[sequence] = None
        return sequence

    def _new_resident(
        self, *, shareable: bool, adapters: AdapterKey, beside: CachedSequence | None = None
    ) -> CachedSequence:
        """Return an empty sequence with an id, for which no sequence ``beside`` it is evicted."""
        sequence = self._add(shareable, adapters)
        try:
            with nullcontext() if beside is None else beside.pinned():
                self._take_id(sequence)
        except BaseException:
            self._discard(sequence)
            raise
        return sequence

    def _is_whole(self, sequence: CachedSequence) -> bool:
        """Return whether llama.cpp's positions of a resident sequence are those of its tokens."""
        assert self._context is not None
        assert sequence.seq_id is not None
        return self._memory.holds(self._context, sequence.seq_id, len(sequence.tokens))

    def _discard(self, sequence: CachedSequence) -> None:
        self._drop(sequence)
        del self._sequences[sequence]

    def _take_id(self, sequence: CachedSequence) -> None:
        if not self._free_ids and not self.evict():
            raise RuntimeError("all sequences of the context are in use")
        sequence.seq_id = self._free_ids.pop()

    def _take_cells(self, sequence: CachedSequence, n: int) -> None:
        """Note cells that llama.cpp has given to a sequence."""
        assert sequence.seq_id is not None
        # It looks for free ones from where it stopped last time, unless that is 2 n beyond the number in use.
        self._highest = max(self._highest, min(self.n_cells, self._cells.used + 3 * n))
        self._cells.append(sequence.seq_id, n)

    def _clear(self, sequence: CachedSequence) -> None:
        """Empty a resident sequence, which keeps its id."""
        assert self._context is not None
        assert sequence.seq_id is not None
        self._context.seq_rm(sequence.seq_id)
        self._cells.truncate(sequence.seq_id, 0)
        self.cells_left = True
        self._set_checkpoints(sequence, [])
        sequence.tokens = []

    def _drop(self, sequence: CachedSequence) -> None:
        """Forget the keys and values of a sequence."""
        if sequence.seq_id is not None:
            self._clear(sequence)
            self._free_ids.append(sequence.seq_id)
            sequence.seq_id = None
        self._set_state(sequence, None)
        self._set_checkpoints(sequence, [])
        sequence.tokens = []

    def _copy(self, source: CachedSequence, target: CachedSequence, n: int) -> None:
        """Make a resident, empty sequence equal to the first ``n`` tokens of another one, as far as possible."""
        assert self._context is not None
        assert source.seq_id is not None
        assert target.seq_id is not None
        self._context.seq_cp(source.seq_id, target.seq_id)
        self._cells.copy(source.seq_id, target.seq_id, len(source.tokens))
        target.tokens = list(source.tokens)
        self._set_checkpoints(target, source.checkpoints)
        self._keep(target, n)
        if target.tokens and self._memory.copies_windows:
            window = self._context.state_seq_copy(target.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
            self._context.state_seq_set_data(window, target.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        if not self._is_whole(target):
            raise RuntimeError(f"llama.cpp has no whole copy of {len(target.tokens)} tokens")

    def _usable(self, sequence: CachedSequence, n: int) -> int:
        """Return how many of its first ``n`` tokens a sequence can go back to."""
        if n <= 0 or n == len(sequence.tokens) or self._can_drop_tail(sequence, n):
            return n
        checkpoint = sequence.checkpoint_at_most(n)
        return 0 if checkpoint is None else checkpoint.n_tokens

    def _can_drop_tail(self, sequence: CachedSequence, n: int) -> bool:
        if self._memory.drops_tails:
            return True
        if sequence.seq_id is None or self._context is None:
            return False
        return self._memory.goes_on(self._context.seq_pos_min(sequence.seq_id), n)

    def _keep(self, sequence: CachedSequence, n: int) -> None:
        """Drop what a resident sequence holds after its first ``n`` tokens, and all of it where that is impossible."""
        if not self._roll_back(sequence, n):
            self._clear(sequence)

    def _roll_back(self, sequence: CachedSequence, n: int) -> bool:
        """Drop what a resident sequence holds after its first ``n`` tokens; return whether that was possible."""
        assert self._context is not None
        assert sequence.seq_id is not None
        if n == len(sequence.tokens):
            return True
        if n == 0:
            self._clear(sequence)
            return True
        # The state first: a hybrid memory refuses to remove a tail that its state has seen.
        if not self._can_drop_tail(sequence, n) and not self._restore_checkpoint(sequence, n):
            return False
        if not self._context.seq_rm(sequence.seq_id, n):
            return False
        self._cells.truncate(sequence.seq_id, n)
        self.cells_left = True
        del sequence.tokens[n:]
        self._set_checkpoints(sequence, [c for c in sequence.checkpoints if c.n_tokens <= n])
        return self._is_whole(sequence)

    def _restore_checkpoint(self, sequence: CachedSequence, n: int) -> bool:
        """Bring back what a checkpoint of ``n`` tokens remembers; return whether that was possible."""
        assert self._context is not None
        assert sequence.seq_id is not None
        checkpoint = sequence.checkpoint_at_most(n)
        if checkpoint is None or checkpoint.n_tokens != n:
            return False
        first = max(0, n - self._memory.unshared_window)
        with sequence.pinned():
            if not self.make_room(self._cells.n_shared(sequence.seq_id, first, n)):
                return False
        try:
            self._context.state_seq_set_data(checkpoint.state, sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        except FAILURES:
            logger.debug("a checkpoint of %d tokens could not be restored", n, exc_info=True)
            return False
        self._cells.unshare(sequence.seq_id, first, n)
        return True

    def _bring_in(self, sequence: CachedSequence) -> bool:
        """Have a sequence in the context; return whether it is."""
        if sequence.seq_id is not None:
            return True
        if sequence.state is None:
            return False
        with sequence.pinned():  # nor dropped from host memory to make room for itself
            has_room = self.make_room(len(sequence.tokens)) and (bool(self._free_ids) or self.evict())
        return has_room and self._swap_in(sequence)

    def _swap_in(self, sequence: CachedSequence) -> bool:
        """Copy a state into the context; where that fails, the sequence is dropped."""
        assert self._context is not None
        state, n = sequence.state, len(sequence.tokens)
        if state is None:
            if sequence.running:  # nothing was evaluated yet
                self._take_id(sequence)
            return sequence.running
        self._take_id(sequence)
        assert sequence.seq_id is not None
        self._set_state(sequence, None)
        try:
            self._context.state_seq_set_data(state, sequence.seq_id)
            self._take_cells(sequence, n)
            if self._is_whole(sequence):
                return True
            logger.warning("a state of %d tokens is not used: it has other positions", n)
        except FAILURES:
            logger.debug("a state of %d tokens could not be restored", n, exc_info=True)
        if sequence.running:
            self._clear(sequence)
        else:
            self._drop(sequence)
        return False

    def _swap_out(self, sequence: CachedSequence) -> None:
        """Move a resident sequence to host memory, whatever it takes."""
        assert self._context is not None
        assert sequence.seq_id is not None
        if sequence.tokens:
            state = self._context.state_seq_copy(sequence.seq_id)
            self._token_bytes = len(state) / len(sequence.tokens)
            self._set_state(sequence, state)
        self._context.seq_rm(sequence.seq_id)
        self._cells.truncate(sequence.seq_id, 0)
        self.cells_left = True
        self._free_ids.append(sequence.seq_id)
        sequence.seq_id = None

    def _fits_host_memory(self, sequence: CachedSequence) -> bool:
        return self.host_bytes + len(sequence.tokens) * self._token_bytes <= self._host_bytes_max

    def _evict_least(self, sequences: Iterable[CachedSequence]) -> bool:
        """Evict the one of least priority; return whether there was one."""
        least = min(sequences, key=self.eviction_priority, default=None)
        if least is None:
            return False
        self._evict(least)
        return True

    def _evict(self, sequence: CachedSequence) -> None:
        if self._host_bytes_max == 0 or not sequence.tokens:
            self._drop(sequence)
            return
        try:
            self._swap_out(sequence)
        except FAILURES:
            logger.debug("a sequence of %d tokens could not be moved", len(sequence.tokens), exc_info=True)
            self._drop(sequence)
        self._keep_to_budget()

    def _keep_to_budget(self) -> None:
        """Drop what has the least priority in host memory until the rest fits into its budget.

        First all checkpoints of sequences but their last ones, then swapped sequences, and the last ones of others.
        """
        while self.host_bytes > self._host_bytes_max:
            idle = [s for s in self._sequences if (s.state or s.checkpoints) and s.is_evictable]
            if not idle:
                return
            least = min(idle, key=lambda s: (len(s.checkpoints) <= 1, self.eviction_priority(s)))
            if least.seq_id is not None or len(least.checkpoints) > 1:
                self._set_checkpoints(least, least.checkpoints[1:])
            else:
                self._drop(least)

    def _set_state(self, sequence: CachedSequence, state: LlamaState | bytes | None) -> None:
        self.host_bytes += len(state or b"") - len(sequence.state or b"")
        sequence.state = state

    def _set_checkpoints(self, sequence: CachedSequence, checkpoints: Iterable[Checkpoint]) -> None:
        """Let a sequence have these checkpoints, which others may have too; their memory counts once."""
        before, sequence.checkpoints = sequence.checkpoints, list(checkpoints)
        for checkpoint in sequence.checkpoints:
            checkpoint.owners += 1
            self.host_bytes += len(checkpoint.state) if checkpoint.owners == 1 else 0
        for checkpoint in before:
            checkpoint.owners -= 1
            self.host_bytes -= len(checkpoint.state) if checkpoint.owners == 0 else 0
