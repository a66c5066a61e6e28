"""From a path and options to a loaded model."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .callers import levels_to_the_program
from .config import GenerationConfig, ModelConfig, by_own_names, check_option_names
from .engine import Adapter, check_kv_memory
from .engine.hardware import available_memory, total_memory
from .engine.memory_needs import fit_gpus, gpus
from .errors import (
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    ConfigError,
    ForkedError,
    ModelAccessError,
    ModelNotFoundError,
)
from .llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaLoadMode,
    LlamaModel,
    LlamaModelParams,
    LlamaSplitMode,
    devices,
    max_devices,
    supports_gpu_offload,
)
from .models.identity import file_digest
from .models.parts import check_parts
from .vision import projector_needs

logger = logging.getLogger(__name__)


def split_overrides(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of generations, and those of loading a model.

    Raises:
        ConfigTypeError: There is no such option.
    """
    generation, loading = GenerationConfig.model_fields, ModelConfig.model_fields
    overrides = by_own_names(overrides)
    check_option_names("LLM", overrides, [*generation, *loading])
    return (
        {name: value for name, value in overrides.items() if name in generation},
        {name: value for name, value in overrides.items() if name in loading},
    )


def load_model(
    path: str,
    config: ModelConfig,
    progress: Callable[[float], bool | None] | None,
    n_ctx: int | None = None,
    projector: Path | None = None,
) -> LlamaModel:
    """Load a model.

    Args:
        path: Its file; of a split model, the first one.
        config: How to load it.
        progress: Called with 0.0 to 1.0; returning ``False`` stops it.
        n_ctx: Tokens of a context for which a GPU that holds layers needs memory too, if that is known.
        projector: The file of a projector for which a GPU needs memory too.

    Raises:
        ModelNotFoundError: There is no such file, or it is one of a split model, and another one is missing.
        ModelAccessError: It is a directory, or it may not be read.
        ModelLoadError: It is not a model, or damaged, or not the first part of one, or does not fit into memory.
        ConfigError: An option asks for what this build or this machine does not have.
        ContextMemoryError: ``kv_cells`` do not fit into memory.
        ProjectorLoadError: The projector is damaged, or there is no such file.
    """
    _check_devices(config)
    _check_host_cache(config)
    check_parts(path)
    params = _model_params(config)
    if config.n_gpu_layers == "auto":
        params = _fitted(path, config, params, n_ctx, projector)
    elif config.n_gpu_layers > 0:
        _warn_without_gpu(config.n_gpu_layers)
    params.progress_callback = progress
    model = _open(path, params)
    if config.kv_cells is not None:
        check_kv_memory(model, config, config.kv_cells)
    if config.load_mode == "auto" and _has_room_for_copy(model):
        model.copy_mapped_weights()
    return model


def _has_room_for_copy(model: LlamaModel) -> bool:
    """Return whether a copy of the mapped weights would leave half of the available memory to others."""
    available = available_memory()
    return available is not None and model.n_mapped_bytes <= available // 2


def simulate_model(
    path: str, config: ModelConfig, n_ctx: int | None = None, projector: Path | None = None
) -> LlamaModel:
    """Load what a file says of a model, without its weights: enough to tell the memory that it needs.

    Args:
        path: Its file; of a split model, the first one.
        config: How it would be loaded.
        n_ctx: Tokens of a context for which a GPU that holds layers needs memory too, if that is known.
        projector: The file of a projector for which a GPU needs memory too.

    Raises:
        ModelNotFoundError, ModelAccessError, ModelLoadError, ConfigError: As for :func:`load_model`.
    """
    _check_devices(config)
    check_parts(path)
    params = _model_params(config)
    if config.n_gpu_layers == "auto":
        params = _fitted(path, config, params, n_ctx, projector)
    return _open(path, _simulated(params))


def _model_params(config: ModelConfig) -> LlamaModelParams:
    """Return llama.cpp's parameters. "auto" keeps its default: as many layers on GPUs as there are."""
    params = LlamaModelParams()
    if config.n_gpu_layers != "auto":
        params.n_gpu_layers = config.n_gpu_layers
    params.main_gpu = config.main_gpu
    params.split_mode = LlamaSplitMode[config.split_mode.upper()]
    params.tensor_split = list(config.tensor_split)
    params.devices = list(config.devices)
    params.load_mode = LlamaLoadMode[config.load_mode.upper()]
    params.check_tensors = config.check_tensors
    params.kv_overrides = config.kv_overrides
    return params


def _simulated(params: LlamaModelParams) -> LlamaModelParams:
    params.no_alloc = True
    params.load_mode = LlamaLoadMode.NONE
    params.check_tensors = False
    return params


def _open(path: str, params: LlamaModelParams) -> LlamaModel:
    try:
        return LlamaModel(path, params)
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no model file at {path!r}") from None
    except OSError as error:
        raise ModelAccessError(f"cannot read the model at {path!r}: {_reason(error)}") from error
    except (ValueError, RuntimeError) as error:
        from .load_errors import load_error  # here, since a model that loads does without

        raise load_error(path, error) from error


def _reason(error: OSError) -> str:
    hint = "; give the path of the GGUF file itself" if isinstance(error, IsADirectoryError) else ""
    return f"{error.strerror}{hint}"


def _fitted(
    path: str, config: ModelConfig, params: LlamaModelParams, n_ctx: int | None, projector: Path | None
) -> LlamaModelParams:
    """Return the parameters with as many layers on the GPUs as fit there beside a context and a projector."""
    chosen = [gpu.name for gpu in gpus() if not config.devices or gpu.name in config.devices]
    if not chosen or len(chosen) < len(config.devices):  # no GPU, or computed on the CPU on purpose
        return params
    reserved = {} if projector is None else projector_needs(projector, config)
    with _open(path, _simulated(_model_params(config))) as model:
        try:
            fitted = fit_gpus(model, config, params, n_ctx, reserved)
            logger.info(
                "layers on %s: %s", ", ".join(chosen), "all" if fitted.n_gpu_layers < 0 else fitted.n_gpu_layers
            )
            return fitted
        except (RuntimeError, ValueError) as error:
            logger.warning("cannot tell how many layers fit on %s, all are tried: %s", ", ".join(chosen), error)
            return params


def _warn_without_gpu(n_gpu_layers: int) -> None:
    """Say once that layers cannot be on a GPU, where a number of them was asked for."""
    if gpus():
        return
    why = "no GPU was found" if supports_gpu_offload() else "cyllama was built without a GPU backend such as GGML_CUDA"
    warnings.warn(
        f"n_gpu_layers={n_gpu_layers} has no effect: {why}, so the CPU computes all layers; leave n_gpu_layers out, or "
        "see docs/guides/gpu.md",
        stacklevel=levels_to_the_program() + 1,
    )


def load_adapter(name: str, path: str, model: LlamaModel) -> Adapter:
    """Load a LoRA adapter of a model.

    Args:
        name: The name that callers give it.
        path: Its file.
        model: The model that it was made for.

    Raises:
        AdapterNotFoundError: There is no such file.
        AdapterAccessError: It is a directory, or it may not be read.
        AdapterLoadError: It is not an adapter, or damaged, or was made for another model.
    """
    try:
        lora = LlamaAdapterLora(model, path)
        identity = file_digest(path)
    except FileNotFoundError:
        raise AdapterNotFoundError(f"there is no adapter file at {path!r}") from None
    except OSError as error:
        raise AdapterAccessError(f"cannot read the adapter at {path!r}: {_reason(error)}") from error
    except (ValueError, RuntimeError) as error:
        raise AdapterLoadError(str(error)) from error
    if lora.alora_invocation_tokens:
        lora.close()
        raise AdapterLoadError(
            f"{path!r} is an activated LoRA (aLoRA), of which a prompt's end is computed only: those are not supported"
        )
    return Adapter(name, lora, identity)


def _check_devices(config: ModelConfig) -> None:
    try:
        names = [device.name for device in devices()]
    except RuntimeError as error:
        raise ForkedError(str(error)) from error
    for name in config.devices:
        if name not in names:
            raise ConfigError(f"there is no device {name!r}: this build has {', '.join(names)}")
    if len(config.tensor_split) > max_devices():
        raise ConfigError(f"tensor_split has {len(config.tensor_split)} values for at most {max_devices()} devices")


def _check_host_cache(config: ModelConfig) -> None:
    total = total_memory()
    if "host_cache_mb" in config.model_fields_set and total is not None and config.host_cache_mb > total >> 20:
        raise ConfigError(
            f"host_cache_mb is {config.host_cache_mb}, but there are {total >> 20} MiB of memory: set a smaller one"
        )


class _VerboseHandler(logging.StreamHandler):
    """The handler that :func:`show_log` adds: a type of its own, so that it is not added twice."""


def show_log() -> None:
    """Send cyllama's log to stderr, once."""
    logger = logging.getLogger("cyllama")
    if not any(isinstance(handler, _VerboseHandler) for handler in logger.handlers):
        handler = _VerboseHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
