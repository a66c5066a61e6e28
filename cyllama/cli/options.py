"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

ModelOption: TypeAlias = Annotated[
    str | None, typer.Option("-m", "--model", help="GGUF file; the embedded tiny-chat by default.")
]
TemperatureOption: TypeAlias = Annotated[float | None, typer.Option(help="0 always takes the most likely token.")]
SeedOption: TypeAlias = Annotated[int | None, typer.Option(help="Makes the answer reproducible.")]
ContextOption: TypeAlias = Annotated[int | None, typer.Option("--n-ctx", help="Size of the context in tokens.")]
VerboseOption: TypeAlias = Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")]
