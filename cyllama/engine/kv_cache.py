"""Which sequence of the context holds which tokens."""

from __future__ import annotations

from ..llama.llama_cpp import LlamaContext


class KVCache:
    """The books of a context's KV cache: the token ids that its sequence holds, from position 0.

    Attributes:
        tokens: Token ids of the sequence.
    """

    SEQUENCE = 0

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self.tokens: list[int] = []

    def clear(self) -> None:
        """Forget everything. Only the metadata is cleared: a cell that no sequence owns is never read."""
        self._context.kv_cache_clear(clear_data=False)
        self.tokens.clear()

    def append(self, tokens: list[int]) -> None:
        """Note tokens that were evaluated."""
        self.tokens.extend(tokens)

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where the books differ from llama.cpp's."""
        last = self._context.seq_pos_max(self.SEQUENCE)
        assert last == len(self.tokens) - 1, f"{len(self.tokens)} tokens in the books, but the last position is {last}"
