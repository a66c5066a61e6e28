"""`cyllama embed`: the embeddings of texts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..errors import PromptError
from .options import GpuLayersOption, ModelOption, VerboseOption
from .terminal import load, read_stdin

_MISSING = "there are no texts: give them as arguments, or as lines on standard input"


def embed(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts; the lines of standard input if left out.", show_default=False),
    ] = None,
    model: ModelOption = None,
    normalize: Annotated[bool, typer.Option(help="Scale every vector to the length 1.")] = True,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut what is too long, instead of refusing it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one document, with the model's name.")] = False,
    n_gpu_layers: GpuLayersOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Print the embeddings of texts, one JSON list per line."""
    texts = texts or _read_lines()
    with load(model, verbose=verbose, n_gpu_layers=n_gpu_layers) as llm:
        vectors = llm.embed(texts, normalize=normalize, truncate=truncate)
        usage = {"prompt_tokens": llm.stats.tokens_embedded}
        name = llm.model_name
    if as_json:
        document = {"model": name, "dimensions": len(vectors[0]), "usage": usage, "embeddings": vectors}
        print(json.dumps(document, ensure_ascii=False))
        return
    for vector in vectors:
        print(json.dumps(vector))


def _read_lines() -> list[str]:
    """Return the lines of standard input. ``str.splitlines`` would also split at other characters than newlines."""
    text = read_stdin(_MISSING)
    if not text:
        raise PromptError(_MISSING)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
