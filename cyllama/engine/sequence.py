"""One cached sequence: its token ids, where their keys and values are, and what keeps it in the cache."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..llama.llama_cpp import LlamaState
from .adapters import AdapterKey


class Checkpoint:
    """What cannot be rolled back of a sequence (recurrent states, sliding windows), as it was after some tokens.

    Attributes:
        n_tokens: Number of tokens.
        state: The state that llama.cpp saved then.
        n_sequences: Number of sequences that can go back to it.
    """

    __slots__ = ("n_sequences", "n_tokens", "state")

    def __init__(self, n_tokens: int, state: LlamaState) -> None:
        self.n_tokens = n_tokens
        self.state = state
        self.n_sequences = 0


class CachedSequence:
    """Token ids, and where their keys and values are: in the context, in host memory, or dropped.

    Attributes:
        tokens: Token ids that were evaluated, from position 0 on. Empty if it is dropped.
        seq_id: Its id in the context, ``None`` if it is not in the context.
        state: Its state in host memory, ``None`` if it is not there.
        checkpoints: Points to go back to, in ascending order, where the memory of the model cannot drop a tail.
        planned: After how many tokens checkpoints will be taken, in ascending order.
        target: Token ids that the request which extends it evaluates before it samples; empty while it is idle.
        leases: The leases that keep it in the cache.
        extension: The one of them whose holder appends tokens, ``None`` while it is idle.
        awaited: Whether a request that waits goes on with it.
        n_pins: Number of operations in progress that need it where it is.
        scope: Which conversations may copy a prefix of it: those of the same scope; ``None`` for none.
        adapters: The adapters that its keys and values were computed with.
        is_prefix: Whether it is kept only for calls that begin with the same tokens: such sequences leave first.
        calls: Number of generations that extended it.
        last_used: When the last one ended, on the cache's clock.
    """

    def __init__(self, *, scope: str | None, adapters: AdapterKey = ()) -> None:
        self.tokens: list[int] = []
        self.seq_id: int | None = None
        self.state: LlamaState | bytes | None = None
        self.checkpoints: list[Checkpoint] = []
        self.planned: list[int] = []
        self.target: Sequence[int] = ()
        self.leases: set[Lease] = set()
        self.extension: Lease | None = None
        self.awaited = False
        self.n_pins = 0
        self.scope = scope
        self.adapters = adapters
        self.is_prefix = False
        self.calls = 0
        self.last_used = 0

    @property
    def running(self) -> bool:
        """Whether a request is extending it."""
        return self.extension is not None

    @property
    def is_evictable(self) -> bool:
        """Whether it may leave the context or host memory to make room for others."""
        return self.extension is None and self.n_pins == 0

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep it where it is until the ``with`` block ends."""
        self.n_pins += 1
        try:
            yield
        finally:
            self.n_pins -= 1

    @property
    def n_before_checkpoint(self) -> int | None:
        """Number of tokens to evaluate before the next planned checkpoint, ``None`` if none is planned."""
        return self.planned[0] - len(self.tokens) if self.planned else None

    def checkpoint_at_most(self, n: int) -> Checkpoint | None:
        """Return the last checkpoint of at most ``n`` tokens, ``None`` if there is none."""
        return next((c for c in reversed(self.checkpoints) if c.n_tokens <= n), None)

    def plan_checkpoint(self, n: int) -> None:
        """Plan a checkpoint after ``n`` tokens; does nothing if they are evaluated already."""
        if n > len(self.tokens) and n not in self.planned:
            insort(self.planned, n)

    def become_idle(self, last_used: int) -> None:
        """Record that no request extends it from now on."""
        self.extension = None
        self.planned, self.target = [], ()
        self.last_used = last_used


class Lease:
    """Keeps a sequence in the cache until :meth:`release`, which may be called any number of times.

    A sequence has at most one lease that *extends* it: its holder appends tokens, and the sequence stays in the
    context. Any number of others only *keep* the sequence, wherever it is. A sequence without a lease leaves the cache.
    A lease is a context manager that releases it at the end.

    Attributes:
        sequence: The sequence.
    """

    __slots__ = ("_on_release", "sequence")

    def __init__(self, sequence: CachedSequence, on_release: Callable[[Lease], None] | None = None) -> None:
        """Make a lease of ``sequence``. The first :meth:`release` calls ``on_release``."""
        self.sequence = sequence
        self._on_release = on_release
        sequence.leases.add(self)

    @property
    def extends(self) -> bool:
        """Whether its holder may append tokens."""
        return self.sequence.extension is self

    def another(self) -> Lease:
        """Return one more lease of the sequence, before this one is released. It only keeps the sequence."""
        return Lease(self.sequence, self._on_release)

    def release(self) -> None:
        """Give the sequence back. After the first call, this does nothing."""
        on_release, self._on_release = self._on_release, None
        self.sequence.leases.discard(self)
        if on_release is not None:
            on_release(self)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class LeaseHolder:
    """What keeps at most one sequence in the cache: a request, or a conversation. Only the engine's thread changes it.

    Attributes:
        lease: What keeps the sequence in the cache, if there is one. :meth:`hold` replaces it.
    """

    def __init__(self) -> None:
        self.lease: Lease | None = None

    @property
    def sequence(self) -> CachedSequence | None:
        """The sequence that it keeps in the cache."""
        lease = self.lease
        return None if lease is None else lease.sequence

    def hold(self, lease: Lease | None) -> None:
        """Hold a lease instead of the one before, which is released after that; ``None`` only releases.

        If releasing raises, the new lease is held all the same, and the one before is released.
        """
        before, self.lease = self.lease, lease
        if before is not None and before is not lease:
            before.release()


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the longest common prefix of two lists.

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
