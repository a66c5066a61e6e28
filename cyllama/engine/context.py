"""The one context that generations run in: when it is created, reused, replaced and released."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from ..config import GenerationConfig, ModelConfig
from ..errors import ContextError, ContextMemoryError, ContextSizeError, UnsupportedModelError
from ..llama.llama_cpp import (
    GGMLType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaRopeScalingType,
    devices,
)
from .adapters import NO_ADAPTERS, AdapterSet
from .hardware import available_memory, physical_cores
from .kv_cache import KVCache
from .log import EngineLogger
from .stats import Stats
from .tuning import (
    DEFAULT_MAX_TOKENS,
    FIRST_RETRY,
    IDLE_CELLS,
    IDLE_CELLS_GGML,
    IDLE_SEQUENCES,
    IDLE_STATES,
    MOST_SIZES,
)

logger = EngineLogger(__name__)

PADDING = 256  # llama.cpp pads a context to this
# Architectures with attention sinks, soft caps or ALiBi, which flash_attention.cpp leaves to ggml.
LEFT_TO_GGML = (
    *("baichuan", "bloom", "deepseek4", "dflash", "gemma2", "gpt-oss"),
    *("granite_swa", "grok", "jais", "mimo2", "mpt", "refact"),
)


def padded(n_tokens: int) -> int:
    """Round up to a size that llama.cpp would round up to anyway."""
    return -(-n_tokens // PADDING) * PADDING


class ContextSize(NamedTuple):
    """What one generation may take of a context, in tokens.

    Attributes:
        limit: Most tokens of prompt and answer together.
        required: What the context has to have room for before the generation starts.
    """

    limit: int
    required: int


def context_size(n_prompt: int, config: GenerationConfig, model: LlamaModel, kv_cells: int | None) -> ContextSize:
    """Return the sizes for a prompt of ``n_prompt`` tokens.

    Without a ``max_tokens`` there is no telling how long the answer gets: the context starts as for one of the default
    length, and grows.

    Raises:
        ContextSizeError: The prompt is too long, or ``n_ctx`` is larger than the model has learned positions.
    """
    limit, n_positions = config.n_ctx or model.n_ctx_train, model.n_positions
    if n_positions and limit > n_positions:
        raise ContextSizeError(
            f"n_ctx is {limit} but the model has learned position embeddings of {n_positions} tokens, and cannot go "
            f"beyond: set n_ctx in GenerationConfig to {n_positions} at most"
        )
    if n_prompt > limit and config.n_ctx is not None:
        raise ContextSizeError(
            f"the prompt has {n_prompt} tokens but n_ctx is {config.n_ctx}: raise n_ctx in GenerationConfig or "
            f"shorten the prompt"
        )
    if n_prompt > limit and n_positions:
        raise ContextSizeError(
            f"the prompt has {n_prompt} tokens but the model has learned position embeddings of {n_positions}, and "
            f"cannot go beyond: shorten the prompt"
        )
    if n_prompt > limit:
        raise ContextSizeError(
            f"the prompt has {n_prompt} tokens but the model was trained for a context of {limit}: shorten the "
            f"prompt, or set n_ctx in GenerationConfig (and RoPE scaling in ModelConfig) to go beyond"
        )
    if kv_cells is not None and n_prompt > kv_cells:
        raise ContextSizeError(
            f"the prompt has {n_prompt} tokens but all conversations share kv_cells={kv_cells}: raise kv_cells in "
            f"ModelConfig or shorten the prompt"
        )
    max_tokens = DEFAULT_MAX_TOKENS if config.max_tokens is None else config.max_tokens
    return ContextSize(limit, min(padded(n_prompt + max_tokens), limit))


class GenerationContext:
    """At most one :class:`LlamaContext`, with the batch and the KV cache that belong to it.

    Only the engine's thread uses it.

    Attributes:
        context: The context, or ``None``.
        n_ctx: Its size in tokens, of all conversations together, as it was asked for; 0 without one.
        batch: Space for the tokens of one step.
        kv_cache: What the context's sequences hold. It outlives the context.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, stats: Stats) -> None:
        self._model = model
        self._config = config
        self._stats = stats
        self.context: LlamaContext | None = None
        self.n_ctx = 0
        self.batch = LlamaBatch(1)
        self._adapters = NO_ADAPTERS  # what the context computes with
        self._failures = 0  # to replace the context, one after the other
        self._retry_at = 0  # the step before which that is not tried again
        self.kv_cache = KVCache(
            model,
            config.host_cache_mb * 2**20,
            max_idle_cells(config),
            swa_full=config.swa_full,
            token_bytes=(kv_cache_bytes(model, config, PADDING) or PADDING) / PADDING,
            order_decides=order_decides(config, model),
        )

    def ensure(self, n_ctx: int, *, preferred_n_ctx: int, n_batch: int, at_once: bool = False) -> bool:
        """Have a context of at least ``n_ctx`` tokens, and keep what the sequences hold.

        Args:
            n_ctx: Tokens that have to fit.
            preferred_n_ctx: Size of a new context if the memory allows it; otherwise sizes in between are tried.
            n_batch: Most tokens of one step, if a context has to be created.
            at_once: Try although it has just failed.

        Returns:
            Whether the context was there already.

        Raises:
            ContextMemoryError: There is not enough memory for it. What existed before exists still, unless there was
                not enough memory for that either: then there is no context.
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
            self._failures += 1
            self._retry_at = self._stats.steps + FIRST_RETRY * 2 ** min(self._failures, 8)
            if old_n_ctx:
                with suppress(ContextMemoryError, ContextError):
                    self._create(old_n_ctx, n_batch)
            raise
        self._failures = self._retry_at = 0
        return False

    def _create_one_of(self, sizes: list[int], n_batch: int) -> None:
        """Create a context of the first of these sizes for which there is memory."""
        for size in sizes[:-1]:
            try:
                self._create(size, n_batch)
                return
            except (ContextMemoryError, ContextError):
                logger.debug("no context of %d tokens could be created", size, exc_info=True)
        self._create(sizes[-1], n_batch)

    def _affordable(self, sizes: list[int]) -> list[int]:
        """Return those sizes for which there seems to be memory, beside what moves from the old context.

        Raises:
            ContextMemoryError: There is not enough memory, not even for the last one.
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
        """Return how much host memory running sequences take while the context is replaced."""
        return self.kv_cache.bytes_to_move(self.kv_cache.running)

    def _memory_left(self, n_ctx: int) -> float | None:
        """Return how much host memory idle sequences may take while the context is replaced, ``None`` if unknown."""
        new, available = kv_cache_bytes(self._model, self._config, padded(n_ctx)), available_memory()
        if new is None or available is None:
            return None
        held = kv_cache_bytes(self._model, self._config, padded(self.n_ctx)) or 0
        return max(0, min(available, available + held - new) - self._bytes_to_move())

    def use(self, adapters: AdapterSet) -> None:
        """Compute with these adapters from the next step on. If others were used before, that step takes longer."""
        if adapters.key == self._adapters.key:
            return
        assert self.context is not None
        self.context.set_adapters_lora([(adapter.lora, scale) for adapter, scale in adapters.adapters])
        self._adapters = adapters
        self._stats.adapter_switches += 1

    def let_go_of_unloaded(self) -> None:
        """While nobody runs: free what the last step was computed with, if its name is unknown by now."""
        if self.context is not None and any(adapter.unloaded for adapter, _ in self._adapters.adapters):
            self.use(NO_ADAPTERS)

    def release(self) -> None:
        """Give everything back."""
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

    def _create(self, n_ctx: int, n_batch: int) -> None:
        check_kv_memory(self._model, self._config, n_ctx)
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
        logger.debug("created a context of %d tokens", n_ctx)


def create_context(model: LlamaModel, params: LlamaContextParams, way_out: str) -> LlamaContext:
    """Create a context.

    Raises:
        ContextMemoryError: There is not enough memory for it; ``way_out`` is what to do about it.
        ContextError: llama.cpp cannot create one with these parameters.
    """
    try:
        return LlamaContext(model, params)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):
            raise ContextMemoryError(f"{error}. {way_out}") from error
        raise ContextError(str(error)) from error


def sizes_between(least: int, preferred_n_ctx: int) -> list[int]:
    """Return the sizes of a context to try, the largest first.

    >>> sizes_between(1000, 3000)
    [3000, 2000, 1500, 1250, 1000]
    """
    sizes, excess = [], max(0, preferred_n_ctx - least)
    while excess >= PADDING // 2 and len(sizes) < MOST_SIZES:
        sizes.append(least + excess)
        excess //= 2
    return [*sizes, least]


def check_kv_memory(model: LlamaModel, config: ModelConfig, n_ctx: int, *, held: int = 0, moved: float = 0) -> None:
    """Raise :class:`ContextMemoryError` if the KV cache of ``n_ctx`` tokens does not fit into the memory.

    Fail early: Linux overcommits, and the OOM killer would end the process when the memory is used.

    Args:
        model: The model.
        config: The options that the size depends on.
        n_ctx: Tokens.
        held: Tokens of a context that will be replaced, and whose memory is free then.
        moved: Bytes of host memory that what moves from the old context to the new one takes meanwhile, beside either.
    """
    new, available = kv_cache_bytes(model, config, padded(n_ctx)), available_memory()
    if new is None or available is None:
        return
    old = kv_cache_bytes(model, config, padded(held)) or 0
    needed = max(new - old, 0) + moved if held else new
    if needed > available:
        raise ContextMemoryError(
            f"a context of n_ctx={n_ctx} tokens needs {gib(new + moved)} for its KV cache, but "
            f"{gib(available + old)} of memory are available. {WAY_OUT}"
        )


WAY_OUT = "Set a smaller n_ctx in GenerationConfig, or smaller kv_cells, type_k and type_v in ModelConfig"


def kv_cache_bytes(model: LlamaModel, config: ModelConfig, n_ctx: int) -> int | None:
    """Return the size of a KV cache in host memory, or ``None`` where it is elsewhere or cannot be told."""
    if not in_host_memory(config):
        return None
    return model.kv_cache_bytes(n_ctx, _ggml_type(config.type_k), _ggml_type(config.type_v))


def in_host_memory(config: ModelConfig) -> bool:
    """Whether the KV cache is there, and attention is computed by the CPU."""
    return config.n_gpu_layers == 0 or not config.offload_kqv or all(device.type == "cpu" for device in devices())


def max_idle_cells(config: ModelConfig) -> int:
    """Return how many cells idle sequences may keep in the context while others run: attention passes over them."""
    return IDLE_CELLS_GGML if in_host_memory(config) and not _gathers_cells(config) else IDLE_CELLS


def _gathers_cells(config: ModelConfig) -> bool:
    """Whether attention is computed by llama.cpp/flash_attention.cpp, which finds a sequence's own cells, if it can."""
    return config.flash_attn != "disabled" and config.type_k == config.type_v == "f16" and in_host_memory(config)


def order_decides(config: ModelConfig, model: LlamaModel) -> bool:
    """Whether the order of a sequence's own cells decides how attention is rounded, and not where they lie.

    It is so in llama.cpp/flash_attention.cpp. What that leaves to ggml is divided among threads and blocks by places.
    """
    architecture = model.metadata.get("general.architecture", "")
    left = (f"{architecture}.attn_logit_softcapping", f"{architecture}.attention.max_alibi_bias")
    others = architecture in LEFT_TO_GGML or any(key in model.metadata for key in left)
    return _gathers_cells(config) and not others


def _ggml_type(name: str) -> GGMLType:
    return GGMLType[name.upper()]


def n_sequences(config: ModelConfig, model: LlamaModel) -> int:
    """Return how many sequences a context has: the running ones, and some whose next turn may come soon."""
    idle = IDLE_STATES if model.is_recurrent or model.is_hybrid else max(IDLE_SEQUENCES, config.n_parallel)
    return config.n_parallel + idle


def context_params(config: ModelConfig, *, n_ctx: int, n_batch: int, model: LlamaModel) -> LlamaContextParams:
    """Return llama.cpp's parameters for a context whose sequences share all of its cells.

    With a stream of cells for each sequence instead (``kv_unified=False``), prefixes could not be shared, running
    sequences would need adjacent ids, and none could be larger than its share. What unified cells cost, attention that
    passes over the cells of the others, is kept small by ``llama.cpp/flash_attention.cpp``, and by moving idle
    sequences to host memory.
    """
    params = LlamaContextParams()
    params.n_seq_max = n_sequences(config, model)
    params.kv_unified = True
    params.n_ctx = n_ctx
    params.n_batch = max(min(n_batch, n_ctx), params.n_seq_max)
    params.n_ubatch = min(config.n_ubatch, params.n_batch)
    if model.n_swa:  # a batch of several passes may lose a part of a sliding window
        params.n_batch = params.n_ubatch = max(params.n_ubatch, params.n_seq_max)
    params.n_outputs_max = params.n_seq_max  # only the last token of each needs logits: no buffer for n_batch of them
    params.n_threads = config.n_threads or physical_cores()
    params.n_threads_batch = config.n_threads_batch or params.n_threads
    params.threadpool_poll = config.threadpool_poll
    params.flash_attn_type = LlamaFlashAttnType[config.flash_attn.upper()]
    params.type_k = _ggml_type(config.type_k)
    params.type_v = _ggml_type(config.type_v)
    if config.rope_scaling_type:
        params.rope_scaling_type = LlamaRopeScalingType[config.rope_scaling_type.upper()]
    same_name: tuple[str, ...] = ("offload_kqv", "op_offload", "swa_full", "rope_freq_base", "rope_freq_scale")
    same_name += ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx")
    for name in same_name:
        setattr(params, name, getattr(config, name))
    params.no_perf = True
    return params


def gib(n_bytes: float) -> str:
    """Return a number of bytes for people to read."""
    return f"{n_bytes / 2**30:.1f} GiB"
