"""The one context that generations run in: when it is created, reused, replaced and released."""

from __future__ import annotations

import logging

from ..config import ModelConfig
from ..errors import ContextError, ContextMemoryError
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
from .hardware import available_memory, physical_cores
from .kv_cache import KVCache
from .stats import Stats

logger = logging.getLogger(__name__)

PADDING = 256  # llama.cpp pads a context to this


def padded(n_tokens: int) -> int:
    """Round up to a size that llama.cpp would round up to anyway."""
    return -(-n_tokens // PADDING) * PADDING


class GenerationContext:
    """At most one :class:`LlamaContext`, with the batch and the KV cache that belong to it.

    Only the engine's thread uses it.

    Attributes:
        context: The context, or ``None``.
        batch: Space for the tokens of one step.
        kv_cache: What the context's sequences hold.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, stats: Stats) -> None:
        self._model = model
        self._config = config
        self._stats = stats
        self.context: LlamaContext | None = None
        self.batch = LlamaBatch(1)
        self.kv_cache: KVCache | None = None

    def prepare(self, n_ctx: int, *, fixed: bool, n_batch: int) -> None:
        """Have a context of at least ``n_ctx`` tokens with an empty KV cache.

        Args:
            n_ctx: Tokens that have to fit.
            fixed: Whether a new context gets exactly this size, and not room to grow.
            n_batch: Most tokens of one step, if a context has to be created.

        Raises:
            ContextMemoryError: There is not enough memory for it. No context exists then.
            ContextError: llama.cpp cannot create one with these options.
        """
        if self.kv_cache is not None and n_ctx <= self._stats.n_ctx:
            self.kv_cache.clear()
            self._stats.context_reuses += 1
            return
        roomy = n_ctx if fixed else max(n_ctx, min(2 * self._stats.n_ctx, self._model.n_ctx_train))
        self.release()
        try:
            self._create(roomy, n_batch)
        except ContextMemoryError:
            if roomy == n_ctx:
                raise
            self._create(n_ctx, n_batch)

    def release(self) -> None:
        """Give everything back."""
        if self.context is not None:
            self.context.close()
        self.context = None
        self.kv_cache = None
        self._stats.n_ctx = 0

    def _create(self, n_ctx: int, n_batch: int) -> None:
        self._check_memory(n_ctx)
        params = context_params(self._config, n_ctx=padded(n_ctx), n_batch=n_batch)
        try:
            context = LlamaContext(self._model, params)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError) or "alloc" in str(error):
                raise ContextMemoryError(f"{error}. {WAY_OUT}") from error
            raise ContextError(str(error)) from error
        self.context = context
        self.batch = LlamaBatch(context.n_batch)
        self.kv_cache = KVCache(context)
        self._stats.contexts_created += 1
        self._stats.n_ctx = n_ctx
        logger.debug("created a context of %d tokens", n_ctx)

    def _check_memory(self, n_ctx: int) -> None:
        """Refuse what would be killed for: Linux grants memory on credit and takes the process when it is used."""
        needed, available = kv_cache_bytes(self._model, self._config, padded(n_ctx)), available_memory()
        if needed is not None and available is not None and needed > available:
            raise ContextMemoryError(
                f"a context of n_ctx={n_ctx} tokens needs {_gib(needed)} for its KV cache, but {_gib(available)} of "
                f"memory are available. {WAY_OUT}"
            )


WAY_OUT = "Set a smaller n_ctx in GenerationConfig, or a smaller type_k and type_v in ModelConfig"


def kv_cache_bytes(model: LlamaModel, config: ModelConfig, n_ctx: int) -> int | None:
    """Return the size of a KV cache in host memory, or ``None`` where it is elsewhere or cannot be told."""
    if config.n_gpu_layers != 0 and config.offload_kqv and any(device.type != "cpu" for device in devices()):
        return None
    return model.kv_cache_bytes(n_ctx, _ggml_type(config.type_k), _ggml_type(config.type_v))


def _ggml_type(name: str) -> GGMLType:
    return GGMLType[name.upper()]


def context_params(config: ModelConfig, *, n_ctx: int, n_batch: int) -> LlamaContextParams:
    """Return llama.cpp's parameters for a context of one sequence."""
    params = LlamaContextParams()
    params.n_ctx = n_ctx
    params.n_batch = min(n_batch, n_ctx)
    params.n_ubatch = min(config.n_ubatch, params.n_batch)
    params.n_seq_max = 1
    params.n_outputs_max = 1  # only the last token of a prompt needs logits: no buffer for n_batch of them
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


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
