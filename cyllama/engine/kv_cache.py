"""Which sequence of the context holds which tokens, and what is kept of the others in host memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..llama.llama_cpp import LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, LlamaContext, LlamaModel, LlamaState
from .adapters import AdapterKey
from .cells import Cells

logger = logging.getLogger(__name__)

RETURNING = 4  # a conversation that went on before is kept this many times longer than one that did not
SLACK = 512  # cells, beyond those of idle sequences, that attention may pass over before moving them is worth it
COPY_COST = 1 / 32  # of copying a token's keys and values from host memory, against evaluating it: at most


class Checkpoint(NamedTuple):
    """What cannot be rolled back of a sequence (recurrent states, sliding windows), as it was after some tokens."""

    n_tokens: int
    state: LlamaState


class CachedSequence:
    """Token ids, and where their keys and values are: in the context, in host memory, or nowhere any more.

    Attributes:
        tokens: Token ids that were evaluated, from position 0.
        seq_id: Its id in the context, ``None`` if it is not there.
        state: Its state in host memory, ``None`` if it is not there.
        checkpoint: A point to go back to, where the memory of the model cannot drop a tail.
        owners: Conversations and requests that go on from it.
        running: Whether a request is extending it.
        shareable: Whether other conversations may copy a common prefix.
        adapters: What its keys and values were computed with.
        calls: Generations that it has seen.
        last_used: When the last one ended, on the cache's clock.
    """

    def __init__(self, *, shareable: bool, adapters: AdapterKey = ()) -> None:
        self.tokens: list[int] = []
        self.seq_id: int | None = None
        self.state: LlamaState | bytes | None = None
        self.checkpoint: Checkpoint | None = None
        self.owners = 0
        self.running = False
        self.shareable = shareable
        self.adapters = adapters
        self.calls = 0
        self.last_used = 0

    @property
    def host_bytes(self) -> int:
        """Host memory that it takes."""
        return len(self.state or b"") + (len(self.checkpoint.state) if self.checkpoint else 0)


class KVCache:
    """Every sequence that requests run on or that conversations may come back to.

    Its books are token ids, and what they were evaluated with: a state is used for a request of the same adapters
    only, and as far as its token ids agree with the request's own. A
    sequence is *resident* in the context, *swapped* to host memory, or *dropped*, and then evaluated again when it is
    needed. What is shared is copied, never taken. Only the engine's thread uses it.

    Attributes:
        idle_cells_max: How many cells sequences may keep that nobody extends, while others run.
        host_bytes: Host memory in use.
        n_cells: Cells of the context, 0 without one.
    """

    def __init__(self, model: LlamaModel, host_bytes_max: int, idle_cells_max: int) -> None:
        self._n_swa = model.n_swa
        self._recurrent = model.is_recurrent or model.is_hybrid
        self._host_bytes_max = host_bytes_max
        self.idle_cells_max = idle_cells_max
        self._context: LlamaContext | None = None
        self._cells = Cells()
        self._sequences: dict[CachedSequence, None] = {}  # an ordered set
        self._free_ids: list[int] = []
        self._clock = 0
        self._highest = 0  # no cell beyond this one is in use
        self._token_bytes = 1.0  # host memory that a token of the last swapped sequence took
        self.host_bytes = 0
        self.n_cells = 0

    # --- contexts

    def attach(self, context: LlamaContext) -> None:
        """Use an empty context from now on, and move into it what ran or fits of what :meth:`detach` saved."""
        self._context = context
        self._cells = Cells()
        self._free_ids = list(range(context.n_seq_max))[::-1]
        self.n_cells = context.n_ctx
        for sequence in sorted(self._sequences, key=self._worth, reverse=True):
            if sequence.running or (self._free_ids and len(sequence.tokens) <= self.free_cells):
                self._swap_in(sequence)
        self._keep_to_budget()

    def detach(self) -> None:
        """Move everything to host memory, whatever it takes, before the context is replaced by another."""
        for sequence in self._resident():
            self._swap_out(sequence)
        self._leave_context()

    def close(self) -> None:
        """Forget everything: the context is gone, or about to go. Host memory is given back at once."""
        self._leave_context()
        for sequence in self._sequences:
            sequence.tokens = []
            sequence.seq_id = sequence.state = sequence.checkpoint = None
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
    ) -> CachedSequence:
        """Return a resident sequence for a request of ``tokens``, with as many of them as are known already.

        At least the last one is left to evaluate, so that there are logits to sample from.

        Args:
            tokens: All that has to be in the sequence before the next token is sampled.
            own: What the request's conversation went on from last time.
            shareable: Whether the conversation shares prefixes with others, and they with it.
            adapters: What the request is computed with.
        """
        source, n = self.longest_prefix(tokens, own, shareable=shareable, adapters=adapters)
        if source is not None and not self._bring_in(source):
            source, n = None, 0
        sequence: CachedSequence
        if source is not None and source is own and source.owners <= 1 and not source.running:
            sequence = source
            self._keep(sequence, n)
        elif source is not None:
            sequence = self.branch(source, n, shareable=shareable)
        else:
            sequence = self._add(shareable, adapters)
            self._take_id(sequence)
        sequence.running = True
        return sequence

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
        """Note tokens that were evaluated."""
        before = len(sequence.tokens)
        sequence.tokens.extend(tokens)
        self._take_cells(sequence, len(sequence.tokens) - before)

    def take_checkpoint(self, sequence: CachedSequence) -> None:
        """Remember the sequence as it is, to come back to when its tail has to be dropped."""
        if self._host_bytes_max == 0:
            return
        assert self._context is not None
        assert sequence.seq_id is not None
        state = self._context.state_seq_copy(sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        self._set_checkpoint(sequence, Checkpoint(len(sequence.tokens), state))
        self._keep_to_budget()

    def branch(self, sequence: CachedSequence, n: int | None = None, *, shareable: bool) -> CachedSequence:
        """Return a copy of a resident sequence, or of its first ``n`` tokens; they share the cells."""
        copy = self._add(shareable, sequence.adapters)
        was_running, sequence.running = sequence.running, True  # it must not be evicted to make room for its copy
        self._take_id(copy)
        sequence.running = was_running
        self._copy(sequence, copy)
        if n is not None:
            self._keep(copy, n)
        if self._n_swa and copy.tokens:
            self._own_window(copy)
        return copy

    def end_turn(self, sequence: CachedSequence) -> None:
        """A request stops extending a sequence; without an owner it goes."""
        self._clock += 1
        sequence.running = False
        sequence.calls += 1
        sequence.last_used = self._clock
        self._remove_if_unowned(sequence)

    def own(self, sequence: CachedSequence) -> None:
        """Note one more owner."""
        sequence.owners += 1

    def disown(self, sequence: CachedSequence) -> None:
        """Note one owner less; without any, and not running, the sequence goes."""
        if sequence in self._sequences:
            sequence.owners -= 1
            self._remove_if_unowned(sequence)

    def take_stock(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Set the books right after an aborted decode of ``tokens``, of which some may have been evaluated."""
        assert self._context is not None
        assert sequence.seq_id is not None
        if self._recurrent:  # what is left of a recurrent state after an abort belongs to no known position
            self._clear(sequence)
            return
        evaluated = self._context.seq_pos_max(sequence.seq_id) + 1 - len(sequence.tokens)
        if evaluated < 0:
            self._clear(sequence)
        else:
            self.append(sequence, tokens[:evaluated])

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

    @property
    def drops_tails(self) -> bool:
        """Whether the memory of the model can go back to any earlier position."""
        return not self._recurrent and self._n_swa == 0

    def make_room(self, n_cells: int) -> bool:
        """Evict idle sequences until ``n_cells`` are free; return whether they are."""
        while self.free_cells < n_cells and self.evict():
            pass
        return self.free_cells >= n_cells

    def evict(self) -> bool:
        """Move the idle sequence of least worth to host memory, or drop it; return whether there was one."""
        return self._evict_least(sequence for sequence in self._resident() if not sequence.running)

    def move_away(self, but: CachedSequence | None = None) -> bool:
        """Move the idle sequence of least worth, ``but`` that one, to host memory if nothing has to be dropped for it.

        Return whether one was moved.
        """
        idle = (sequence for sequence in self._resident() if not sequence.running and sequence is not but)
        return self._evict_least(sequence for sequence in idle if self._fits_host_memory(sequence))

    def limit_idle(self) -> None:
        """While others run: move idle sequences away that attention would take too long to pass over."""
        while self.idle_cells > self.idle_cells_max and self.move_away():
            pass

    def preempt(self, sequence: CachedSequence) -> None:
        """Take a sequence that was running out of the context; its owner opens it again later."""
        sequence.running = False
        sequence.last_used = self._clock
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

    # --- carrying over

    def save(self, sequence: CachedSequence) -> tuple[list[int], bytes | None, AdapterKey]:
        """Return the tokens of a sequence, its state, and what that was computed with."""
        if sequence.seq_id is None or not sequence.tokens:
            state = None if sequence.state is None else bytes(sequence.state)
        else:
            assert self._context is not None
            state = self._context.state_seq_get_data(sequence.seq_id)
        return list(sequence.tokens), state, sequence.adapters

    def adopt(self, tokens: Sequence[int], state: bytes, adapters: AdapterKey = ()) -> CachedSequence:
        """Return a swapped sequence, with one owner, that was saved before, perhaps by another process."""
        sequence = self._add(shareable=True, adapters=adapters)
        sequence.owners = 1
        sequence.tokens = list(tokens)
        sequence.last_used = self._clock
        self._set_state(sequence, state)
        self._keep_to_budget()
        return sequence

    # --- integrity

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where the books differ from llama.cpp's or contradict themselves."""
        resident = self._resident()
        ids = [sequence.seq_id for sequence in resident if sequence.seq_id is not None]
        assert len(set(ids)) == len(ids), f"two sequences have the same id: {ids}"
        assert not set(ids) & set(self._free_ids), "an id is in use and free"
        for sequence in resident:
            self._check_resident(sequence)
        for seq_id in self._free_ids:
            assert self._context is not None
            last = self._context.seq_pos_max(seq_id)
            assert last == -1, f"sequence {seq_id} is free in the books, but its last position is {last}"
        assert self._cells.used == self._cells.owned_by(ids), "cells are in use that no sequence owns"
        assert self._cells.used <= self.n_cells, f"{self._cells.used} cells are in use, of {self.n_cells}"
        host_bytes = sum(sequence.host_bytes for sequence in self._sequences)
        assert self.host_bytes == host_bytes, f"{host_bytes} bytes in host memory, {self.host_bytes} in the books"
        for sequence in self._sequences:
            assert sequence.running or sequence.owners > 0, "a sequence is kept that nobody owns"
            assert not (sequence.state and sequence.seq_id is not None), "a sequence is in two places"

    def _check_resident(self, sequence: CachedSequence) -> None:
        assert self._context is not None
        assert sequence.seq_id is not None
        n = len(sequence.tokens)
        last = self._context.seq_pos_max(sequence.seq_id)
        assert last == n - 1, f"{n} tokens in the books, but the last position is {last}"
        cells = self._cells.length(sequence.seq_id)
        assert cells == n, f"{n} tokens in the books, but {cells} cells"
        if self.drops_tails and n > 0:
            first = self._context.seq_pos_min(sequence.seq_id)
            assert first == 0, f"the first position of a sequence is {first}"

    # --- internal

    def _resident(self) -> list[CachedSequence]:
        return [sequence for sequence in self._sequences if sequence.seq_id is not None]

    def _running_ids(self) -> list[int]:
        return [s.seq_id for s in self._sequences if s.running and s.seq_id is not None]

    def _worth(self, sequence: CachedSequence) -> float:
        """Return how much it would be missed: what was used lately, and more so what was used again and again."""
        if sequence.running:
            return 1.0
        age = self._clock - sequence.last_used + 1
        return -age / (RETURNING if sequence.calls > 1 else 1)

    def _add(self, shareable: bool, adapters: AdapterKey) -> CachedSequence:
        sequence = CachedSequence(shareable=shareable, adapters=adapters)
        self._sequences[sequence] = None
        return sequence

    def _remove_if_unowned(self, sequence: CachedSequence) -> None:
        if sequence.owners <= 0 and not sequence.running and sequence in self._sequences:
            self._drop(sequence)
            del self._sequences[sequence]

    def _take_id(self, sequence: CachedSequence) -> None:
        if not self._free_ids:
            self.evict()
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
        self._set_checkpoint(sequence, None)
        sequence.tokens = []

    def _drop(self, sequence: CachedSequence) -> None:
        """Forget the keys and values of a sequence."""
        if sequence.seq_id is not None:
            self._clear(sequence)
            self._free_ids.append(sequence.seq_id)
            sequence.seq_id = None
        self._set_state(sequence, None)
        self._set_checkpoint(sequence, None)
        sequence.tokens = []

    def _copy(self, source: CachedSequence, target: CachedSequence) -> None:
        """Make a resident, empty sequence equal to a resident one."""
        assert self._context is not None
        assert source.seq_id is not None
        assert target.seq_id is not None
        self._context.seq_cp(source.seq_id, target.seq_id)
        self._cells.copy(source.seq_id, target.seq_id, len(source.tokens))
        target.tokens = list(source.tokens)
        self._set_checkpoint(target, source.checkpoint)

    def _own_window(self, sequence: CachedSequence) -> None:
        """Give a copy its own cells of the window: llama.cpp recycles only those that have one owner."""
        assert self._context is not None
        assert sequence.seq_id is not None
        window = self._context.state_seq_copy(sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        self._context.state_seq_set_data(window, sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)

    def _usable(self, sequence: CachedSequence, n: int) -> int:
        """Return how many of its first ``n`` tokens a sequence can go back to."""
        if n <= 0 or n == len(sequence.tokens) or self._can_drop_tail(sequence, n):
            return n
        checkpoint = sequence.checkpoint
        return checkpoint.n_tokens if checkpoint is not None and checkpoint.n_tokens <= n else 0

    def _can_drop_tail(self, sequence: CachedSequence, n: int) -> bool:
        if self.drops_tails:
            return True
        if self._recurrent or sequence.seq_id is None or self._context is None:
            return False
        # The window of the next token must still be there; positions before it may have been overwritten.
        return self._context.seq_pos_min(sequence.seq_id) <= max(0, n - self._n_swa + 1)

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
        if not self._can_drop_tail(sequence, n):
            checkpoint = sequence.checkpoint
            if checkpoint is None or checkpoint.n_tokens != n:
                return False
            try:  # before the tail is removed: a hybrid memory refuses to remove one that its state has seen
                self._context.state_seq_set_data(checkpoint.state, sequence.seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
            except (RuntimeError, ValueError):
                logger.debug("a checkpoint could not be restored", exc_info=True)
                return False
        if not self._context.seq_rm(sequence.seq_id, n):
            return False
        self._cells.truncate(sequence.seq_id, n)
        del sequence.tokens[n:]
        if sequence.checkpoint is not None and sequence.checkpoint.n_tokens > n:
            self._set_checkpoint(sequence, None)
        return True

    def _bring_in(self, sequence: CachedSequence) -> bool:
        """Have a sequence in the context; return whether it is."""
        if sequence.seq_id is not None:
            return True
        if sequence.state is None:
            return False
        sequence.running = True  # it must not be dropped to make room for itself
        has_room = self.make_room(len(sequence.tokens)) and (bool(self._free_ids) or self.evict())
        sequence.running = False
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
        except (RuntimeError, ValueError):
            logger.debug("a state of %d tokens could not be restored", n, exc_info=True)
            if sequence.running:
                self._clear(sequence)
            else:
                self._drop(sequence)
            return False
        self._take_cells(sequence, n)
        return True

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
        self._free_ids.append(sequence.seq_id)
        sequence.seq_id = None

    def _fits_host_memory(self, sequence: CachedSequence) -> bool:
        return self.host_bytes + len(sequence.tokens) * self._token_bytes <= self._host_bytes_max

    def _evict_least(self, sequences: Iterable[CachedSequence]) -> bool:
        """Evict the one of least worth; return whether there was one."""
        least = min(sequences, key=self._worth, default=None)
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
        except MemoryError:
            self._drop(sequence)
        self._keep_to_budget()

    def _keep_to_budget(self) -> None:
        """Drop swapped sequences of least worth until the rest fits into the budget of host memory."""
        while self.host_bytes > self._host_bytes_max:
            idle = [s for s in self._sequences if s.host_bytes and not s.running]
            if not idle:
                return
            least = min(idle, key=self._worth)
            if least.seq_id is not None:
                self._set_checkpoint(least, None)
            else:
                self._drop(least)

    def _set_state(self, sequence: CachedSequence, state: LlamaState | bytes | None) -> None:
        self.host_bytes += len(state or b"") - len(sequence.state or b"")
        sequence.state = state

    def _set_checkpoint(self, sequence: CachedSequence, checkpoint: Checkpoint | None) -> None:
        before = sequence.host_bytes
        sequence.checkpoint = checkpoint
        self.host_bytes += sequence.host_bytes - before


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many elements two lists have in common at their beginning.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:  # a[:low] == b[:low], a[:high] != b[:high]
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
