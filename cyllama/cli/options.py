"""Options that several commands have."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

import typer

ModelOption: TypeAlias = Annotated[
    str | None, typer.Option("-m", "--model", help="GGUF file; the embedded tiny-chat by default.")
]
TemperatureOption: TypeAlias = Annotated[float | None, typer.Option(help="0 always takes the most likely token.")]
SeedOption: TypeAlias = Annotated[int | None, typer.Option(help="Makes the answer reproducible.")]
ContextOption: TypeAlias = Annotated[int | None, typer.Option("--n-ctx", help="Size of the context in tokens.")]
VerboseOption: TypeAlias = Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")]


def _parse_variables(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        variables = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}") from error
    if not isinstance(variables, dict):
        raise typer.BadParameter(f"expected a JSON object, not {text:.80}")
    return variables


ThinkingOption: TypeAlias = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Whether the model reasons, where its template can be told."),
]
EffortOption: TypeAlias = Annotated[
    str | None, typer.Option("--reasoning-effort", help="How hard it reasons: none, minimal, low, medium, high, xhigh.")
]
BudgetOption: TypeAlias = Annotated[
    int | None, typer.Option("--reasoning-budget", help="Most tokens to reason with; -1 for any number, 0 for none.")
]
VariablesOption: TypeAlias = Annotated[
    Any,
    typer.Option(
        "--chat-template-kwargs",
        metavar="JSON",
        parser=_parse_variables,
        help="Variables of the chat template, a JSON object.",
    ),
]

PrefillOption: TypeAlias = Annotated[str | None, typer.Option("--prefill", help="What the answer begins with.")]


def chat_options(**options: Any) -> dict[str, Any]:
    """Return the options of a chat that were given."""
    return {name: value for name, value in options.items() if value is not None}
