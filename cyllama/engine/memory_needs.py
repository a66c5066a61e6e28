"""What a model and a context need of memory, what is free, and what fits.

llama.cpp measures: :func:`measure` asks it for a model that was loaded without its weights. While a model is in use,
``LlamaModel.kv_cache_bytes`` computes the same for the memory of a context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import ModelConfig
from ..errors import ContextError, ContextMemoryError
from ..llama.llama_cpp import (
    LlamaContextParams,
    LlamaDevice,
    LlamaMemoryUse,
    LlamaModel,
    LlamaModelParams,
    devices,
    fit_params,
    memory_needed,
    weights_memory,
)
from .context_params import CPU, PADDING, context_params, padded
from .hardware import available_memory
from .stats import Stats
from .tuning import FIT_N_CTX, GPU_MARGIN

WAY_OUT = "Set a smaller n_ctx in GenerationConfig, or smaller kv_cells, type_k and type_v in ModelConfig"
_LARGE = 2**20  # tokens of a context in which everything that does not grow with it has reached its size


def gpus() -> list[LlamaDevice]:
    """Return the GPUs that models can be computed on."""
    return [device for device in devices() if device.type in ("gpu", "igpu")]


def memory_params(model: LlamaModel, config: ModelConfig, n_ctx: int) -> LlamaContextParams:
    """Return the parameters of a context of ``n_ctx`` tokens, with the largest passes that it may have."""
    return context_params(config, n_ctx=padded(n_ctx), n_batch=config.n_ubatch, model=model)


def host_bytes(model: LlamaModel, params: LlamaContextParams) -> int | None:
    """Return the bytes of host memory that the memory of a context takes, or ``None`` if its size is unknown."""
    by_device = model.kv_cache_bytes(params)
    return None if by_device is None else by_device.get(CPU, 0)


def kv_cache_bytes(model: LlamaModel, config: ModelConfig, n_ctx: int) -> int | None:
    """Return the bytes of host memory that the KV cache of ``n_ctx`` tokens takes, or ``None`` if that is unknown."""
    return host_bytes(model, memory_params(model, config, n_ctx)) if n_ctx else 0


def token_bytes(model: LlamaModel, config: ModelConfig) -> float:
    """Return the bytes by which a KV cache grows with each token; 0 if it does not grow, or its size is unknown."""
    params = memory_params(model, config, _LARGE)
    sizes: list[int] = []
    for params.n_ctx in (_LARGE, 2 * _LARGE):
        sizes.append(sum((model.kv_cache_bytes(params) or {}).values()))
    return (sizes[1] - sizes[0]) / _LARGE


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
    new, available = kv_cache_bytes(model, config, n_ctx), available_memory()
    if new is None or available is None:
        return
    old = kv_cache_bytes(model, config, held) or 0
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
    new, available = kv_cache_bytes(model, config, n_ctx), available_memory()
    if new is None or available is None:
        return None
    old = kv_cache_bytes(model, config, held) or 0
    return min(available, available + old - new)


def gib(n_bytes: float) -> str:
    """Return a number of bytes in GiB, as text."""
    return f"{n_bytes / 2**30:.1f} GiB"


@dataclass(frozen=True)
class Needs:
    """What a model and a context of ``n_ctx`` tokens need on each device, in bytes.

    Attributes:
        n_ctx: Tokens of the context.
        uses: The devices, host memory first.
    """

    n_ctx: int
    uses: Sequence[LlamaMemoryUse]

    @property
    def weights(self) -> int:
        """Bytes of the weights on all devices."""
        return sum(use.weights for use in self.uses)

    @property
    def kv_cache(self) -> int:
        """Bytes of the memory of the context on all devices."""
        return sum(use.kv_cache for use in self.uses)

    @property
    def compute(self) -> int:
        """Bytes of the buffers for what is computed on all devices."""
        return sum(use.compute for use in self.uses)

    @property
    def total(self) -> int:
        """Bytes of all of it."""
        return self.weights + self.kv_cache + self.compute

    def fits(self, free: dict[str, int]) -> bool:
        """Return whether each device has so much free memory. One that is not in ``free`` has enough."""
        needed = {use.device: use.weights + use.kv_cache + use.compute for use in self.uses}
        return all(n_bytes <= free.get(device, n_bytes) for device, n_bytes in needed.items())


def measure(model: LlamaModel, config: ModelConfig, n_ctx: int) -> Needs:
    """Return what a model and a context need, as llama.cpp computes it without allocating them.

    Args:
        model: The model, loaded without its weights.
        config: The options that the sizes depend on.
        n_ctx: Tokens of the context.

    Raises:
        ContextMemoryError: The machine does not have so much memory.
        ContextError: llama.cpp cannot create such a context.
    """
    try:
        return Needs(n_ctx, memory_needed(model, memory_params(model, config, n_ctx)))
    except MemoryError as error:
        raise ContextMemoryError(f"{error}. {WAY_OUT}") from error
    except RuntimeError as error:
        raise ContextError(str(error)) from error


def free_memory() -> dict[str, int]:
    """Return the bytes that are free, by device: host memory, where that is known, and GPUs, less a margin on each."""
    available = available_memory()
    free = {} if available is None else {CPU: available}
    return free | {device.name: max(0, device.memory_free - GPU_MARGIN) for device in gpus()}


def largest_n_ctx(model: LlamaModel, config: ModelConfig, most: int, free: dict[str, int]) -> int:
    """Return the tokens of the largest context that fits beside the weights, at most ``most``; 0 if none does.

    Args:
        model: The model, loaded without its weights.
        config: The options that the sizes depend on.
        most: Most tokens, such as those that the model was trained for.
        free: Bytes that are free, by device.
    """
    low, high = 0, -(-most // PADDING)  # in units of PADDING tokens: `low` fits, more than `high` is not asked for
    if _fits(model, config, most, free):
        return most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(model, config, middle * PADDING, free) else (low, middle)
    return low * PADDING


def _fits(model: LlamaModel, config: ModelConfig, n_ctx: int, free: dict[str, int]) -> bool:
    try:
        return measure(model, config, n_ctx).fits(free)
    except ContextMemoryError:
        return False


def fit_gpus(
    model: LlamaModel,
    config: ModelConfig,
    params: LlamaModelParams,
    n_ctx: int | None,
    reserved: Mapping[str, int],
) -> LlamaModelParams:
    """Return parameters with as many layers on GPUs as their free memory allows, beside the context that belongs there.

    Args:
        model: The model, loaded without its weights.
        config: The options that the sizes depend on.
        params: How the model is to be loaded.
        n_ctx: Tokens of the context. Without it and ``kv_cells``, layers go before tokens beyond
            :data:`~cyllama.engine.tuning.FIT_N_CTX`.
        reserved: Bytes to leave free for others, by device.

    Raises:
        RuntimeError, ValueError: llama.cpp cannot tell.
    """
    fixed = config.kv_cells or n_ctx
    context = memory_params(model, config, fixed or model.n_ctx_train)
    context.n_ctx = context.n_ctx if fixed else 0
    fitted, _ = fit_params(model, params, context, margin=GPU_MARGIN, n_ctx_min=FIT_N_CTX, reserved=dict(reserved))
    return fitted


def stats_of(model: LlamaModel) -> Stats:
    """Return the counters of a model that was just loaded: where its layers and weights are."""
    names = model.layer_devices
    return Stats(
        n_layers=len(names),
        n_gpu_layers=sum(name != CPU for name in names),
        weights_bytes={use.device: use.weights for use in weights_memory(model) if use.weights},
    )
