"""The kinds of memory that models have: attention, sliding windows, and recurrent states. One class each, same verbs.

llama.cpp has an operation for each of what a KV cache needs, but not every memory can do them all, or does them in the
same way. Whatever depends on the kind of memory is asked of an object of this module, and decided nowhere else.

To add a kind of memory:

1. Write a class that derives from :class:`Attention` and overrides what is different. :class:`SlidingWindow` is the
   example of a memory that forgets, :class:`Recurrent` that of one which cannot go back.
2. Return it from :func:`memory_of` for the models that have it. This is the only place that looks at the model.
3. Add a model with random weights of that kind to ``ARCHITECTURES`` in ``tests/support/random_models.py``. The tests of
   the KV cache and of any memory take it from there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..llama.llama_cpp import LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, LlamaContext, LlamaContextParams, LlamaModel
from .tuning import IDLE_SEQUENCES, IDLE_STATES, MAX_RECURRENT, MAX_SEQUENCES

CHUNKED_ATTENTION = ("llama4",)  # architectures whose windows do not slide but begin at multiples of their size
PADDING = 256  # llama.cpp rounds the cells of a cache for windows up to a multiple of this


class Attention:
    """Keys and values of every token. Any tail can be dropped, and a copy of a sequence shares the cells.

    Attributes:
        drops_tails: Whether a sequence can go back to any earlier token. If not, it needs checkpoints.
        drops_drafts: Whether a sequence can go back by tokens of the latest batch, which were drafted wrongly.
        one_pass: Whether a batch has to be computed in one pass.
        one_length: Whether all sequences of a batch must have the same number of tokens for that.
        survives_abort: Whether what an aborted decode has left of a sequence can be used.
        window: Most tokens of a sequence that have cells in a cache for windows.
        window_cells: Cells of that cache; after the last one, those that have left their windows are used again.
        max_idle: Most sequences that a context has ids for besides the running ones.
        max_texts: Most texts whose embeddings are computed in one pass.
    """

    drops_tails = True
    drops_drafts = True
    one_pass = False
    one_length = False
    survives_abort = True
    window = 0
    window_cells: float = math.inf
    max_idle: float = math.inf
    max_texts = MAX_SEQUENCES

    # --- the context

    def n_idle_sequences(self, n_parallel: int) -> int:
        """Return for how many sequences a context has ids besides the ``n_parallel`` running ones."""
        return int(min(max(IDLE_SEQUENCES, n_parallel), self.max_idle))

    def limit_batch(self, params: LlamaContextParams) -> None:
        """Change the sizes of a batch in the parameters of a context to what this memory can take at once."""
        if self.one_pass:
            params.n_batch = params.n_ubatch = max(params.n_ubatch, params.n_seq_max)

    def attach(self, context: LlamaContext) -> None:
        """Learn the sizes of the context that is used from now on."""

    # --- one sequence: what it has, and what it can drop

    def first_needed(self, n: int) -> int:
        """Return the first position that the token after ``n`` others attends to, at most."""
        return min(n, 0)

    def goes_on(self, first: int, n: int) -> bool:
        """Return whether a sequence whose first position is ``first`` can go on after its first ``n`` tokens."""
        return 0 <= first <= self.first_needed(n)

    def holds(self, context: LlamaContext, seq_id: int, n: int) -> bool:
        """Return whether llama.cpp's positions of a resident sequence are those of ``n`` tokens, and it can go on."""
        first, last = context.seq_pos_min(seq_id), context.seq_pos_max(seq_id)
        return first == last == -1 if n == 0 else last == n - 1 and self.goes_on(first, n)

    def can_roll_back(self, context: LlamaContext | None, seq_id: int | None, n: int) -> bool:
        """Return whether a sequence can drop what follows its first ``n`` tokens without a checkpoint.

        Args:
            context: The context, ``None`` without one.
            seq_id: The id of the sequence, ``None`` if it is not resident.
            n: Tokens to keep, fewer than it has.
        """
        if self.drops_tails:
            return True
        return context is not None and seq_id is not None and self.goes_on(context.seq_pos_min(seq_id), n)

    # --- copies and checkpoints

    def complete_copy(self, context: LlamaContext, seq_id: int) -> None:
        """Give a copy, which shares the cells of its origin, what it cannot share.

        Raises:
            RuntimeError, ValueError, MemoryError: llama.cpp could not copy it.
        """

    def first_restored(self, n: int) -> int:
        """Return from which token on a restored checkpoint of ``n`` tokens takes cells that were shared before."""
        return n

    # --- the order of cells

    def has_cells_in_order(self, n: int, lengths: Sequence[int]) -> bool:
        """Return whether ``n`` tokens can take cells in ascending order, beside resident sequences of these lengths."""
        return n <= self.window_cells - sum(min(length, self.window) for length in lengths)


class SlidingWindow(Attention):
    """Attention whose windowed layers keep the last tokens only, in a cache of their own.

    That cache is as large as the context, or has room for a window of each sequence and the tokens of one pass,
    whichever is less. In one as large as the context, a window has a cell wherever its sequence has one, so copies may
    share it; only a sequence whose window was restored from a checkpoint may have cells of its own where others share
    theirs. In a smaller one, a cell that two sequences share is not used again when it leaves their windows, so every
    sequence needs its own window, and there is always room for it.

    A batch takes cells only of what had left the windows before it, so its tokens can be dropped after it.

    A batch has to be computed in one pass. llama.cpp looks for cells for all passes of a batch before it computes the
    first one, and in doing so forgets positions that have left the window by the last pass, but not by the first.
    """

    drops_tails = False
    one_pass = True

    def __init__(self, n_swa: int, *, full: bool, chunked: bool) -> None:
        """Make a memory for windows.

        Args:
            n_swa: Size of a window in tokens.
            full: Whether windowed layers keep every token all the same.
            chunked: Whether windows do not slide but begin at multiples of their size.
        """
        self.window = n_swa
        self._full = full
        self._chunked = chunked
        self._copies_windows = False  # whether a copy needs cells of its own for its window

    def attach(self, context: LlamaContext) -> None:
        """Learn the size of the windows' cache. llama.cpp does not tell it; this is how it is computed there."""
        cells = self.window * context.n_seq_max + context.n_ubatch
        padded = -(-cells // PADDING) * PADDING
        self._copies_windows = not self._full and padded < context.n_ctx
        self.window_cells = padded if self._copies_windows else context.n_ctx

    def first_needed(self, n: int) -> int:
        """Return where the window begins."""
        return n // self.window * self.window if self._chunked else max(0, n - self.window + 1)

    def complete_copy(self, context: LlamaContext, seq_id: int) -> None:
        """Give a copy a window of its own, if windows cannot be shared."""
        if self._copies_windows:
            window = context.state_seq_copy(seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
            context.state_seq_set_data(window, seq_id, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)

    def first_restored(self, n: int) -> int:
        """Return where the window begins that may have been shared."""
        return n if self._copies_windows else max(0, n - self.window)


class Recurrent(Attention):
    """A state, alone or beside attention. It is that of the whole sequence, and cannot go back."""

    drops_tails = drops_drafts = False
    survives_abort = False  # the state may have seen some tokens of the batch in some layers only
    max_idle = IDLE_STATES  # each has a state, for which llama.cpp allocates memory at once
    max_texts = MAX_RECURRENT

    def __init__(self, attention: Attention) -> None:
        """Make a memory for states beside ``attention``."""
        self._attention = attention
        self.one_pass = self.one_length = attention.one_pass  # each length of a sequence is a pass of its own

    def attach(self, context: LlamaContext) -> None:
        """Learn the sizes of the attention beside the state."""
        self._attention.attach(context)
        self.window, self.window_cells = self._attention.window, self._attention.window_cells

    def goes_on(self, first: int, n: int) -> bool:
        """Return whether the state, whose only position is its last one, is that of ``n`` tokens."""
        return first == n - 1

    def complete_copy(self, context: LlamaContext, seq_id: int) -> None:
        """Give a copy what the attention beside the state cannot share; llama.cpp copies the state itself."""
        self._attention.complete_copy(context, seq_id)

    def first_restored(self, n: int) -> int:
        """Return it for the attention beside the state."""
        return self._attention.first_restored(n)


def memory_of(model: LlamaModel, *, swa_full: bool) -> Attention:
    """Return the kind of memory that contexts of a model have.

    Args:
        model: The model.
        swa_full: Whether its windowed layers keep every token all the same.
    """
    attention = Attention()
    if model.n_swa:
        chunked = model.metadata.get("general.architecture") in CHUNKED_ATTENTION
        attention = SlidingWindow(model.n_swa, full=swa_full, chunked=chunked)
    return Recurrent(attention) if model.is_recurrent or model.is_hybrid else attention
