"""Several continuations of one prompt."""

from __future__ import annotations

from collections.abc import Sequence

from .kv_cache import KVCache
from .request import Request


class Groups:
    """Requests with the same prompt, which one of each group, the leader, evaluates for all.

    The followers wait meanwhile. They sample their first token from the same logits as the leader, and continue a copy
    of its sequence. A group ends when its prompt was evaluated.
    """

    def __init__(self) -> None:
        self._followers: dict[Request, list[Request]] = {}  # by leader
        self._leaders: dict[Request, Request] = {}  # by follower

    def __bool__(self) -> bool:
        """Whether there is any group."""
        return bool(self._followers)

    def add(self, requests: Sequence[Request]) -> None:
        """Make a group of several requests; the first one leads."""
        if len(requests) > 1:
            leader, *followers = requests
            self._followers[leader] = followers
            self._leaders |= dict.fromkeys(followers, leader)

    def has_leader(self, request: Request) -> bool:
        """Whether a request waits for another one to evaluate its prompt."""
        return request in self._leaders

    def start_followers(self, leader: Request) -> Sequence[Request]:
        """Return the requests that sample their first token from the same logits, with their samplers."""
        followers = self._followers.get(leader, ())
        for request in followers:
            request.start()
        return followers

    def share_prompt(self, leader: Request, kv_cache: KVCache) -> list[Request]:
        """End a group whose prompt was evaluated: let the followers continue a copy of it. Return them.

        Where the prompt could not be copied, they evaluate it again.
        """
        followers = self._followers.pop(leader, [])
        if followers and leader.wants_tokens:
            assert leader.sequence is not None
            with kv_cache.branch(leader.sequence, scope=None) as copy:
                for request in followers:
                    request.hold(kv_cache.keep(copy.sequence))
                    request.n_reused = len(request.prompt) if copy.sequence.tokens else None
        for request in followers:
            del self._leaders[request]
        return followers

    def remove(self, request: Request) -> Request | None:
        """Take out a request that has ended; return the follower that takes its place, if it has to."""
        leader = self._leaders.pop(request, None)
        if leader is not None:
            self._followers[leader].remove(request)
            return None
        return self._promote_follower(request)

    def _promote_follower(self, leader: Request) -> Request | None:
        """Let the first follower of a leader that has ended lead; return it, if there is one."""
        followers = self._followers.pop(leader, None)
        if not followers:
            return None
        del self._leaders[followers[0]]
        self.add(followers)
        return followers[0]
