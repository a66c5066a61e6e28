"""Requests that wait for a place to run in, and how much those that run have got."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from .conversation import Conversation
from .fair_queue import FairQueue
from .request import Request
from .tuning import FIRST_QUANTUM, MOST_BEGUN, PROMPT_COST, QUANTUM


class WaitingLine:
    """Requests that have not ended: which of those that wait may start, and which is next.

    A request may start unless an earlier one of its conversation has not ended, or another request evaluates its
    prompt. First come those that were preempted because there were no free cells, then the others in fair order between
    tenants and their conversations. The time of an operation does not depend on how many may not start.
    """

    def __init__(self, n_parallel: int) -> None:
        """Make an empty line, for ``n_parallel`` requests that run at once."""
        self._numbers: dict[Request, int] = {}  # of all that wait
        self._fair: FairQueue[Request] = FairQueue(QUANTUM, FIRST_QUANTUM, MOST_BEGUN * n_parallel)  # may start, or run
        self._preempted: list[Request] = []  # the latest one last
        self._unfinished: dict[Conversation, deque[Request]] = {}  # requests that have not ended, waiting or not
        self._counted: dict[Request, tuple[int, float]] = {}  # of those that run: tokens, and the cost of the prompt
        self._next, self._before_all = 0, -1

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, request: Request) -> bool:
        return request in self._numbers

    # --- those that wait

    def add(self, request: Request, *, has_leader: bool = False) -> None:
        """Put a request into the line. With ``has_leader``, it may not start before :meth:`release`."""
        self._count_service()
        self._numbers[request] = self._next
        self._next += 1
        if request.conversation is not None:
            self._unfinished.setdefault(request.conversation, deque()).append(request)
        if not has_leader and self._is_next(request):
            self._make_ready(request)

    def release(self, request: Request) -> None:
        """Allow a request to start that waited for another one to evaluate its prompt."""
        if request in self._numbers:
            self._make_ready(request)

    def ready(self) -> Iterator[Request]:
        """Yield the requests that may start, the next one first.

        The one that was yielded last may start or end meanwhile, and others may be put back.
        """
        if not self._numbers:
            return
        self._count_service()
        preempted = self._preempted[::-1]
        yield from preempted
        for request in self._fair.in_order():
            if request not in preempted:
                yield request

    @property
    def in_arrival_order(self) -> list[Request]:
        """All requests that wait, those that ran before first."""
        return sorted(self._numbers, key=self._numbers.__getitem__)

    def unfinished(self, conversation: Conversation) -> list[Request]:
        """Return the requests of a conversation that have not ended, in order of arrival."""
        return list(self._unfinished.get(conversation, ()))

    # --- those that run

    def start(self, request: Request) -> None:
        """Note that a request runs from now on; the next one of its conversation still waits for its end."""
        del self._numbers[request]
        if request in self._preempted:
            self._preempted.remove(request)
        self._fair.start(request)
        self._counted[request] = (len(request.tokens), _cost_of_prompt(request))

    def put_back(self, request: Request, *, first: bool) -> None:
        """Let a running request wait: ``first``, before all others, or in its place of the fair order."""
        self._count_service()
        del self._counted[request]
        self._fair.displace(request)
        self._numbers[request] = self._before_all
        self._before_all -= 1
        if first:
            self._preempted.append(request)

    def to_pause(self, running: Sequence[Request], request: Request) -> list[Request]:
        """Return the running requests in whose places one should run that may start: who got most comes first."""
        urgent = not request.tokens
        found = [each for each in running if each.tokens and self._fair.may_displace(request, each, urgent=urgent)]
        return sorted(found, key=self._fair.service, reverse=True)

    def _count_service(self) -> None:
        """Count what running requests got since this was called before."""
        for request, (n_tokens, cost) in self._counted.items():
            now = len(request.tokens), max(cost, _cost_of_prompt(request))
            if now[0] > n_tokens:
                self._fair.charge(request, now[0] - n_tokens)
            if now[1] > cost:
                self._fair.charge_extra(request, now[1] - cost)
            self._counted[request] = now

    # --- ends

    def remove(self, request: Request) -> None:
        """Take out a request that has ended, waiting or not: the next one of its conversation may start."""
        self._count_service()
        self._numbers.pop(request, None)
        self._counted.pop(request, None)
        if request in self._preempted:
            self._preempted.remove(request)
        if request in self._fair:
            self._fair.remove(request)
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

    def _is_next(self, request: Request) -> bool:
        return request.conversation is None or self._unfinished[request.conversation][0] is request

    def _make_ready(self, request: Request) -> None:
        if request in self._fair:
            return
        conversation = request.conversation
        if conversation is None:
            self._fair.add(request, "", None)
        else:
            self._fair.add(request, conversation.scope, conversation.name)


def _cost_of_prompt(request: Request) -> float:
    """Return what the evaluated part of a prompt costs, in tokens of answers."""
    n = min(request.n_evaluated, len(request.prompt)) - (request.n_reused or 0)
    return min(QUANTUM, PROMPT_COST * max(0, n))
