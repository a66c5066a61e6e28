"""The one context that generations run in: when it is created, reused, replaced and released."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from ..config import ModelConfig
from ..errors import ContextError, ContextMemoryError, UnsupportedModelError
from ..llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
from .adapters import NO_ADAPTERS, AdapterSet
from .context_params import PADDING, context_params, max_idle_cells, order_decides_rounding, padded
from .kv_cache import KVCache
from .log import EngineLogger
from .memory_needs import WAY_OUT, check_kv_memory, memory_during_replacement, token_bytes
from .sequence import CachedSequence
from .stats import Stats
from .tuning import FIRST_RETRY, LAST_RETRY, MOST_SIZES

logger = EngineLogger(__name__)


@dataclass(frozen=True)
class ContextNeed:
    """What the running requests, and one that is to start, need of the context.

    Attributes:
        n_ctx: Tokens that have to fit.
        preferred_n_ctx: Tokens for which a new context would not have to be replaced soon, without idle sequences.
        n_batch: Most tokens of one step.
        twice_up_to: Tokens up to which a new context is at least twice as large as the one before.
        own: The sequence that the request continues. It is not idle any more.
        has_idle: Whether a new context has room for idle sequences as well.
        beside_idle: Tokens of the requests beside which idle sequences have room, even if a small context has to be
            replaced for it; ``None`` where it does not.
    """

    n_ctx: int
    preferred_n_ctx: int
    n_batch: int
    twice_up_to: int = 0
    own: CachedSequence | None = None
    has_idle: bool = False
    beside_idle: int | None = None


class GenerationContext:
    """At most one :class:`LlamaContext`, with the batch and the KV cache that belong to it.

    Only the engine's thread uses it.

    Attributes:
        context: The context, ``None`` without one.
        n_ctx: Its requested size in tokens, of all conversations together; 0 without one.
        batch: Memory for the tokens of one step.
        kv_cache: The sequences of the context. It outlives the context.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, stats: Stats, *, least_batch: int = 0) -> None:
        """Have no context.

        Args:
            model: The model.
            config: How it was loaded.
            stats: What is counted.
            least_batch: Tokens that a step of a new context can have at least.
        """
        self._model = model
        self._least_batch = least_batch
        self._config = config
        self._stats = stats
        self.context: LlamaContext | None = None
        self.n_ctx = 0
        self.batch = LlamaBatch(1)
        self._adapters = NO_ADAPTERS  # those that the context computes with
        self._failures = 0  # attempts in a row to replace the context that failed
        self._retry_at = 0  # number of the step before which there is no other attempt
        self.kv_cache = KVCache(
            model,
            config.host_cache_mb * 2**20,
            max_idle_cells(config, model),
            swa_full=config.swa_full,
            token_bytes=max(1, token_bytes(model, config)),
            order_decides_rounding=order_decides_rounding(config, model),
        )

    def provide(self, need: ContextNeed) -> None:
        """Have a context with room for one more request. A context that is replaced hands its sequences on.

        Raises:
            ContextMemoryError: As of :meth:`ensure`.
            ContextError: As of :meth:`ensure`.
        """
        if self.context is None or need.n_ctx > self.n_ctx:
            n_ctx = need.preferred_n_ctx + (self.kv_cache.idle_tokens(but=need.own) if need.has_idle else 0)
            preferred_n_ctx = max(n_ctx, min(2 * self.n_ctx, need.twice_up_to))
            self.ensure(need.n_ctx, preferred_n_ctx=preferred_n_ctx, n_batch=need.n_batch)
        if need.beside_idle is not None:
            self._make_room_for_idle(need.beside_idle, need)

    def _make_room_for_idle(self, n_ctx: int, need: ContextNeed) -> None:
        """Replace a small context so that idle sequences beside ``n_ctx`` tokens do not evict each other."""
        limit = self.kv_cache.idle_cells_max
        if self.n_ctx >= limit:
            return
        wanted = min(n_ctx + self.kv_cache.idle_tokens(but=need.own), limit)
        with suppress(ContextMemoryError, ContextError):  # then they do evict each other
            self.ensure(wanted, preferred_n_ctx=min(2 * self.n_ctx, limit), n_batch=need.n_batch)

    def ensure(self, n_ctx: int, *, preferred_n_ctx: int, n_batch: int, at_once: bool = False) -> bool:
        """Have a context of at least ``n_ctx`` tokens. A context that is replaced hands its sequences on.

        Args:
            n_ctx: Tokens that have to fit.
            preferred_n_ctx: Tokens of a new context if the memory allows it; otherwise sizes in between are tried.
            n_batch: Most tokens of one step, if a context has to be created.
            at_once: Whether to try even if the last attempt has just failed.

        Returns:
            Whether a context that existed already is large enough.

        Raises:
            ContextMemoryError: There is not enough memory for it. The context from before exists still, unless there
                was not enough memory to create it again: then there is no context.
            ContextError: llama.cpp cannot create one with these options.
        """
        if self.context is not None and n_ctx <= self.n_ctx:
            return True
        if self._stats.steps < self._retry_at and self.kv_cache.running and not at_once:
            raise ContextMemoryError(f"a context of n_ctx={n_ctx} tokens could not be created just now. {WAY_OUT}")
        sizes = self._affordable(sizes_between(n_ctx, preferred_n_ctx))
        old_n_ctx, n_batch = self.n_ctx, max(n_batch, self.batch.capacity)
        self._close_context(keep=True, idle_bytes_max=self._memory_left(sizes[0]))
        try:
            self._create_one_of(sizes, n_batch)
        except (ContextMemoryError, ContextError):
            self._retry_at = self._stats.steps + min(FIRST_RETRY * 2**self._failures, LAST_RETRY)
            self._failures += 1
            if old_n_ctx:
                with suppress(ContextMemoryError, ContextError):
                    self._create(old_n_ctx, n_batch)
            raise
        self._failures = self._retry_at = 0
        return False

    def _create_one_of(self, sizes: list[int], n_batch: int) -> None:
        """Create a context of the first of these sizes that the memory allows."""
        for size in sizes[:-1]:
            try:
                self._create(size, n_batch)
                return
            except (ContextMemoryError, ContextError):
                logger.debug("no context of %d tokens could be created", size, exc_info=True)
        self._create(sizes[-1], n_batch)

    def _affordable(self, sizes: list[int]) -> list[int]:
        """Return the sizes, largest first, that the available memory seems to allow beside what moves meanwhile.

        Raises:
            ContextMemoryError: There is not enough memory for the last one either.
        """
        n_bytes = self._bytes_to_move()
        for i, size in enumerate(sizes):
            try:
                check_kv_memory(self._model, self._config, size, held=self.n_ctx, moved=n_bytes)
                return sizes[i:]
            except ContextMemoryError:
                if size == sizes[-1]:
                    raise
        return sizes

    def _bytes_to_move(self) -> float:
        """Return the bytes of host memory that running sequences take while the context is replaced."""
        return self.kv_cache.bytes_to_move(self.kv_cache.running)

    def _memory_left(self, n_ctx: int) -> float | None:
        """Return the bytes that idle sequences may take while the context is replaced, ``None`` for no known limit."""
        left = memory_during_replacement(self._model, self._config, n_ctx, held=self.n_ctx)
        return None if left is None else max(0, left - self._bytes_to_move())

    def use(self, adapters: AdapterSet) -> None:
        """Compute with these adapters from the next step on. If others were used before, that step takes longer."""
        if adapters.key == self._adapters.key:
            return
        assert self.context is not None
        self.context.set_adapters_lora([(adapter.lora, scale) for adapter, scale in adapters.adapters])
        self._adapters = adapters
        self._stats.adapter_switches += 1

    def release_unloaded_adapters(self) -> None:
        """While no request runs: free adapters of the last step that were unloaded meanwhile."""
        if self.context is not None and any(adapter.unloaded for adapter, _ in self._adapters.adapters):
            self.use(NO_ADAPTERS)

    def release(self) -> None:
        """Close the context and forget all sequences."""
        self._close_context(keep=False)

    def _close_context(self, *, keep: bool, idle_bytes_max: float | None = None) -> None:
        if self.context is not None and keep:
            self.kv_cache.detach(idle_bytes_max)
        elif not keep:
            self.kv_cache.close()
            self._failures = self._retry_at = 0
        if self.context is not None:
            self.context.close()
        self.context = None
        self._adapters = NO_ADAPTERS
        self.n_ctx = self._stats.n_ctx = self._stats.kv_cells = 0
        self._stats.kv_cache_bytes, self._stats.compute_bytes = {}, {}

    def _create(self, n_ctx: int, n_batch: int) -> None:
        check_kv_memory(self._model, self._config, n_ctx)
        n_batch = max(n_batch, self._least_batch)
        params = context_params(self._config, n_ctx=padded(n_ctx), n_batch=n_batch, model=self._model)
        context = create_context(self._model, params, WAY_OUT)
        if not context.has_memory:
            context.close()
            raise UnsupportedModelError("the model cannot generate text: it remembers nothing of what it has read")
        self.context = context
        self.batch = LlamaBatch(context.n_batch)
        self.kv_cache.attach(context)
        self._stats.contexts_created += 1
        self.n_ctx = self._stats.n_ctx = n_ctx
        self._stats.kv_cells = context.n_ctx
        uses = context.memory_use()
        self._stats.kv_cache_bytes = {use.device: use.kv_cache for use in uses if use.kv_cache}
        self._stats.compute_bytes = {use.device: use.compute for use in uses if use.compute}
        logger.debug("created a context of %d tokens", n_ctx)


def create_context(model: LlamaModel, params: LlamaContextParams, way_out: str) -> LlamaContext:
    """Create a context.

    Raises:
        ContextMemoryError: There is not enough memory. The message ends with ``way_out``, what the caller can do.
        ContextError: llama.cpp cannot create one with these parameters.
    """
    try:
        return LlamaContext(model, params)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise ContextMemoryError(f"{error}. {way_out}") from error
        raise ContextError(str(error)) from error


def sizes_between(least: int, preferred_n_ctx: int) -> list[int]:
    """Return the sizes of a context to try, in tokens, the largest first.

    >>> sizes_between(1000, 3000)
    [3000, 2000, 1500, 1250, 1000]
    """
    sizes, excess = [], max(0, preferred_n_ctx - least)
    while excess >= PADDING // 2 and len(sizes) < MOST_SIZES:
        sizes.append(least + excess)
        excess //= 2
    return [*sizes, least]
