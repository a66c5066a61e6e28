"""What a context is created with: its sizes, and llama.cpp's parameters."""

from __future__ import annotations

from typing import NamedTuple

from ..config import GenerationConfig, ModelConfig
from ..errors import ContextSizeError
from ..llama.llama_cpp import (
    GGMLType,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaRopeScalingType,
)
from .hardware import physical_cores
from .memory import memory_of
from .tuning import DEFAULT_MAX_TOKENS, IDLE_CELLS, IDLE_CELLS_GGML, MOST_DRAFTED

PADDING = 256  # llama.cpp pads a context to this
CPU = "CPU"  # the name of ggml's device whose memory is host memory
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


def in_host_memory(config: ModelConfig, model: LlamaModel) -> bool:
    """Return whether the KV cache is in host memory, and the CPU computes attention."""
    return not config.offload_kqv or all(name == CPU for name in model.layer_devices)


def max_idle_cells(config: ModelConfig, model: LlamaModel) -> int:
    """Return how many cells idle sequences may keep in the context while others run: attention passes over them."""
    return IDLE_CELLS_GGML if in_host_memory(config, model) and not _gathers_cells(config, model) else IDLE_CELLS


def _gathers_cells(config: ModelConfig, model: LlamaModel) -> bool:
    """Return whether llama.cpp/flash_attention.cpp, which reads a sequence's own cells only, computes attention."""
    f16 = config.type_k == config.type_v == "f16"
    return config.flash_attn != "disabled" and f16 and in_host_memory(config, model)


def order_decides_rounding(config: ModelConfig, model: LlamaModel) -> bool:
    """Return whether the order of a sequence's own cells decides how attention is rounded, and not their places.

    That is so in llama.cpp/flash_attention.cpp. What it leaves to ggml is divided among threads and blocks by places.
    """
    architecture = model.metadata.get("general.architecture", "")
    left = (f"{architecture}.attn_logit_softcapping", f"{architecture}.attention.max_alibi_bias")
    others = architecture in LEFT_TO_GGML or any(key in model.metadata for key in left)
    return _gathers_cells(config, model) and not others


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
    if memory.drops_drafts:
        params.n_outputs_max += MOST_DRAFTED
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
