"""What a context is created with: its sizes, llama.cpp's parameters, and the memory that it needs."""

from __future__ import annotations

from typing import NamedTuple

from ..config import GenerationConfig, ModelConfig
from ..errors import ContextMemoryError, ContextSizeError
from ..llama.llama_cpp import (
    GGMLType,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaRopeScalingType,
    devices,
)
from .hardware import available_memory, physical_cores
from .memory import memory_of
from .tuning import DEFAULT_MAX_TOKENS, IDLE_CELLS, IDLE_CELLS_GGML

PADDING = 256  # llama.cpp pads a context to this
WAY_OUT = "Set a smaller n_ctx in GenerationConfig, or smaller kv_cells, type_k and type_v in ModelConfig"
# Architectures with attention sinks, soft caps or ALiBi, which flash_attention.cpp leaves to ggml.
LEFT_TO_GGML = (
    *("baichuan", "bloom", "deepseek4", "dflash", "gemma2", "gpt-oss"),
    *("granite_swa", "grok", "jais", "mimo2", "mpt", "refact"),
)


def padded(n_tokens: int) -> int:
    """Round up to a size that llama.cpp would round up to anyway."""
    return -(-n_tokens // PADDING) * PADDING


class ContextSize(NamedTuple):
    """The sizes of one generation, in tokens.

    Attributes:
        limit: Most tokens of prompt and answer together.
        required: Tokens that the context has to have room for before the generation starts.
    """

    limit: int
    required: int


def context_size(n_prompt: int, config: GenerationConfig, model: LlamaModel, kv_cells: int | None) -> ContextSize:
    """Return the sizes of a generation with a prompt of ``n_prompt`` tokens.

    Without ``max_tokens``, the length of the answer is unknown: the context starts with room for
    :data:`~cyllama.engine.tuning.DEFAULT_MAX_TOKENS` of them, and grows.

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


def check_kv_memory(model: LlamaModel, config: ModelConfig, n_ctx: int, *, held: int = 0, moved: float = 0) -> None:
    """Raise :class:`ContextMemoryError` if the KV cache of ``n_ctx`` tokens does not fit into the memory.

    Fail early: Linux overcommits, and the OOM killer would end the process when the memory is used.

    Args:
        model: The model.
        config: The options that the size depends on.
        n_ctx: Tokens.
        held: Tokens of the context that is replaced, whose memory becomes free; 0 for none.
        moved: Bytes of host memory for what moves from the old context to the new one, needed beside either.
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


def memory_during_replacement(model: LlamaModel, config: ModelConfig, n_ctx: int, *, held: int) -> float | None:
    """Return how many bytes are available, at the least, while a context is replaced by another.

    Args:
        model: The model.
        config: The options that the sizes depend on.
        n_ctx: Tokens of the new context.
        held: Tokens of the old one, which is given back first; 0 for none.

    Returns:
        ``None`` where that cannot be told. Negative if the new context does not fit.
    """
    new, available = kv_cache_bytes(model, config, padded(n_ctx)), available_memory()
    if new is None or available is None:
        return None
    old = kv_cache_bytes(model, config, padded(held)) or 0
    return min(available, available + old - new)


def kv_cache_bytes(model: LlamaModel, config: ModelConfig, n_ctx: int) -> int | None:
    """Return the bytes of a KV cache in host memory, or ``None`` if it is elsewhere or its size is unknown."""
    if not in_host_memory(config):
        return None
    return model.kv_cache_bytes(n_ctx, _ggml_type(config.type_k), _ggml_type(config.type_v))


def in_host_memory(config: ModelConfig) -> bool:
    """Return whether the KV cache is in host memory, and the CPU computes attention."""
    return config.n_gpu_layers == 0 or not config.offload_kqv or all(device.type == "cpu" for device in devices())


def max_idle_cells(config: ModelConfig) -> int:
    """Return how many cells idle sequences may keep in the context while others run: attention passes over them."""
    return IDLE_CELLS_GGML if in_host_memory(config) and not _gathers_cells(config) else IDLE_CELLS


def _gathers_cells(config: ModelConfig) -> bool:
    """Return whether llama.cpp/flash_attention.cpp, which reads a sequence's own cells only, computes attention."""
    return config.flash_attn != "disabled" and config.type_k == config.type_v == "f16" and in_host_memory(config)


def order_decides_rounding(config: ModelConfig, model: LlamaModel) -> bool:
    """Return whether the order of a sequence's own cells decides how attention is rounded, and not their places.

    That is so in llama.cpp/flash_attention.cpp. What it leaves to ggml is divided among threads and blocks by places.
    """
    architecture = model.metadata.get("general.architecture", "")
    left = (f"{architecture}.attn_logit_softcapping", f"{architecture}.attention.max_alibi_bias")
    others = architecture in LEFT_TO_GGML or any(key in model.metadata for key in left)
    return _gathers_cells(config) and not others


def _ggml_type(name: str) -> GGMLType:
    return GGMLType[name.upper()]


def context_params(config: ModelConfig, *, n_ctx: int, n_batch: int, model: LlamaModel) -> LlamaContextParams:
    """Return llama.cpp's parameters for a context whose sequences share all of its cells.

    With a stream of cells for each sequence instead (``kv_unified=False``), prefixes could not be shared, running
    sequences would need adjacent ids, and none could be larger than its share. What unified cells cost, attention that
    passes over the cells of the others, is kept small by ``llama.cpp/flash_attention.cpp``, and by moving idle
    sequences to host memory.
    """
    memory = memory_of(model, swa_full=config.swa_full)
    params = LlamaContextParams()
    params.n_seq_max = config.n_parallel + memory.n_idle_sequences(config.n_parallel)
    params.kv_unified = True
    params.n_ctx = n_ctx
    params.n_batch = max(min(n_batch, n_ctx), params.n_seq_max)
    params.n_ubatch = min(config.n_ubatch, params.n_batch)
    memory.limit_batch(params)
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
    """Return a number of bytes in GiB, as text."""
    return f"{n_bytes / 2**30:.1f} GiB"
