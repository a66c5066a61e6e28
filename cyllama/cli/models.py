"""`cyllama pull`, `models` and `rm`: the models of the hub that are in the cache."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import ConfigError, ModelNotFoundError
from ..llama.llama_cpp import LlamaModel, LlamaModelParams
from ..models import expand_user, path_exists
from ..models.cache import CachedModel, cached_models, remove_cached
from ..models.hub import find_model, require_library
from ..models.names import ModelName, choose, models_in, parse_name
from ..models.place import Place
from .terminal import err, note

_NAME = "owner/repo, owner/repo:Q4_K_M or hf:owner/repo/file.gguf"
_WIDE = 1000  # columns: a name is never cut, so that it can be copied
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help=f"{_NAME}.")]


def pull(
    name: NameArgument,
    revision: Annotated[
        str | None, typer.Option(help="A branch, a tag or a commit; the main branch by default.")
    ] = None,
) -> None:
    """Download a model, if it is not in the cache, and print its path."""
    if path_exists(expand_user(name)):
        raise ConfigError(f"{name!r} is a file on this machine: there is nothing to download; use it with -m {name}")
    print(find_model(name, Place(revision=revision)))


def models() -> None:
    """Show the models in the cache: name, size, context of the training in tokens, quantization."""
    require_library()
    cache = Place().cache
    found = cached_models(cache)
    if not found:
        note(f"there is no model in {cache}: `cyllama pull NAME` downloads one")
        return
    table = Table("name", "size", "context", "quantization", box=None, header_style="bold")
    table.columns[1].justify = table.columns[2].justify = "right"
    for model in found:
        siblings = [each.file for each in found if each.repo == model.repo]
        table.add_row(
            escape(_name_of(model, siblings)), f"{model.size / 1e6:,.1f} MB", _context_of(model), model.quantization
        )
    Console(highlight=False, width=_WIDE).print(table)


def rm(name: NameArgument) -> None:
    """Delete a model from the cache: one quantization or file, or all models of a repository."""
    require_library()
    wanted = parse_name(name)
    if wanted is None:
        raise ModelNotFoundError(
            f"{name!r} does not name a model in the cache: names are {_NAME}, and `cyllama models` shows them"
        )
    cache = Place().cache
    sizes = {(model.repo, model.file): model.size for model in cached_models(cache, wanted.repo)}
    removed = remove_cached(cache, wanted)
    if not removed:
        err.print(escape(f"deleted what was downloaded of {wanted.repo}, which was not complete"))
    for model in removed:
        err.print(escape(f"deleted hf:{model.repo}/{model.file}, {sizes[model.repo, model.file] / 1e6:,.1f} MB"))


def _name_of(model: CachedModel, siblings: list[str]) -> str:
    """Return the shortest name that stands for a model in the cache."""
    if model.quantization and choose(models_in(siblings), model.quantization) == model.file:
        return str(ModelName(model.repo, model.quantization))
    return str(ModelName(model.repo, file=model.file))


def _context_of(model: CachedModel) -> str:
    """Return the length of the context that a model was trained with, as its file says."""
    params = LlamaModelParams()
    params.vocab_only = True
    try:
        metadata = LlamaModel(str(model.paths[0]), params).metadata
    except (OSError, ValueError, RuntimeError):
        return "damaged"
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length", "")
    return f"{int(length):,}" if length.isdecimal() else ""
