"""Where cached sequences are: in the context (*resident*), in host memory (*swapped*), or nowhere (*dropped*)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..llama.llama_cpp import LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, LlamaContext, LlamaState
from .cells import Cells
from .log import EngineLogger
from .memory import Attention
from .sequence import CachedSequence, Checkpoint
from .tuning import MOST_CHECKPOINTS

logger = EngineLogger(__name__)

FAILURES = (RuntimeError, ValueError, MemoryError)  # what llama.cpp and the binding raise for a state


class HostMemory:
    """The host memory that states of swapped sequences and checkpoints take.

    Attributes:
        limit: Most bytes; 0 keeps nothing in host memory.
        used: Bytes in use. A checkpoint that several sequences have counts once.
        token_bytes: Bytes that a token of the sequence that was swapped last took; an estimate before the first one.
    """

    def __init__(self, limit: int, token_bytes: float) -> None:
        self.limit = limit
        self.used = 0
        self.token_bytes = token_bytes

    @property
    def is_exceeded(self) -> bool:
        """Whether more is in use than is allowed."""
        return self.used > self.limit

    def bytes_for(self, sequences: Iterable[CachedSequence]) -> float:
        """Return how many bytes the states of these sequences would take, about."""
        return self.token_bytes * sum(len(sequence.tokens) for sequence in sequences)

    def has_room_for(self, sequence: CachedSequence) -> bool:
        """Return whether the state of a sequence would fit beside what is in use."""
        return self.used + self.bytes_for([sequence]) <= self.limit

    def set_state(self, sequence: CachedSequence, state: LlamaState | bytes | None) -> None:
        """Replace the state that a sequence has here."""
        self.used += len(state or b"") - len(sequence.state or b"")
        sequence.state = state

    def set_checkpoints(self, sequence: CachedSequence, checkpoints: Iterable[Checkpoint]) -> None:
        """Replace the checkpoints of a sequence; others may have the same ones."""
        before, sequence.checkpoints = sequence.checkpoints, list(checkpoints)
        for checkpoint in sequence.checkpoints:
            checkpoint.n_sequences += 1
            self.used += len(checkpoint.state) if checkpoint.n_sequences == 1 else 0
        for checkpoint in before:
            checkpoint.n_sequences -= 1
            self.used -= len(checkpoint.state) if checkpoint.n_sequences == 0 else 0


class Residency:
    """The ids and cells of the context, and the host memory, that sequences have.

    Each method moves or changes one sequence, and keeps what is recorded of it equal to what llama.cpp has. Which one
    that is, and which others are evicted, :class:`~cyllama.engine.sequence_store.SequenceStore` decides.

    Attributes:
        memory: What the memory of the model can do.
        host: The host memory.
        context: The context, ``None`` without one.
        n_cells: Cells of the context, 0 without one.
        cells: Which sequences own them.
        free_ids: Ids of the context that no sequence has.
        highest: No cell after this one is in use.
        cells_freed: Whether cells became free since this was set to ``False``: the next tokens take them out of order.
    """

    def __init__(self, memory: Attention, host: HostMemory) -> None:
        self.memory = memory
        self.host = host
        self.context: LlamaContext | None = None
        self.n_cells = 0
        self.cells = Cells()
        self.free_ids: list[int] = []
        self.highest = 0
        self.cells_freed = False

    def enter(self, context: LlamaContext) -> None:
        """Use an empty context from now on. No sequence is resident."""
        self.context = context
        self.memory.attach(context)
        self.cells = Cells()
        self.free_ids = list(range(context.n_seq_max))[::-1]
        self.n_cells = context.n_ctx

    def leave(self) -> None:
        """Use no context from now on. No sequence is resident."""
        self.context = None
        self.cells = Cells()
        self.free_ids = []
        self.highest = 0
        self.n_cells = 0

    @property
    def free_cells(self) -> int:
        """Cells that no sequence owns."""
        return self.n_cells - self.cells.used

    # --- one resident sequence

    def _context_and_id(self, sequence: CachedSequence) -> tuple[LlamaContext, int]:
        assert self.context is not None
        assert sequence.seq_id is not None
        return self.context, sequence.seq_id

    def is_whole(self, sequence: CachedSequence) -> bool:
        """Return whether llama.cpp's positions of a resident sequence are those of its tokens."""
        return self.memory.holds(*self._context_and_id(sequence), len(sequence.tokens))

    def append(self, sequence: CachedSequence, tokens: Iterable[int]) -> None:
        """Record tokens of a resident sequence that llama.cpp has evaluated."""
        before = len(sequence.tokens)
        sequence.tokens.extend(tokens)
        self._take_cells(sequence, len(sequence.tokens) - before)

    def drop_wrong(self, sequence: CachedSequence) -> None:
        """Drop what llama.cpp has of a resident sequence after its recorded tokens: the latest ones, drafted wrongly.

        The next tokens take the same cells, so the order of the cells in use does not change.
        """
        context, seq_id = self._context_and_id(sequence)
        dropped = context.seq_rm(seq_id, len(sequence.tokens))
        assert dropped, "the memory cannot drop drafts"

    def _take_cells(self, sequence: CachedSequence, n: int) -> None:
        """Record cells that llama.cpp has given to a resident sequence."""
        assert sequence.seq_id is not None
        # It looks for free ones from where it stopped last time, unless that is 2 n beyond the number in use.
        self.highest = max(self.highest, min(self.n_cells, self.cells.used + 3 * n))
        self.cells.append(sequence.seq_id, n)

    def n_after_abort(self, sequence: CachedSequence) -> int:
        """Return how many tokens llama.cpp has of a resident sequence after an aborted decode, -1 if it is unusable."""
        context, seq_id = self._context_and_id(sequence)
        return context.seq_pos_max(seq_id) + 1 if self.memory.survives_abort else -1

    def can_roll_back(self, sequence: CachedSequence, n: int) -> bool:
        """Return whether a sequence, resident or not, could drop what follows its first ``n`` tokens as it is now."""
        return self.memory.can_roll_back(self.context, sequence.seq_id, n)

    def truncate(self, sequence: CachedSequence, n: int) -> bool:
        """Drop what a resident sequence holds after its first ``n`` tokens, of which there is at least one.

        Returns:
            Whether llama.cpp could do that. If not, the sequence is of no use, and has to be cleared.
        """
        context, seq_id = self._context_and_id(sequence)
        if not context.seq_rm(seq_id, n):
            return False
        self.cells.truncate(seq_id, n)
        self.cells_freed = True
        del sequence.tokens[n:]
        self.host.set_checkpoints(sequence, [c for c in sequence.checkpoints if c.n_tokens <= n])
        return self.is_whole(sequence)

    def clear(self, sequence: CachedSequence) -> None:
        """Empty a resident sequence, which keeps its id."""
        self._free_cells_of(sequence)
        self.host.set_checkpoints(sequence, [])
        sequence.tokens = []

    def drop(self, sequence: CachedSequence) -> None:
        """Forget the tokens of a sequence, wherever it is. It has neither id nor state after that."""
        if sequence.seq_id is not None:
            self.clear(sequence)
            self._give_back_id(sequence)
        self.host.set_state(sequence, None)
        self.host.set_checkpoints(sequence, [])
        sequence.tokens = []

    def take_id(self, sequence: CachedSequence) -> None:
        """Make a sequence resident, without any cells yet. There has to be a free id."""
        sequence.seq_id = self.free_ids.pop()

    def _give_back_id(self, sequence: CachedSequence) -> None:
        assert sequence.seq_id is not None
        self.free_ids.append(sequence.seq_id)
        sequence.seq_id = None

    def _free_cells_of(self, sequence: CachedSequence) -> None:
        context, seq_id = self._context_and_id(sequence)
        context.seq_rm(seq_id)
        self.cells.truncate(seq_id, 0)
        self.cells_freed = True

    # --- copies

    def share(self, source: CachedSequence, target: CachedSequence) -> None:
        """Let ``target``, resident and empty, have all cells of ``source``, its tokens and its checkpoints."""
        context, source_id = self._context_and_id(source)
        _, target_id = self._context_and_id(target)
        context.seq_cp(source_id, target_id)
        self.cells.copy(source_id, target_id, len(source.tokens))
        target.tokens = list(source.tokens)
        self.host.set_checkpoints(target, source.checkpoints)

    def complete_copy(self, sequence: CachedSequence) -> None:
        """Give a copy, after it was truncated, the part of the memory that it cannot share.

        Raises:
            RuntimeError: llama.cpp has no whole copy.
        """
        if sequence.tokens:
            self.memory.complete_copy(*self._context_and_id(sequence))
        if not self.is_whole(sequence):
            raise RuntimeError(f"llama.cpp has no whole copy of {len(sequence.tokens)} tokens")

    # --- checkpoints

    def take_checkpoint(self, sequence: CachedSequence) -> None:
        """Save what a resident sequence cannot roll back, as it is now. Where that fails, nothing changes."""
        context, seq_id = self._context_and_id(sequence)
        try:
            state = context.state_seq_copy(seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        except FAILURES:  # it only saves time
            logger.debug("no checkpoint of %d tokens", len(sequence.tokens), exc_info=True)
            return
        kept = [checkpoint for checkpoint in sequence.checkpoints if checkpoint.n_tokens < len(sequence.tokens)]
        if len(kept) >= MOST_CHECKPOINTS:  # the first one is likely to be shared, the last one to be needed soon
            del kept[1]
        self.host.set_checkpoints(sequence, [*kept, Checkpoint(len(sequence.tokens), state)])

    def cells_to_restore(self, sequence: CachedSequence, n: int) -> int:
        """Return how many free cells a resident sequence needs for a checkpoint of ``n`` tokens to be restored."""
        assert sequence.seq_id is not None
        return self.cells.n_shared(sequence.seq_id, self.memory.first_restored(n), n)

    def restore_checkpoint(self, sequence: CachedSequence, checkpoint: Checkpoint) -> bool:
        """Bring back what a checkpoint has of a resident sequence; the tokens after it are still to be truncated.

        There have to be :meth:`cells_to_restore` free cells.

        Returns:
            Whether that was possible. If not, the sequence is of no use, and has to be cleared.
        """
        context, seq_id = self._context_and_id(sequence)
        n = checkpoint.n_tokens
        try:
            context.state_seq_set_data(checkpoint.state, seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
        except FAILURES:
            logger.debug("a checkpoint of %d tokens could not be restored", n, exc_info=True)
            return False
        self.cells.unshare(seq_id, self.memory.first_restored(n), n)
        return True

    # --- to host memory and back

    def swap_out(self, sequence: CachedSequence) -> None:
        """Move a resident sequence to host memory, even beyond its limit.

        Raises:
            RuntimeError, ValueError, MemoryError: It could not be copied; it is where it was.
        """
        context, seq_id = self._context_and_id(sequence)
        if sequence.tokens:
            state = context.state_seq_copy(seq_id)
            self.host.token_bytes = len(state) / len(sequence.tokens)
            self.host.set_state(sequence, state)
        self._free_cells_of(sequence)
        self._give_back_id(sequence)

    def swap_in(self, sequence: CachedSequence) -> bool:
        """Move a swapped sequence into the context. It needs a free id, and a free cell for each of its tokens.

        Returns:
            Whether that was possible. If not, the sequence is empty: one that a request extends is resident, any other
            one is dropped.
        """
        state, n = sequence.state, len(sequence.tokens)
        assert state is not None
        self.take_id(sequence)
        self.host.set_state(sequence, None)
        context, seq_id = self._context_and_id(sequence)
        try:
            context.state_seq_set_data(state, seq_id)
            self._take_cells(sequence, n)
            if self.is_whole(sequence):
                return True
            logger.warning("a state of %d tokens is not used: it has other positions", n)
        except FAILURES:
            logger.debug("a state of %d tokens could not be restored", n, exc_info=True)
        if sequence.running:
            self.clear(sequence)
        else:
            self.drop(sequence)
        return False

    def read_state(self, sequence: CachedSequence) -> bytes | None:
        """Return a copy of the state of a sequence, ``None`` if it has none that can be used. Changes nothing."""
        if sequence.seq_id is None:
            return None if sequence.state is None else bytes(sequence.state)
        if not sequence.tokens or not self.is_whole(sequence):
            return None
        context, seq_id = self._context_and_id(sequence)
        return context.state_seq_get_data(seq_id)

    # --- the order of cells

    def reset_cells(self) -> None:
        """Let the next tokens take the first cells. No sequence may be resident."""
        assert self.context is not None
        self.context.kv_cache_clear(clear_data=False)
        self.highest = 0

    def rewind(self) -> bool:
        """Let the next tokens take the free cells from the first one on; return whether llama.cpp can do that."""
        assert self.context is not None
        self.cells_freed = False
        return self.context.kv_cache_rewind()

    def has_cells_in_order(self, n: int, resident: Sequence[CachedSequence]) -> bool:
        """Return whether the next ``n`` tokens of a new sequence can take cells in ascending order after a rewind."""
        return self.memory.has_cells_in_order(n, [len(sequence.tokens) for sequence in resident])
