"""Where commands read and write, and how they load a model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ..chat import ChatDelta, ChatResponse
from ..errors import PromptError
from ..llm import LLM
from ..models import resolve_model_path
from ..response import Response

EXIT_ERROR = 2
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def load(model: str | None, *, verbose: bool = False, **options: Any) -> Iterator[LLM]:
    """Load a model behind a progress bar, which is shown on a terminal only. Options that are ``None`` are left out."""
    path = resolve_model_path(model)  # a download has a bar of its own
    given = {name: value for name, value in options.items() if value is not None}
    columns = (TextColumn("loading"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal or verbose) as progress:
        task = progress.add_task("load", total=1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            llm = LLM(
                path, verbose=verbose, progress_callback=lambda done: progress.update(task, completed=done), **given
            )
    for each in caught:
        note(f"{each.message}")
    with llm:
        yield llm


def read_stdin(missing: str) -> str:
    """Return what is on standard input, as text.

    Args:
        missing: The error message for a terminal, which does not show that the command waits for input.

    Raises:
        PromptError: Standard input is a terminal, or not valid UTF-8.
    """
    if sys.stdin.isatty():
        raise PromptError(missing)
    return decode(sys.stdin.buffer.read())


def decode(data: bytes) -> str:
    """Return bytes from standard input as text.

    Raises:
        PromptError: They are not valid UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None


def print_answer(deltas: Iterable[ChatDelta], prefill: str | None = None) -> None:
    """Print an answer while it is generated. Reasoning goes to standard error: a pipe gets the answer alone.

    Args:
        deltas: The answer.
        prefill: Text that it begins with.
    """
    started = bool(prefill)
    try:
        print(prefill or "", end="", flush=True)
        for reasons, text in _pieces(deltas):
            started = True
            if reasons:
                typer.secho(text, dim=True, nl=False, err=True)
            else:
                print(text, end="", flush=True)
    except BaseException:
        if started:
            print(flush=True)
        raise
    print(flush=True)


def _pieces(deltas: Iterable[ChatDelta]) -> Iterator[tuple[bool, str]]:
    """Yield whether a text is reasoning, and the text. Reasoning ends with a newline before the answer begins."""
    reasons = False
    for delta in deltas:
        if delta.reasoning_content:
            reasons = True
            yield True, delta.reasoning_content
        if delta.content:
            if reasons:
                reasons = False
                yield True, "\n"
            yield False, delta.content


def note(text: str) -> None:
    """Print a note to standard error."""
    err.print(escape(text), style="dim")


def print_error(error: Exception) -> None:
    """Print an error to standard error."""
    err.print(f"cyllama: {escape(str(error))}")


def figures(response: Response | ChatResponse) -> str:
    """Return a line with the tokens and the speed of an answer."""
    usage, timings = response.usage, response.timings
    speed = max(usage.completion_tokens - 1, 0) / timings.generation if timings.generation else 0.0
    cached = f" ({usage.cached_tokens} of them cached)" if usage.cached_tokens else ""
    return (
        f"{response.model}: {usage.prompt_tokens} prompt tokens{cached} in {timings.prompt * 1000:.0f} ms, "
        f"{usage.completion_tokens} generated at {speed:.0f} tokens/s, finished by {response.finish_reason!r}"
    )
