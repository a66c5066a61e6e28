"""What the memory of a model can do: keys and values of every token, of a sliding window, or a recurrent state.

llama.cpp has an operation for each of what a KV cache needs, but not every memory can do them all. A class here says,
for one kind of memory, what may be asked of it, and how to tell whether it holds what it should.
"""

from __future__ import annotations

import math

from ..llama.llama_cpp import LlamaContext, LlamaModel

CHUNKED_ATTENTION = ("llama4",)  # architectures whose windows do not slide but begin at multiples of their size
PADDING = 256  # llama.cpp rounds the cells of a cache for windows up to a multiple of this


class Attention:
    """Keys and values of every token. Any tail can be dropped, and a copy of a sequence shares the cells.

    Attributes:
        drops_tails: Whether a sequence can go back to any earlier token.
        survives_abort: Whether what an aborted decode has left of a sequence can be used.
        copies_windows: Whether a copy needs cells of its own for its window.
        unshared_window: How many tokens have cells of their own after a partial state was restored, where that may need
            more cells than the sequence had.
        one_length: Whether all sequences of a batch need the same number of tokens to be computed in one pass, where
            that matters: see :class:`SlidingWindow`.
        window: Size of a sliding window in tokens.
        window_cells: Cells for windows; after the last one, those that have left their windows are used again.
    """

    drops_tails = True
    survives_abort = True
    copies_windows = False
    unshared_window = 0
    one_length = False
    window = 0
    window_cells: float = math.inf

    def attach(self, context: LlamaContext) -> None:
        """Learn the sizes of the context that is used from now on."""

    def first_needed(self, n: int) -> int:
        """Return the first position that the token after ``n`` others needs, at most."""
        return min(n, 0)

    def goes_on(self, first: int, n: int) -> bool:
        """Return whether a sequence whose first position is ``first`` can go on after its first ``n`` tokens."""
        return 0 <= first <= self.first_needed(n)

    def holds(self, context: LlamaContext, seq_id: int, n: int) -> bool:
        """Return whether llama.cpp's positions of a resident sequence are those of ``n`` tokens, and it can go on."""
        first, last = context.seq_pos_min(seq_id), context.seq_pos_max(seq_id)
        return first == last == -1 if n == 0 else last == n - 1 and self.goes_on(first, n)


class SlidingWindow(Attention):
    """Attention whose windowed layers keep the last tokens only, in a cache of their own.

    That cache is as large as the context, or has room for a window of each sequence and the tokens of one pass,
    whichever is less. In one as large as the context, a window has a cell wherever its sequence has one, so copies may
    share it; only a sequence whose window was restored from a checkpoint may have cells of its own where others share
    theirs. In a smaller one, a cell that two sequences share is not used again when it leaves their windows, so every
    sequence needs its own window, and there is always room for it.

    A batch has to be computed in one pass. llama.cpp looks for cells for all passes of a batch before it computes the
    first one, and in doing so forgets positions that have left the window by the last pass, but not by the first.
    """

    drops_tails = False

    def __init__(self, n_swa: int, *, full: bool, chunked: bool) -> None:
        self._n_swa = self.window = n_swa
        self._full = full
        self._chunked = chunked

    def attach(self, context: LlamaContext) -> None:
        """Learn the size of the windows' cache. llama.cpp does not tell it; this is how it is computed there."""
        cells = self._n_swa * context.n_seq_max + context.n_ubatch
        padded = -(-cells // PADDING) * PADDING
        self.copies_windows = not self._full and padded < context.n_ctx
        self.window_cells = padded if self.copies_windows else context.n_ctx
        self.unshared_window = 0 if self.copies_windows else self._n_swa

    def first_needed(self, n: int) -> int:
        """Return where the window begins."""
        return n // self._n_swa * self._n_swa if self._chunked else max(0, n - self._n_swa + 1)


class Recurrent(Attention):
    """A state, alone or beside attention. It is that of the whole sequence, and cannot go back."""

    drops_tails = False
    survives_abort = False

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        self.one_length = isinstance(attention, SlidingWindow)  # each length of a sequence is a pass of its own

    def attach(self, context: LlamaContext) -> None:
        """Learn the sizes of the attention beside the state."""
        self._attention.attach(context)
        self.copies_windows = self._attention.copies_windows
        self.unshared_window = self._attention.unshared_window
        self.window, self.window_cells = self._attention.window, self._attention.window_cells

    def goes_on(self, first: int, n: int) -> bool:
        """Return whether the state, whose only position is its last one, is that of ``n`` tokens."""
        return first == n - 1


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
