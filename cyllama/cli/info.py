"""`cyllama info`: this build, what it can run on, and what a model is, needs and has of memory here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..config import GenerationConfig, ModelConfig, as_config
from ..draft_model import check_draft_model, draft_config
from ..engine import DraftModel
from ..engine.hardware import available_memory, total_memory
from ..engine.memory_needs import Needs, free_memory, gpus, largest_n_ctx, measure, token_bytes
from ..errors import ConfigError, ContextMemoryError, ModelNotFoundError
from ..llama import llama_cpp
from ..llama.llama_cpp import LlamaModel
from ..loading import simulate_model
from ..models import expand_user, path_exists, resolve_model_path
from ..models.cache import find_cached
from ..models.hub import require_library
from ..models.names import parse_name
from ..models.place import Place, PlacedPath
from ..models.projectors import resolve_projector
from ..vision import projector_needs
from .options import GpuLayersOption, ModelOption, config_flag
from .terminal import out

_MIB = 2**20
_DEFAULT_N_CTX = 4096  # tokens of the context that is shown without --n-ctx, unless the model was trained for fewer


def info(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="As --model, whichever is shorter to write.", show_default=False),
    ] = None,
    model: ModelOption = None,
    n_ctx: Annotated[
        int | None, typer.Option("--n-ctx", help="Tokens of the context whose memory is shown.", show_default=False)
    ] = None,
    n_gpu_layers: GpuLayersOption = None,
    n_parallel: Annotated[int | None, config_flag("n_parallel")] = None,
    type_k: Annotated[str | None, config_flag("type_k")] = None,
    type_v: Annotated[str | None, config_flag("type_v")] = None,
    draft_model: Annotated[str | None, config_flag("draft_model", "-md", "--draft-model")] = None,
    projector: Annotated[str | None, config_flag("projector", metavar="FILE|auto")] = None,
) -> None:
    """Show this build and its devices, what a model is, and what of it fits into the memory. It is not loaded."""
    if name is not None and model is not None:
        raise ConfigError(f"two models, {name!r} and {model!r}: give one of them")
    path = _find(name or model)
    options = {"n_gpu_layers": n_gpu_layers, "n_parallel": n_parallel, "type_k": type_k, "type_v": type_v}
    config = as_config(ModelConfig, {key: value for key, value in options.items() if value is not None})
    given = as_config(GenerationConfig, {} if n_ctx is None else {"n_ctx": n_ctx}).n_ctx
    _print(_of_build())
    found = None if projector is None else _find_projector(projector, path)
    with simulate_model(str(path), config, given, found) as simulated:
        _print(_of_model(path, simulated))
        draft = None if draft_model is None else _measure_draft(draft_model, config, simulated, given)
        others = _Others(draft, {} if found is None else projector_needs(found, config))
        _print(_of_memory(simulated, config, given, others))
        _print((key, _shorten(value)) for key, value in sorted(simulated.metadata.items()))


def _find(text: str | None) -> Path:
    """Return the file of a model. Nothing is downloaded."""
    named = None if text is None or path_exists(expand_user(text)) else parse_name(text)
    if named is None:
        return resolve_model_path(text)
    require_library()
    cache = Place().cache
    found = find_cached(cache, named)
    if found is None:
        raise ModelNotFoundError(f"{text!r} is not in the cache at {str(cache)!r}: `cyllama pull {text}` downloads it")
    return found.paths[0]


def _find_projector(projector: str, model: Path) -> Path:
    """Return the file of a model's projector. Nothing is downloaded."""
    return resolve_projector(projector, PlacedPath.of(model, Place(local_files_only=True)))


class _Others(NamedTuple):
    """What takes memory beside a model: a draft model, and a projector, whose bytes are by device; empty for none."""

    draft: Needs | None
    projector: Mapping[str, int]

    def rows(self) -> Iterator[tuple[str, str]]:
        if self.draft is not None:
            parts = (_by_device(self.draft, what) for what in ("weights", "kv_cache", "compute"))
            yield "draft model", "weights of {}, {} for the KV cache, {} to compute".format(*parts)
        if self.projector:
            parts = (f"{_mib(n_bytes)} on {device}" for device, n_bytes in self.projector.items() if n_bytes)
            yield "projector", f"{' and '.join(parts)}, with what an image takes"

    def left_of(self, free: dict[str, int]) -> dict[str, int]:
        """Return what is left of the memory that is free."""
        taken = Counter(self.projector)
        for use in self.draft.uses if self.draft else ():
            taken[use.device] += use.weights + use.kv_cache + use.compute
        return {device: max(0, n_bytes - taken[device]) for device, n_bytes in free.items()}

    def __str__(self) -> str:
        names = [name for name, there in (("draft model", self.draft), ("projector", self.projector)) if there]
        return f" beside the {' and the '.join(names)}" if names else ""


def _of_build() -> Iterator[tuple[str, str]]:
    yield "cyllama", __version__
    yield "llama.cpp", f"b{llama_cpp.build_number()} ({llama_cpp.compiler()})"
    yield "backends", ", ".join(llama_cpp.backends())
    yield "features", llama_cpp.system_info().strip()
    for device in llama_cpp.devices():
        free, total = device.memory_free, device.memory_total
        if device.type == "cpu":  # ggml takes all host memory for free
            free, total = available_memory() or free, total_memory() or total
        yield "device", f"{device.name}: {device.description} ({device.type}), {_gib(free)} of {_gib(total)} GiB free"


def _of_model(path: Path, model: LlamaModel) -> Iterator[tuple[str, str]]:
    yield "file", str(path)
    yield "architecture", model.metadata.get("general.architecture", "")
    yield "parameters", f"{model.n_params:,}"
    yield "quantization", model.ftype
    yield "layers", f"{model.n_layer}"
    yield "context length", f"{model.n_ctx_train:,} tokens, as trained"
    yield "memory", _kind_of_memory(model)
    yield "chat template", "yes" if model.chat_template() is not None else "no"


def _kind_of_memory(model: LlamaModel) -> str:
    attention = f"attention, in some layers of the last {model.n_swa:,} tokens" if model.n_swa else "attention"
    if model.is_hybrid:
        return f"{attention}, and recurrent states"
    return "recurrent states" if model.is_recurrent else attention


def _shown(model: LlamaModel, n_ctx: int | None) -> int:
    """Return the tokens of the context whose memory is shown."""
    return n_ctx or min(model.n_ctx_train, _DEFAULT_N_CTX)


def _measure_draft(name: str, config: ModelConfig, model: LlamaModel, n_ctx: int | None) -> Needs:
    """Return what a draft model needs, with a context of as many tokens as the model that it drafts for.

    Raises:
        ConfigError: It cannot draft for that model.
    """
    own, shown = draft_config(config), _shown(model, n_ctx)
    with simulate_model(str(_find(name)), own, shown) as simulated:
        check_draft_model(DraftModel(simulated, own, _name(simulated)), model.vocab, _name(model))
        return measure(simulated, own, shown)


def _name(model: LlamaModel) -> str:
    return model.metadata.get("general.name") or model.desc


def _of_memory(model: LlamaModel, config: ModelConfig, n_ctx: int | None, others: _Others) -> Iterator[tuple[str, str]]:
    shown = _shown(model, n_ctx)
    least = measure(model, config, min(shown, _DEFAULT_N_CTX))
    yield "weights", _by_device(least, "weights")
    names = model.layer_devices
    for gpu in gpus():
        yield "offloaded", f"{names.count(gpu.name)} of {len(names)} layers to {gpu.name}, the output counted as one"
    yield "KV cache", f"{_mib(1000 * token_bytes(model, config))} per 1,000 tokens ({config.type_k}, {config.type_v})"
    yield from others.rows()
    free = others.left_of(free_memory())
    try:
        needs = measure(model, config, shown)
        kv_cache, compute = _by_device(needs, "kv_cache"), _by_device(needs, "compute")
        yield f"n_ctx={shown}", f"{kv_cache} for the KV cache, {compute} to compute"
        what = f"weights and a context of n_ctx={shown}"
        fits = what if needs.fits(free) else f"no: {what} need {_mib(needs.total)}"
    except ContextMemoryError as error:
        fits = f"no: {error}"
    if free:
        margin = ", less 1 GiB of each GPU" if len(free) > 1 else ""
        yield "free", ", ".join(f"{_mib(n)} on {device}" for device, n in free.items()) + margin + str(others)
        yield "fits", fits
        yield "largest n_ctx", _largest(model, config, free)


def _largest(model: LlamaModel, config: ModelConfig, free: dict[str, int]) -> str:
    trained = model.n_ctx_train
    largest = largest_n_ctx(model, config, trained, free)
    if largest == trained:
        return f"{trained:,}, all that the model was trained for"
    return f"{largest:,} of {trained:,}" if largest else "none: the weights alone do not fit"


def _by_device(needs: Needs, what: str) -> str:
    sizes = [(use.device, getattr(use, what)) for use in needs.uses]
    parts = [f"{_mib(n)} on {device}" for device, n in sizes if n]
    return " and ".join(parts) or "nothing"


def _print(rows: Iterator[tuple[str, str]]) -> None:
    table = Table("key", "value", show_header=False, box=None)
    for key, value in rows:
        table.add_row(escape(key), escape(value))
    out.print(table)
    out.print()


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f}"


def _mib(n_bytes: float) -> str:
    return f"{n_bytes / _MIB:,.1f} MiB"


def _shorten(value: str, limit: int = 100) -> str:
    value = value.replace("\n", "\\n")
    return value if len(value) <= limit else f"{value[:limit]}... ({len(value):,} characters)"
