"""Which waiting request gets a place to run in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from ..errors import ContextError, ContextMemoryError, DecodeError
from .context import GenerationContext
from .request import Request
from .scheduler import Scheduler
from .sequence import common_prefix
from .stats import Stats
from .tuning import HEADROOM, MIN_SHARED, MOST_CONSIDERED


class Admitted(NamedTuple):
    """A request that runs from now on."""

    request: Request


class Refused(NamedTuple):
    """A request that cannot run, not even alone, and why."""

    request: Request
    error: Exception


class Admission:
    """The rules of which waiting request may run.

    Requests are considered in order of arrival. One whose prefix a running request is evaluating waits until it can
    copy that, while others start. The first one for which there is no room ends the pass, so that those which arrived
    later do not overtake it.

    Attributes:
        alone: A request that began while no other ran, until another one starts. Its text must not depend on what else
            the context holds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        context: GenerationContext,
        stats: Stats,
        *,
        n_ctx_train: int,
        kv_cells: int | None,
    ) -> None:
        """Admit requests of ``scheduler`` to ``context``.

        Args:
            scheduler: What waits and what runs.
            context: Where it runs.
            stats: What is counted.
            n_ctx_train: Size of a context, in tokens, that the model was trained for.
            kv_cells: Fixed size of the context; ``None`` if it is as large as the requests need.
        """
        self.alone: Request | None = None
        self._scheduler = scheduler
        self._context = context
        self._kv_cache = context.kv_cache
        self._stats = stats
        self._n_ctx_train = n_ctx_train
        self._kv_cells = kv_cells

    def admit(self) -> Iterator[Admitted | Refused]:
        """Let waiting requests start for which there is room.

        Yields:
            Each request that was admitted or refused. A refused one has to leave the scheduler before the next is asked
            for.
        """
        for request in islice(self._scheduler.next_waiting(), MOST_CONSIDERED):
            contexts_created = self._stats.contexts_created
            try:
                request.resolve()
                if self._shares_a_prefill(request):
                    continue
                if not self._ensure_room(request):
                    if self._scheduler.running:
                        return
                    raise DecodeError("there is no space in the KV cache for this prompt")
                request.start()
                self._start(request)
            except Exception as error:  # the caller's to handle: the engine goes on
                yield Refused(request, error)
            else:
                self._stats.context_reuses += self._stats.contexts_created == contexts_created
                yield Admitted(request)

    # --- does it wait for a prefix?

    def _shares_a_prefill(self, request: Request) -> bool:
        """Return whether a running request is evaluating a prefix that this one will be able to copy soon."""
        if request.conversation is None or request.tokens:
            return False
        for other in self._scheduler.running:
            if other.conversation is None or other.n_evaluated >= len(other.prompt):
                continue
            if other.adapters.key != request.adapters.key:
                continue
            shared = min(common_prefix(other.prompt, request.prompt), len(request.prompt) - 1)
            if shared < MIN_SHARED or shared <= other.n_evaluated:
                continue
            own, adapters = request.conversation.sequence, request.adapters.key
            _, known = self._kv_cache.longest_prefix(request.prompt, own, shareable=True, adapters=adapters)
            if shared >= known + MIN_SHARED and self._will_be_shared(other, shared):
                return True
        return False

    def _will_be_shared(self, request: Request, n: int) -> bool:
        """Return whether others can copy the first ``n`` tokens of a request's prompt once they are evaluated."""
        assert request.sequence is not None
        return self._kv_cache.share_after(request.sequence, n)

    # --- is there room?

    def _ensure_room(self, request: Request) -> bool:
        """Create or replace the context if one more request needs it; return whether there is room for the request."""
        running = self._scheduler.running
        if self._kv_cells is not None:
            self._context.ensure(self._kv_cells, preferred_n_ctx=self._kv_cells, n_batch=request.config.n_batch)
            return not running or self._has_cells_for(request)
        reserved = sum(other.reserved for other in (*running, request))
        needed = max(reserved, request.config.n_ctx or 0)
        try:
            self._context.ensure(
                needed, preferred_n_ctx=self._preferred_n_ctx(reserved, request), n_batch=request.config.n_batch
            )
        except ContextMemoryError:
            if running:
                return False
            raise
        if request.conversation is not None and request.config.n_ctx is None:
            self._make_room_for_idle(request)
        return True

    def _has_cells_for(self, request: Request) -> bool:
        """Return whether one more request can run in a fixed number of cells, and all of them go on for a while."""
        needed, available = self._kv_cache.cells_for(
            request.all_tokens,
            request.own_sequence,
            shareable=request.conversation is not None,
            adapters=request.adapters.key,
        )
        return needed + 1 + HEADROOM * len(self._scheduler.running) <= available

    def _preferred_n_ctx(self, reserved: int, request: Request) -> int:
        """Return the size of a new context that need not be replaced soon.

        Args:
            reserved: Tokens that the running requests and ``request`` reserve.
            request: The one that is to start.
        """
        running = [*self._scheduler.running, request]
        others = (other for other in self._scheduler.next_waiting() if other is not request)
        soon = islice(others, max(0, self._scheduler.n_parallel - len(running)))
        n_ctx = reserved + sum(other.reservation.required or request.reservation.required for other in soon)
        if any(other.config.n_ctx is None for other in running):
            n_ctx += self._kv_cache.idle_tokens(but=request.own_sequence)
        most = sum(other.config.n_ctx or self._n_ctx_train for other in running)
        return max(n_ctx, min(2 * self._context.n_ctx, most))

    def _make_room_for_idle(self, request: Request) -> None:
        """Replace a small context so that idle conversations do not evict each other."""
        limit = self._kv_cache.idle_cells_max
        needed = sum(other.reservation.most_at_first for other in (*self._scheduler.running, request))
        wanted = min(needed + self._kv_cache.idle_tokens(but=request.own_sequence), limit)
        with suppress(ContextMemoryError, ContextError):  # then they do evict each other
            self._context.ensure(
                wanted, preferred_n_ctx=min(2 * self._context.n_ctx, limit), n_batch=request.config.n_batch
            )

    # --- the start

    def _start(self, request: Request) -> None:
        """Give a request a sequence that holds the longest known prefix of its tokens, and let it run."""
        kv_cache, conversation = self._kv_cache, request.conversation
        own = request.own_sequence
        self.alone = None
        if not self._scheduler.running:
            if conversation is None and own is None:
                self._begin_alone(request)
            kv_cache.compact(own)
        shareable, adapters = conversation is not None, request.adapters.key
        lease = kv_cache.open(request.all_tokens, own, shareable=shareable, adapters=adapters)
        before, request.lease = request.lease, lease
        if before is not None:  # it ran before, or followed another request
            before.release()
        sequence = lease.sequence
        if conversation is not None:
            if own is not sequence:
                before, conversation.lease = conversation.lease, kv_cache.keep(sequence)
                if before is not None:
                    before.release()
            kv_cache.plan_checkpoint(sequence, len(request.prompt) - 1)
        if request.n_reused is None:
            request.n_reused = len(sequence.tokens)
            self._stats.prompt_tokens_reused += request.n_reused
        self._scheduler.start(request)

    def _begin_alone(self, request: Request) -> None:
        """Let the text of a request not depend on what ran before, nor on what else the context holds."""
        if self._kv_cache.begin_in_order(request.reservation.most_at_first):
            self.alone = request
            return
        while self._kv_cache.move_away():
            pass  # an empty context gives it the same cells every time
