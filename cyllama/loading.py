"""From a path and options to a loaded model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from .config import GenerationConfig, ModelConfig, by_own_names, check_option_names
from .engine import Adapter, check_kv_memory
from .engine.hardware import total_memory
from .errors import (
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    ConfigError,
    ForkedError,
    ModelAccessError,
    ModelLoadError,
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
)
from .models.identity import file_digest
from .models.parts import check_parts


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


def load_model(path: str, config: ModelConfig, progress: Callable[[float], bool | None] | None) -> LlamaModel:
    """Load a model.

    Args:
        path: Its file; of a split model, the first one.
        config: How to load it.
        progress: Called with 0.0 to 1.0; returning ``False`` stops it.

    Raises:
        ModelNotFoundError: There is no such file, or it is one of a split model, and another one is missing.
        ModelAccessError: It is a directory, or it may not be read.
        ModelLoadError: It is not a model, or damaged, or not the first part of one, or does not fit into memory.
        ConfigError: An option asks for what this build or this machine does not have.
        ContextMemoryError: ``kv_cells`` do not fit into memory.
    """
    _check_devices(config)
    _check_host_cache(config)
    check_parts(path)
    params = LlamaModelParams()
    params.n_gpu_layers = config.n_gpu_layers
    params.main_gpu = config.main_gpu
    params.split_mode = LlamaSplitMode[config.split_mode.upper()]
    params.tensor_split = list(config.tensor_split)
    params.devices = list(config.devices)
    params.load_mode = LlamaLoadMode[config.load_mode.upper()]
    params.check_tensors = config.check_tensors
    params.kv_overrides = config.kv_overrides
    params.progress_callback = progress
    try:
        model = LlamaModel(path, params)
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no model file at {path!r}") from None
    except OSError as error:
        raise ModelAccessError(f"cannot read the model at {path!r}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:
        raise ModelLoadError(str(error)) from error
    if config.kv_cells is not None:
        check_kv_memory(model, config, config.kv_cells)
    return model


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
        raise AdapterAccessError(f"cannot read the adapter at {path!r}: {error.strerror}") from error
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
