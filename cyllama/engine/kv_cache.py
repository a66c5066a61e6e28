"""Which sequence holds which tokens, and what of it a request can use: match, branch, go back, carry over."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from ..llama.llama_cpp import LlamaModel
from . import integrity, prefixes
from .adapters import AdapterKey
from .log import EngineLogger
from .memory import memory_of
from .residency import FAILURES, HostMemory
from .sequence import CachedSequence, Lease
from .sequence_store import SequenceStore
from .tuning import COMPACTION_SLACK, MIN_SHARED, PAUSED_HOST_MEMORY

logger = EngineLogger(__name__)


class Wait(Enum):
    """Why a request cannot start yet."""

    FOR_PREFIX = "a running request evaluates a prefix that can be copied soon"
    FOR_ROOM = "there is no room beside the running requests"
    FOR_MEMORY = "paused requests hold memory, without which there is not enough"


class KVCache(SequenceStore):
    """Every sequence that requests extend or that conversations may come back to.

    A sequence is known by its token ids, and by what they were evaluated with: a state is used for a request of the
    same adapters only, and as far as its token ids agree with the request's own. It is compared with llama.cpp's
    positions whenever a request begins to use it, and evaluated again where they disagree. What is shared is copied,
    never taken. A sequence is in the cache while there is a :class:`~cyllama.engine.sequence.Lease` of it, and is
    *running* while one of its leases extends it.

    Only the engine's thread uses a cache. Each method says what it changes; the others change nothing.
    """

    def __init__(
        self,
        model: LlamaModel,
        host_bytes_max: int,
        idle_cells_max: int,
        *,
        swa_full: bool = False,
        token_bytes: float = 1,
        order_decides_rounding: bool = False,
    ) -> None:
        """Make an empty cache.

        Args:
            model: What sequences are evaluated with.
            host_bytes_max: Most bytes of host memory for sequences that are not in the context, and for checkpoints.
            idle_cells_max: How many cells idle sequences may keep while others run.
            swa_full: Whether contexts keep every token of sliding-window layers.
            token_bytes: Bytes of host memory for a token, as far as that is known before the first one is moved there.
            order_decides_rounding: Whether the order of a sequence's own cells decides how attention is rounded, and
                not their places.
        """
        self._memory = memory_of(model, swa_full=swa_full)
        super().__init__(self._memory, HostMemory(host_bytes_max, token_bytes), idle_cells_max)
        self._order_decides_rounding = order_decides_rounding
        self._in_order: CachedSequence | None = None  # of a request that began alone, until another one starts

    @property
    def drops_tails(self) -> bool:
        """Whether the memory of the model can go back to any earlier token."""
        return self._memory.drops_tails

    @property
    def one_length(self) -> bool:
        """Whether all sequences of a batch must have the same number of tokens."""
        return self._memory.one_length

    # --- admission

    def admit(self, query: prefixes.Query, *, headroom: int | None = None) -> Lease | Wait:
        """Let a request start: return the lease of :meth:`open`, or why the request has to wait.

        Changes the cache as :meth:`open` does. Beside that, idle sequences may move for a request that runs alone,
        whose text must not depend on them, and a checkpoint is planned before the last token of a conversation's
        prompt. Where the request has to wait, only checkpoints of running sequences are planned. If this raises, there
        is no new lease.

        Args:
            query: What the request needs.
            headroom: Cells that have to stay free beside other running requests; ``None`` where the context has room
                for all of them.

        Raises:
            RuntimeError: All sequences of the context are in use.
        """
        if self.waits_for_prefix(query):
            return Wait.FOR_PREFIX
        running = self.running
        if running and headroom is not None and not self._has_cells_for(query, headroom):
            return Wait.FOR_ROOM
        self._in_order = None
        begins_in_order = not running and self._prepare_alone(query)
        lease = self._open(query)
        if begins_in_order:
            self._in_order = lease.sequence
        if query.scope is not None:
            self.plan_checkpoint(lease.sequence, query.n_prompt - 1)
        return lease

    def waits_for_prefix(self, query: prefixes.Query) -> bool:
        """Return whether a running sequence will soon have a prefix that the request can copy.

        Checkpoints of running sequences may be planned for it.
        """
        return prefixes.is_evaluated_soon(query, self.running, lambda: self._longest_prefix(query)[1], self.share_after)

    def _has_cells_for(self, query: prefixes.Query, headroom: int) -> bool:
        """Return whether a request can run in the cells that are free, or would be if idle sequences were evicted.

        Cells that it will share with another sequence are needed by none of them.
        """
        source, n = self._longest_prefix(query)
        n_cells, cells = self._residency.n_cells, self._residency.cells
        if source is None or source.seq_id is None:
            needed, owned = len(query.tokens), cells.owned_by(self._running_ids())
        else:
            needed, owned = len(query.tokens) - n, cells.owned_by(self._running_ids(), prefix=(source.seq_id, n))
        return needed + 1 + headroom <= n_cells - owned

    def _prepare_alone(self, query: prefixes.Query) -> bool:
        """While no request runs: arrange the cells for the next one; return whether it takes them in order.

        The text of a request without a conversation must not depend on what else the context holds.
        """
        in_order = False
        if query.scope is None and query.own is None:
            in_order = self.begin_in_order(query.n_at_first)
            while not in_order and self.move_away():
                pass  # an empty context gives it the same cells every time
        self.compact(query.own)
        return in_order

    # --- match: what a request can use

    def open(
        self, tokens: Sequence[int], own: CachedSequence | None, *, scope: str | None, adapters: AdapterKey = ()
    ) -> Lease:
        """Return a lease that extends a resident sequence, which holds the longest known prefix of ``tokens``.

        At least the last token is left to evaluate, so that there are logits to sample from. Changes the cache: others
        may be evicted to make room, and ``own`` is truncated to what it has in common with ``tokens`` if it has one
        lease only; otherwise a copy of it is extended. If this raises, there is no new lease.

        Args:
            tokens: Token ids of all that has to be in the sequence before the next token is sampled.
            own: What the request's conversation went on from last time.
            scope: Whose prefixes it shares, and who shares those of it; ``None`` for no others.
            adapters: What the request is computed with.

        Raises:
            RuntimeError: All sequences of the context are in use.
        """
        return self._open(prefixes.Query(tokens, own, scope, adapters))

    def _open(self, query: prefixes.Query) -> Lease:
        shared = 0
        if query.scope is not None and not self.drops_tails:
            shared = prefixes.shared_prefix(query, self._sequences)
        sequence = self._reuse(query)
        if sequence is None:
            sequence = self._new_resident(scope=query.scope, adapters=query.adapters)
        lease = sequence.extension = self.keep(sequence)
        sequence.awaited = False
        sequence.planned, sequence.target = [], query.tokens
        if shared >= len(sequence.tokens) + MIN_SHARED:
            self.plan_checkpoint(sequence, shared)
        return lease

    def _longest_prefix(self, query: prefixes.Query) -> tuple[CachedSequence | None, int]:
        """Return the sequence that knows most of the tokens, and how many; its own if others are equal."""
        return prefixes.longest_prefix(query, self._sequences, self._usable)

    def _reuse(self, query: prefixes.Query) -> CachedSequence | None:
        """Return a resident sequence that holds the beginning of a prompt already, if there is a usable one."""
        while True:
            source, n = self._longest_prefix(query)
            if source is None or not self._bring_in(source):
                return None
            if self._residency.is_whole(source):
                break
            logger.warning("a sequence of %d tokens is evaluated again: llama.cpp holds another", len(source.tokens))
            if source.running:
                return None
            self._residency.clear(source)
        if source is query.own and len(source.leases) <= 1 and not source.running:
            self._truncate(source, n)
            return source
        return self._copy_of(source, n, scope=query.scope)

    def _usable(self, sequence: CachedSequence, n: int) -> int:
        """Return how many of its first ``n`` tokens a sequence can go back to."""
        if n <= 0 or n == len(sequence.tokens) or self._residency.can_roll_back(sequence, n):
            return n
        checkpoint = sequence.checkpoint_at_most(n)
        return 0 if checkpoint is None else checkpoint.n_tokens

    # --- leases

    def keep(self, sequence: CachedSequence) -> Lease:
        """Return one more lease of a sequence. Changes nothing else."""
        return Lease(sequence, self._on_release)

    def preempt(self, lease: Lease) -> None:
        """Take a running sequence out of the context: from now on, its lease only keeps it.

        Changes the cache: the sequence moves to host memory, or is dropped.
        """
        sequence = lease.sequence
        sequence.become_idle(self._clock)
        sequence.awaited = True
        if sequence.seq_id is not None:
            self._evict(sequence)

    def pause(self, lease: Lease) -> bool:
        """Let a running sequence be idle, which its request will extend again; return whether that was possible.

        It is not where it might be dropped meanwhile, for lack of host memory. Changes only what is recorded: the
        sequence leaves the context when others need its cells.
        """
        sequence = lease.sequence
        paused = (each for each in self._sequences if each.awaited)
        if self.bytes_to_move([sequence, *paused]) > PAUSED_HOST_MEMORY * self._host.limit:
            return False
        sequence.become_idle(self._clock)
        sequence.awaited = True
        return True

    def _on_release(self, lease: Lease) -> None:
        """Record the end of a lease: a sequence without any leaves the cache."""
        sequence = lease.sequence
        if lease.extends:
            self._clock += 1
            sequence.become_idle(self._clock)
            sequence.calls += 1
        if not sequence.leases and sequence in self._sequences:
            self._discard(sequence)

    # --- a running sequence

    def append(self, sequence: CachedSequence, tokens: Sequence[int], *, n_wrong: int = 0) -> None:
        """Record tokens of a running sequence that llama.cpp has evaluated, and take a checkpoint planned there.

        Changes the cache.

        Args:
            sequence: The sequence.
            tokens: Its tokens.
            n_wrong: How many of them, at the end, were drafted wrongly and are dropped. The memory has to be one that
                can drop drafts.
        """
        self._residency.append(sequence, tokens[: len(tokens) - n_wrong])
        if n_wrong:
            self._residency.drop_wrong(sequence)
        while sequence.planned and sequence.planned[0] <= len(sequence.tokens):
            if sequence.planned.pop(0) == len(sequence.tokens):
                self.take_checkpoint(sequence)

    def resync_after_abort(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Resynchronize a running sequence with llama.cpp after a decode of ``tokens``, its next ones, was aborted.

        Changes the cache: the sequence has those of the tokens that were evaluated, or is empty.
        """
        n = self._residency.n_after_abort(sequence) - len(sequence.tokens)
        if n >= 0:
            self.append(sequence, tokens[:n])
        if n < 0 or not self._residency.is_whole(sequence):
            self._residency.clear(sequence)

    def plan_checkpoint(self, sequence: CachedSequence, n: int) -> bool:
        """Have a checkpoint taken after ``n`` tokens of a running sequence, or a few less. Changes only its plans.

        Returns:
            Whether there will be one: not if the memory of the model needs none, or no host memory is allowed.
        """
        if self.drops_tails or self._host.limit == 0 or n <= len(sequence.tokens):
            return False
        if not any(n - MIN_SHARED < planned <= n for planned in sequence.planned):
            sequence.plan_checkpoint(n)
        return True

    def share_after(self, sequence: CachedSequence, n: int) -> bool:
        """Have others able to copy the first ``n`` tokens of a running sequence as soon as they are evaluated.

        Changes only its plans: a memory that cannot drop a tail needs a checkpoint there.

        Returns:
            Whether they will be able to.
        """
        return self.drops_tails or self.plan_checkpoint(sequence, n)

    def take_checkpoint(self, sequence: CachedSequence) -> None:
        """Save what a resident sequence cannot roll back, to come back to where it is now. Changes the cache."""
        if self._host.limit == 0:
            return
        self._residency.take_checkpoint(sequence)
        self._keep_to_host_limit()

    # --- branch

    def branch(self, sequence: CachedSequence, *, scope: str | None) -> Lease:
        """Return a lease that keeps a copy of a resident sequence; they share the cells.

        Changes the cache. Where copying fails, idle sequences are evicted until it does not; if there is none left, the
        copy is empty, and what it should have held is evaluated again.

        Args:
            sequence: What to copy.
            scope: Which conversations may copy a prefix of the copy; ``None`` for none.

        Raises:
            RuntimeError: All sequences of the context are in use.
        """
        return self.keep(self._copy_of(sequence, len(sequence.tokens), scope=scope))

    def _copy_of(self, sequence: CachedSequence, n: int, *, scope: str | None) -> CachedSequence:
        """Return a copy of the first ``n`` tokens of a resident sequence, for which there is no lease yet."""
        while True:
            copy = self._new_resident(scope=scope, adapters=sequence.adapters, beside=sequence)
            try:
                with sequence.pinned(), copy.pinned():
                    self._residency.share(sequence, copy)
                    self._truncate(copy, n)
                    self._residency.complete_copy(copy)
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
                return self._new_resident(scope=scope, adapters=sequence.adapters, beside=sequence)

    def _truncate(self, sequence: CachedSequence, n: int) -> None:
        """Drop what a resident sequence holds after its first ``n`` tokens, and all of it where that is impossible."""
        if n != len(sequence.tokens) and not (n and self._roll_back(sequence, n)):
            self._residency.clear(sequence)

    def _roll_back(self, sequence: CachedSequence, n: int) -> bool:
        # The state first: a hybrid memory refuses to remove a tail that its state has seen.
        if not self._residency.can_roll_back(sequence, n) and not self._restore_checkpoint(sequence, n):
            return False
        return self._residency.truncate(sequence, n)

    def _restore_checkpoint(self, sequence: CachedSequence, n: int) -> bool:
        """Bring back what a checkpoint of ``n`` tokens remembers; return whether that was possible."""
        checkpoint = sequence.checkpoint_at_most(n)
        if checkpoint is None or checkpoint.n_tokens != n:
            return False
        with sequence.pinned():
            has_room = self.make_room(self._residency.cells_to_restore(sequence, n))
        return has_room and self._residency.restore_checkpoint(sequence, checkpoint)

    # --- carrying over

    def save(self, sequence: CachedSequence) -> tuple[list[int], bytes | None, AdapterKey]:
        """Return the tokens of a sequence, its state if there is one, and what that was computed with."""
        return list(sequence.tokens), self._residency.read_state(sequence), sequence.adapters

    def adopt(self, tokens: Sequence[int], state: bytes, adapters: AdapterKey = (), *, scope: str | None = "") -> Lease:
        """Return a lease that keeps a swapped sequence, which was saved before, perhaps by another process.

        Changes the cache: others may be dropped from host memory.
        """
        sequence = self._add(scope=scope, adapters=adapters)
        lease = self.keep(sequence)
        sequence.tokens = list(tokens)
        sequence.last_used = self._clock
        self._host.set_state(sequence, state)
        self._keep_to_host_limit()
        return lease

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where what is recorded here contradicts itself or llama.cpp's memory."""
        integrity.check_integrity(self._sequences, self._residency)

    # --- the order of cells, for a request that runs alone

    def compact(self, own: CachedSequence | None) -> None:
        """While no request runs: clear the context if that makes attention pass over fewer cells for the next request.

        Changes the cache: sequences may move to host memory. llama.cpp attends to all cells up to the highest one in
        use. It fills holes only after its search has wrapped around, so a short sequence may lie behind many cells that
        others have left.

        Args:
            own: What the next request goes on from.
        """
        n = 0 if own is None else len(own.tokens)
        if self._residency.highest > 2 * n + self.idle_cells_max + COMPACTION_SLACK:
            while self.move_away(but=own):
                pass
            if own is not None and self._resident() == [own]:
                self._residency.swap_out(own)
        if self._residency.context is not None and not self._resident():
            self._residency.reset_cells()

    def begin_in_order(self, n_cells: int) -> bool:
        """While no request runs: let the next ``n_cells`` tokens take cells in ascending order.

        Changes the cache: idle sequences may be evicted. So a request that runs alone gets the same text whatever is
        beside it, and idle sequences can stay.

        Returns:
            Whether they will, and attention is rounded the same way for it.
        """
        if not self._order_decides_rounding or self._residency.context is None:
            return False
        self.limit_idle()
        if not self.make_room(n_cells) or not self._residency.has_cells_in_order(n_cells, self._resident()):
            return False
        return self._residency.rewind()

    def restore_order(self) -> None:
        """Let a request that began in order have cells in ascending order, although others have left theirs meanwhile.

        Changes the cache: its sequence has other cells after that. Does nothing once another request has started.
        """
        sequence = self._in_order
        if sequence is None or not sequence.running or not self._residency.cells_freed:
            return
        try:
            self._residency.swap_out(sequence)
        except FAILURES:  # where it is, it only rounds differently
            logger.debug("a sequence of %d tokens could not be moved", len(sequence.tokens), exc_info=True)
        else:
            self._residency.rewind()
            self._enter_context(sequence)
        self._residency.cells_freed = False
