"""`cyllama run MODEL`: a model by its name, with a prompt or as a chat."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typing_extensions import Unpack

from .chat import Settings, start_chat
from .generate import Answer
from .options import (
    Flags,
    HistoryOption,
    JsonOption,
    PlainOption,
    PrefillOption,
    RawOption,
    Setup,
    StatsOption,
    VerboseOption,
    flag,
    with_flags,
)


@with_flags
def run(
    model: Annotated[str, typer.Argument(help="GGUF file, or a model on the hub: owner/repo:Q4_K_M.")],
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; if left out, a chat at a terminal, else standard input.", show_default=False),
    ] = None,
    max_tokens: Annotated[
        int | None, flag("max_tokens", "-n", "--max-tokens", note="In a chat, an answer may fill the context.")
    ] = None,
    prefill: PrefillOption = None,
    raw: RawOption = False,
    as_json: JsonOption = False,
    plain: PlainOption = False,
    stats: StatsOption = False,
    history: HistoryOption = True,
    verbose: VerboseOption = False,
    **flags: Unpack[Flags],
) -> None:
    """Run a model, downloaded if need be: it answers a prompt, or chats."""
    setup = Setup.of(flags)
    if prompt is None and not raw and not as_json and sys.stdin.isatty():
        start_chat(Settings(model, max_tokens, prefill, plain, stats, history, verbose, setup))
    else:
        Answer(model, max_tokens, prefill, raw, as_json, plain, stats, verbose, setup).to(prompt)
