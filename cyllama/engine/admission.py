"""Which waiting request gets a place to run in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ContextMemoryError
from .context import ContextNeed, GenerationContext
from .kv_cache import Wait
from .request import Request
from .stats import Stats
from .tuning import HEADROOM


class Admission:
    """The rules of whether a waiting request may run.

    They are, in this order: its prompt can be made, the context has or gets room for it, no running request is
    evaluating a prefix that it can copy soon, and there are enough free cells.
    """

    def __init__(self, context: GenerationContext, stats: Stats, *, n_ctx_train: int, kv_cells: int | None) -> None:
        """Admit requests to ``context``.

        Args:
            context: Where they run.
            stats: What is counted.
            n_ctx_train: Size of a context, in tokens, that the model was trained for.
            kv_cells: Fixed size of the context; ``None`` if it is as large as the requests need.
        """
        self._context = context
        self._kv_cache = context.kv_cache
        self._stats = stats
        self._n_ctx_train = n_ctx_train
        self._kv_cells = kv_cells

    def admit(self, request: Request, running: Sequence[Request], next_ones: Iterable[Request]) -> Wait | None:
        """Give a waiting request a sequence, so that it runs from now on; otherwise return why it has to wait.

        Args:
            request: The request, before which all others of its conversation have ended.
            running: The requests that run.
            next_ones: Those that will probably start after it, so that a new context has room for them as well.

        Raises:
            Exception: The request cannot run, not even alone. It may hold a lease.
        """
        contexts_created = self._stats.contexts_created
        request.resolve()
        try:
            self._context.provide(self._need(request, running, next_ones))
        except ContextMemoryError:
            if running:
                return Wait.FOR_ROOM
            raise
        headroom = None
        if self._kv_cells is not None:
            headroom = sum(HEADROOM + other.pending - 1 for other in running)
        place = self._kv_cache.admit(request.query, headroom=headroom)
        if isinstance(place, Wait):
            return place
        began_before = request.n_reused is not None
        request.extend(place)
        if not began_before:
            self._stats.prompt_tokens_reused += request.n_reused or 0
        self._stats.context_reuses += self._stats.contexts_created == contexts_created
        return None

    def waits_for_prefix(self, request: Request) -> bool:
        """Return whether a running request is evaluating a prefix that a waiting one can copy soon.

        Raises:
            Exception: The request cannot run, not even alone.
        """
        request.resolve()
        return self._kv_cache.waits_for_prefix(request.query)

    def _need(self, request: Request, running: Sequence[Request], next_ones: Iterable[Request]) -> ContextNeed:
        """Return what the running requests and one more need of the context."""
        config = request.config
        if self._kv_cells is not None:
            return ContextNeed(self._kv_cells, self._kv_cells, config.n_batch)
        together = [*running, request]
        reserved = sum(other.reserved for other in together)
        needed = max(reserved, config.n_ctx or 0)
        later = 0
        if needed > self._context.n_ctx:
            later = sum(other.reservation.required or request.reservation.required for other in next_ones)
        wants_idle_kept = request.scope is not None and config.n_ctx is None
        return ContextNeed(
            needed,
            reserved + later,
            config.n_batch,
            twice_up_to=sum(other.config.n_ctx or self._n_ctx_train for other in together),
            own=request.own_sequence,
            has_idle=any(other.config.n_ctx is None for other in together),
            beside_idle=sum(other.reservation.most_at_first for other in together) if wants_idle_kept else None,
        )
