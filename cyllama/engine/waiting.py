"""Requests that wait for a place to run in."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

from .conversation import Conversation
from .request import Request


class WaitingLine:
    """Waiting requests in order of arrival, and which of them may start.

    A request may start unless an earlier one of its conversation has not ended, or another request evaluates its
    prompt. The time of an operation does not depend on how many may not start.
    """

    def __init__(self) -> None:
        self._numbers: dict[Request, int] = {}  # of all that wait
        self._ready: list[tuple[int, Request]] = []  # those that may start, in order
        self._unfinished: dict[Conversation, deque[Request]] = {}  # requests that have not ended, waiting or not
        self._next, self._before_all = 0, -1

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, request: Request) -> bool:
        return request in self._numbers

    def add(self, request: Request, *, has_leader: bool = False) -> None:
        """Put a request at the end. With ``has_leader``, it may not start before :meth:`release`."""
        self._numbers[request] = self._next
        self._next += 1
        if request.conversation is not None:
            self._unfinished.setdefault(request.conversation, deque()).append(request)
        if not has_leader and self._is_next(request):
            self._make_ready(request)

    def add_first(self, request: Request) -> None:
        """Put a request that was running before all others."""
        self._numbers[request] = self._before_all
        self._before_all -= 1
        self._make_ready(request)

    def release(self, request: Request) -> None:
        """Allow a request to start that waited for another one to evaluate its prompt."""
        if request in self._numbers:
            self._make_ready(request)

    def ready(self) -> Iterator[Request]:
        """Yield the requests that may start. The one that was yielded last may be taken out meanwhile."""
        i = 0
        while i < len(self._ready):
            request = self._ready[i][1]
            yield request
            i += i < len(self._ready) and self._ready[i][1] is request

    def take(self, request: Request) -> None:
        """Take out a request that starts, or ends; the next one of its conversation still waits for its end."""
        number = self._numbers.pop(request)
        i = bisect_left(self._ready, number, key=lambda entry: entry[0])
        if i < len(self._ready) and self._ready[i][1] is request:
            del self._ready[i]

    def end(self, request: Request) -> None:
        """Note the end of a request that is not in the line any more: the next one of its conversation may start."""
        conversation = request.conversation
        unfinished = None if conversation is None else self._unfinished.get(conversation)
        if conversation is None or unfinished is None or request not in unfinished:
            return
        first = unfinished[0] is request
        unfinished.remove(request)
        if not unfinished:
            del self._unfinished[conversation]
        elif first:
            self._make_ready(unfinished[0])

    def unfinished(self, conversation: Conversation) -> list[Request]:
        """Return the requests of a conversation that have not ended, in order of arrival."""
        return list(self._unfinished.get(conversation, ()))

    def drain(self) -> list[Request]:
        """Take out all requests, in order."""
        requests = sorted(self._numbers, key=self._numbers.__getitem__)
        self._numbers.clear()
        self._ready.clear()
        self._unfinished.clear()
        return requests

    def _is_next(self, request: Request) -> bool:
        return request.conversation is None or self._unfinished[request.conversation][0] is request

    def _make_ready(self, request: Request) -> None:
        insort(self._ready, (self._numbers[request], request))
