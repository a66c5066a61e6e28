"""Free cells for what runs: evict idle sequences, grow the context, or preempt."""

from __future__ import annotations

from ..errors import ContextError, ContextMemoryError
from .context import GenerationContext
from .request import Request
from .scheduler import Scheduler
from .tuning import LEAST_GROWTH


class Capacity:
    """Provides free cells to the running requests.

    It evicts idle sequences first. Then it replaces the context by a larger one, if requests may grow. Then it preempts
    the newest request, which waits, and continues later without losing a token. A single request for which there are no
    more cells has to end.
    """

    def __init__(self, context: GenerationContext, scheduler: Scheduler, *, fixed: bool) -> None:
        """Provide the cells of ``context``, whose size is ``fixed`` or grows."""
        self._context = context
        self._kv_cache = context.kv_cache
        self._scheduler = scheduler
        self._fixed = fixed

    def free_cells_for_next_tokens(self) -> Request | None:
        """Provide a free cell for the next token of every running request.

        Returns:
            A request that has to end, if there are too few cells for it alone. Call this again afterwards.
        """
        self._kv_cache.limit_idle()
        while not self._kv_cache.make_room(len(self._scheduler.running)):
            if not self._grow():
                exhausted = self.free_cells_or_preempt()
                if exhausted is not None:
                    return exhausted
        return None

    def free_cells_for_prompts(self) -> int:
        """Provide free cells for pending tokens of prompts, as far as evicting idle sequences is enough for it.

        Returns:
            How many tokens the next batch may have.
        """
        running, capacity = self._scheduler.running, self._context.batch.capacity
        self._kv_cache.make_room(min(capacity, sum(request.pending for request in running)))
        self._kv_cache.restore_order()
        return min(capacity, self._kv_cache.free_cells)

    def free_cells_or_preempt(self) -> Request | None:
        """Evict an idle sequence, else preempt the newest of several requests, else grow although that just failed.

        Returns:
            The running request, if nothing of this was possible: it has to end.
        """
        if self._kv_cache.evict():
            return None
        running = self._scheduler.running
        if len(running) > 1:
            self._preempt(running[-1])
        elif self._kv_cache.free_cells > 0 or not self._grow(at_once=True):
            return running[-1]
        return None

    def preempt_all(self) -> None:
        """Let all running requests wait, in their order, for a context that there is memory for."""
        for request in reversed(self._scheduler.running):
            self._preempt(request)

    def pause(self, request: Request) -> bool:
        """Let a running request wait whose quantum is over; return whether that was possible.

        What it has evaluated stays where it is until others need the room.
        """
        assert request.lease is not None
        if not self._kv_cache.pause(request.lease):
            return False
        self._scheduler.pause(request)
        if request.conversation is not None:  # the conversation keeps it
            request.hold(None)
        return True

    def _preempt(self, request: Request) -> None:
        """Let a running request wait again; what it has evaluated moves to host memory."""
        assert request.lease is not None
        self._kv_cache.preempt(request.lease)
        self._scheduler.preempt(request)
        if request.conversation is not None:  # the conversation keeps it
            request.hold(None)

    def _grow(self, *, at_once: bool = False) -> bool:
        """Replace the context by a larger one if a running request may have more; return whether that was done.

        Args:
            at_once: Try although it has just failed.
        """
        running, n_ctx = self._scheduler.running, self._context.n_ctx
        if self._fixed or not any(request.reservation.can_grow for request in running):
            return False
        least = n_ctx + max(n_ctx // LEAST_GROWTH, len(running))
        wanted = sum(request.reservation.next_tokens(request.n_tokens) for request in running)
        try:
            self._context.ensure(
                least, preferred_n_ctx=max(wanted, least), n_batch=self._context.batch.capacity, at_once=at_once
            )
        except (ContextMemoryError, ContextError):
            return False
        for request in running:
            request.reservation.grow(request.n_tokens)
        return True
