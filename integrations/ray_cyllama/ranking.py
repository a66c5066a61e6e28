"""Which replica a request goes to: by the hash of its key, and by how busy the replicas are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

NEAR = 2
"""How many replicas, after the first one, are tried before all others. A session that is often too much for its first
replica then finds its tokens in one of these."""

_MASK = (1 << 64) - 1


def digest64(text: str) -> int:
    """Return 64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def mix(value: int) -> int:
    """Return 64 bits that look independent of those of any other value (the last step of SplitMix64).

    >>> mix(1) != mix(2)
    True
    """
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def ranked(key: str, replicas: Sequence[T], name: Callable[[T], str] = str) -> list[T]:
    """Return the replicas in the order in which a key prefers them (rendezvous hashing).

    Two replicas have the same order whatever others there are. So only those keys move to a new replica that prefer it
    to all others, and only the keys of a replica move when it goes away.

    >>> first = ranked("a conversation", ["a", "b", "c"])[0]
    >>> ranked("a conversation", ["c", "b", "a", "d"])[0] in (first, "d")
    True

    Args:
        key: What is routed.
        replicas: The replicas, in any order.
        name: Returns the name of a replica, which stays the same.
    """
    hashed = digest64(key)
    return sorted(replicas, key=lambda replica: (mix(hashed ^ digest64(name(replica))), name(replica)), reverse=True)


def groups(order: Sequence[T], has_room: Callable[[T], bool]) -> list[list[T]]:
    """Return where a request may go, the preferred group first. Of a group, the least busy replica is taken.

    While its first replica has room, a key goes there. Otherwise it goes to one of the next `NEAR` with room, then to
    any with room. If there is no room anywhere, it waits at its first replica, or at any that still takes requests.

    >>> groups(["a", "b", "c", "d"], lambda replica: replica != "a")
    [['b', 'c'], ['d'], ['a'], ['b', 'c', 'd']]

    Args:
        order: All replicas, as a key prefers them.
        has_room: Whether a replica would answer at once.
    """
    first, near, others = order[:1], order[1 : 1 + NEAR], order[1 + NEAR :]
    free = [[replica for replica in group if has_room(replica)] for group in (first, near, others)]
    return [group for group in (*free, list(first), [*near, *others]) if group]
