"""Which cached sequence knows most of a prompt. Nothing here changes the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .adapters import AdapterKey
from .sequence import CachedSequence, common_prefix
from .tuning import COPY_COST, MIN_SHARED


class Query(NamedTuple):
    """What a request needs of the cache.

    Attributes:
        tokens: All that has to be in its sequence before the next token is sampled. At least one of them is evaluated.
        own: What the request's conversation went on from last time.
        scope: Whose prefixes it shares: those of conversations of the same scope; ``None`` for no others.
        adapters: What the request is computed with. Sequences of others are of no use to it.
        n_prompt: How many of the tokens are the prompt; the others were generated before it was preempted.
        n_at_first: Most tokens of prompt and answer before the context has to grow.
    """

    tokens: Sequence[int]
    own: CachedSequence | None
    scope: str | None
    adapters: AdapterKey = ()
    n_prompt: int = 0
    n_at_first: int = 0

    def may_use(self, sequence: CachedSequence) -> bool:
        """Return whether a sequence may be used, as far as its tokens agree."""
        own = sequence is self.own
        return sequence.adapters == self.adapters and (own or (self.scope is not None and sequence.scope == self.scope))


def longest_prefix(
    query: Query, sequences: Iterable[CachedSequence], usable: Callable[[CachedSequence, int], int]
) -> tuple[CachedSequence | None, int]:
    """Return the sequence that knows most of a prompt, and how many tokens; its own if others are equal.

    A sequence in host memory has to know enough more to be worth the copy.

    Args:
        query: The prompt.
        sequences: The sequences of the cache.
        usable: Returns how many of its first ``n`` tokens a sequence can go back to.
    """
    tokens, own = query.tokens, query.own
    limit = len(tokens) - 1
    best, best_n = None, 0
    if own is not None and query.may_use(own):
        best, best_n = own, usable(own, min(common_prefix(own.tokens, tokens), limit))
    for other in sequences if query.scope is not None else ():
        if other is own or not query.may_use(other) or other.tokens[: best_n + 1] != tokens[: best_n + 1]:
            continue
        n = usable(other, min(common_prefix(other.tokens, tokens), limit))
        n_copied = 0 if other.seq_id is not None else len(other.tokens)
        if n > best_n and n - best_n >= n_copied * COPY_COST:
            best, best_n = other, n
    return (best, best_n) if best_n > 0 else (None, 0)


def is_evaluated_soon(
    query: Query,
    running: Sequence[CachedSequence],
    known: Callable[[], int],
    can_share: Callable[[CachedSequence, int], bool],
) -> bool:
    """Return whether a running request is evaluating a prefix that can be copied soon.

    It has to save enough to be worth the wait. A request that was preempted does not wait for others.

    Args:
        query: The prompt.
        running: The sequences that requests are extending.
        known: Returns how many of its tokens some sequence holds already.
        can_share: Returns whether others can copy so many tokens of a sequence once they are evaluated.
    """
    if query.scope is None or len(query.tokens) > query.n_prompt:
        return False
    for other in running:
        if other.scope != query.scope or other.adapters != query.adapters or len(other.tokens) >= len(other.target):
            continue
        shared = min(common_prefix(other.target, query.tokens), len(query.tokens) - 1)
        if shared < MIN_SHARED or shared <= len(other.tokens):
            continue
        if shared >= known() + MIN_SHARED and can_share(other, shared):
            return True
    return False


def shared_prefix(query: Query, sequences: Iterable[CachedSequence]) -> int:
    """Return how many of the tokens, but the last, some sequence begins with, even if it cannot go back there."""
    tokens = query.tokens
    alike = (s for s in sequences if query.may_use(s) and s.tokens[:MIN_SHARED] == tokens[:MIN_SHARED])
    return max((min(common_prefix(s.tokens, tokens), len(tokens) - 1) for s in alike), default=0)
