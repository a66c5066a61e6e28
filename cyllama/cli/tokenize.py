"""`cyllama tokenize`: the tokens of a text."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import ModelOption, VerboseOption
from .terminal import load, read_stdin

_MISSING = "there is no text: give one as an argument, or on standard input"


def tokenize(
    text: Annotated[
        str | None, typer.Argument(help="The text; all of standard input if left out.", show_default=False)
    ] = None,
    model: ModelOption = None,
    count: Annotated[bool, typer.Option("--count", help="Print only how many tokens there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one document, with the model's name.")] = False,
    bos: Annotated[bool, typer.Option(help="Begin with the token that a prompt of this model begins with.")] = True,
    special: Annotated[bool, typer.Option(help="Read the text of control tokens as those tokens.")] = True,
    verbose: VerboseOption = False,
) -> None:
    """Show the tokens of a text, as a prompt has them: an id and a piece of the text on each line."""
    if text is None:
        text = read_stdin(_MISSING)
    with load(model, verbose=verbose) as llm:
        ids = llm.tokenize(text, add_bos=None if bos else False, parse_special=special)
        pieces = [llm.model.vocab.token_to_piece(each, special=True).decode(errors="replace") for each in ids]
        name = llm.model_name
    if as_json:
        tokens = [{"id": each, "text": piece} for each, piece in zip(ids, pieces, strict=True)]
        document = {"model": name, "count": len(ids)} | ({} if count else {"tokens": tokens})
        print(json.dumps(document, ensure_ascii=False))
    elif count:
        print(len(ids))
    else:
        for each, piece in zip(ids, pieces, strict=True):
            print(f"{each:>7} {json.dumps(piece, ensure_ascii=False)}")
