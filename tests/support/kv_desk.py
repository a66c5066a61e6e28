"""A KV cache with a real context, and a context beside it that tells what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cyllama.engine.kv_cache import KVCache
from cyllama.engine.sequence import CachedSequence, Lease
from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
)

from .random_models import ARCHITECTURES

SAME = 0.02  # the rounding of another batch is below, another history above
SAME_QUANTIZED = 0.5  # the embedded model's weights have 8 bits, and so has what they are multiplied with
PLENTY = 2**30
KINDS = ("tiny-chat", *ARCHITECTURES, "gemma3 with a window of 512", "lfm2 with a window of 16")
TOKENS = np.random.default_rng(7).integers(10, 1270, 2000).tolist()


def new_context(model: LlamaModel, n_ctx: int = 512, **fields: Any) -> LlamaContext:
    params = LlamaContextParams()
    params.n_ctx, params.n_seq_max, params.n_batch, params.n_outputs_max = n_ctx, 4, 512, 4
    params.n_threads = params.n_threads_batch = 1
    params.kv_unified, params.swa_full = True, False
    params.flash_attn_type = LlamaFlashAttnType.DISABLED  # it rounds differently for other batches
    params.type_k = params.type_v = GGMLType.F32
    for name, value in fields.items():
        setattr(params, name, value)
    return LlamaContext(model, params)


class Desk:
    """A KV cache with a real context, and another context that knows nothing, to compare with."""

    def __init__(self, model: LlamaModel, host_bytes_max: int = PLENTY, n_ctx: int = 512, **fields: Any) -> None:
        self.model = model
        self.fields = fields
        self.context = new_context(model, n_ctx, **fields)
        self.cache = KVCache(model, host_bytes_max, idle_cells_max=512)
        self.cache.attach(self.context)
        self.reference = new_context(model, 1024)
        self.same = SAME_QUANTIZED if model.ftype == "Q8_0" else SAME
        self.leases: list[Lease] = []

    def close(self) -> None:
        self.context.close()
        self.reference.close()

    def open(self, tokens: Sequence[int], own: CachedSequence | None = None, *, scope: str | None = ""):
        lease = self.cache.open(tokens, own, scope=scope)
        self.leases.append(lease)
        sequence = lease.sequence
        self.cache.check_integrity()
        assert sequence.running
        assert sequence.tokens == list(tokens[: len(sequence.tokens)]), "it holds a prefix, and nothing else"
        assert len(sequence.tokens) < len(tokens), "something is left to evaluate"
        return sequence

    def keep(self, sequence: CachedSequence) -> None:
        """Do what a conversation does that goes on from a sequence."""
        self.leases.append(self.cache.keep(sequence))

    def branch(self, sequence: CachedSequence) -> CachedSequence:
        """Return a copy, which is kept."""
        self.leases.append(self.cache.branch(sequence, scope=""))
        return self.leases[-1].sequence

    def adopt(self, tokens: Sequence[int], state: bytes | None) -> CachedSequence:
        """Return a sequence that was saved, which is kept."""
        self.leases.append(self.cache.adopt(tokens, state or b""))
        return self.leases[-1].sequence

    def forget(self, sequence: CachedSequence) -> None:
        """Do what a conversation does that is forgotten: release one of the leases that keep a sequence."""
        self._pop(sequence, extends=False).release()

    def end(self, sequence: CachedSequence) -> None:
        """Do what a request does that ends: release the lease that extends a sequence."""
        self._pop(sequence, extends=True).release()

    def preempt(self, sequence: CachedSequence) -> None:
        """Do what a request of a conversation does that has to wait again: the conversation keeps the sequence."""
        lease = self._pop(sequence, extends=True)
        self.cache.preempt(lease)
        lease.release()

    def _pop(self, sequence: CachedSequence, *, extends: bool) -> Lease:
        lease = next(lease for lease in self.leases if lease.sequence is sequence and lease.extends == extends)
        self.leases.remove(lease)
        return lease

    def evaluate(self, sequence: CachedSequence, tokens: Sequence[int]) -> np.ndarray:
        """Evaluate what comes next of a sequence, and return the last logits."""
        for start in range(0, len(tokens), self.context.n_ubatch):
            chunk = tokens[start : start + self.context.n_ubatch]
            assert self.cache.make_room(len(chunk))
            assert decode(self.context, sequence, chunk) == 0
            self.cache.append(sequence, chunk)
            self.cache.check_integrity()
        return np.asarray(self.context.get_logits_ith())

    def turn(self, tokens: Sequence[int], own: CachedSequence | None = None, *, scope: str | None = ""):
        """Do what a request of a conversation does; return the sequence, and how many tokens were known."""
        sequence = self.open(tokens, own, scope=scope)
        if sequence is not own:
            self.keep(sequence)
            if own is not None:
                self.forget(own)
        known = len(sequence.tokens)
        if not self.cache.drops_tails and known < len(tokens) - 1:
            self.evaluate(sequence, tokens[known:-1])
            self.cache.take_checkpoint(sequence)
        logits = self.evaluate(sequence, tokens[len(sequence.tokens) :])
        self.is_right(tokens, logits)
        self.end(sequence)
        self.cache.check_integrity()
        return sequence, known

    def is_right(self, tokens: Sequence[int], logits: np.ndarray) -> None:
        """Compare with logits from a context that has seen these tokens only."""
        self.reference.kv_cache_clear(clear_data=False)
        batch = LlamaBatch(512)
        for start in range(0, len(tokens), 512):
            batch.clear()
            batch.add_sequence(tokens[start : start + 512], start)
            assert self.reference.decode(batch) == 0
        assert np.abs(np.asarray(self.reference.get_logits_ith()) - logits).max() < self.same

    def replace_context(self, n_ctx: int) -> None:
        self.cache.detach()
        self.cache.check_integrity()
        self.context.close()
        self.context = new_context(self.model, n_ctx, **self.fields)
        self.cache.attach(self.context)
        self.cache.check_integrity()


def decode(context: LlamaContext, sequence: CachedSequence, tokens: Sequence[int]) -> int:
    assert sequence.seq_id is not None
    batch = LlamaBatch(len(tokens))
    batch.add_sequence(tokens, len(sequence.tokens), sequence.seq_id)
    return context.decode(batch)
