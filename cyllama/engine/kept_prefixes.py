"""The KV cache of calls without a conversation, kept for later calls that begin with the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

from .kv_cache import KVCache
from .request import Request
from .sequence import CachedSequence, Lease, common_prefix
from .tuning import KEPT_OF_KEY, KEPT_PREFIXES, MIN_SHARED


class KeptPrefixes:
    """Sequences of requests that have ended, which requests of the same scope copy as far as their tokens agree.

    They are idle sequences, and leave the context and host memory before those of conversations. Only the engine's
    thread changes them.
    """

    def __init__(self, kv_cache: KVCache) -> None:
        self._kv_cache = kv_cache
        self._leases: list[Lease] = []  # the latest one last

    def __len__(self) -> int:
        return len(self._leases)

    def keep(self, request: Request) -> None:
        """Keep the sequence of a request that ends, if it asked for that. It holds the sequence until then."""
        sequence = request.sequence
        if request.conversation is not None or request.error is not None or sequence is None:
            return
        if sequence.scope is None or sequence.scope != request.scope or len(sequence.tokens) < MIN_SHARED:
            return
        sequence.is_prefix = True
        self._leases.append(self._kv_cache.keep(sequence))
        self._limit(sequence)

    def _limit(self, latest: CachedSequence) -> None:
        """Release what was dropped, what others hold as well, and what is of least use where there are too many."""
        for lease in self._leases[:-1]:
            if not lease.sequence.tokens or self._n_only_in(lease.sequence) == 0:
                self._release(lease)
        alike = [lease for lease in self._leases if lease.sequence.scope == latest.scope]
        if len(alike) > KEPT_OF_KEY:
            self._release(self._least_useful(alike[:-1]))
        elif len(self._leases) > KEPT_PREFIXES:
            self._release(self._leases[0])

    def _release(self, lease: Lease) -> None:
        self._leases.remove(lease)
        lease.release()

    def _least_useful(self, leases: Sequence[Lease]) -> Lease:
        """Return the one whose own tokens are fewest for its age: a question goes before the document it is about."""
        ages = {lease: len(leases) - i for i, lease in enumerate(leases)}
        return min(leases, key=lambda lease: self._n_only_in(lease.sequence) / ages[lease])

    def _n_only_in(self, sequence: CachedSequence) -> int:
        """Return how many tokens of a sequence no other one has that is kept for the same requests."""
        others = (lease.sequence for lease in self._leases if lease.sequence is not sequence)
        alike = (each for each in others if (each.scope, each.adapters) == (sequence.scope, sequence.adapters))
        shared = max((common_prefix(each.tokens, sequence.tokens) for each in alike), default=0)
        return len(sequence.tokens) - shared
