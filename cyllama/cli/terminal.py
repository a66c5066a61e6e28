"""Where commands read and write, and how they load a model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from ..chat import ChatDelta, ChatResponse
from ..errors import PromptError
from ..llm import LLM
from ..models import resolve_model_path
from ..response import Response

EXIT_ERROR = 2
TOY = "No model was named (-m): the embedded tiny-chat answers, a toy of 3 million parameters."
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def load(
    model: str | None, *, verbose: bool = False, adapters: Mapping[str, float] | None = None, **options: Any
) -> Iterator[LLM]:
    """Load a model behind a progress bar, which is shown on a terminal only.

    Args:
        model: Its file or name; ``None`` for the embedded one, which a note tells.
        verbose: Show llama.cpp's log.
        adapters: The files of LoRA adapters that every answer is computed with, and their scales.
        **options: What ``LLM(...)`` takes; those that are ``None`` are left out.
    """
    path = resolve_model_path(model)  # a download has a bar of its own
    given = {name: value for name, value in options.items() if value is not None}
    if adapters:
        given["lora"] = dict(adapters)
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
        for file in adapters or ():
            llm.load_lora(file, file)
        if model is None:
            note(TOY)
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
        found = f"byte {error.start} is 0x{data[error.start]:02x}"
        raise PromptError(f"standard input is not UTF-8: {found}; convert it with iconv") from None


class _Sink(Protocol):
    """Where the text of an answer goes."""

    def push(self, text: str) -> None:
        """Show more of the text."""

    def finish(self) -> None:
        """Show all of it, with the newline that ends it."""


class _Plain:
    """A pipe or a file, which gets the text as it is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def push(self, text: str) -> None:
        print(text, end="", flush=True, file=self._stream)

    def finish(self) -> None:
        print(flush=True, file=self._stream)


def _sink(stream: TextIO, *, markdown: bool, style: str = "") -> _Sink:
    console = Console(file=stream, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        return _Plain(stream)
    from .display import Display  # here, because it takes 60 ms, and only terminals need it

    return Display(console, markdown=markdown, style=style)


def print_answer(deltas: Iterable[ChatDelta], prefill: str | None = None, *, plain: bool = False) -> None:
    """Print an answer while it is generated. Reasoning goes to standard error: a pipe gets the answer alone.

    Args:
        deltas: The answer.
        prefill: Text that it begins with.
        plain: Whether a terminal shows the text as it is, and not as Markdown.
    """
    reasoning: _Sink | None = None
    answer = _sink(sys.stdout, markdown=not plain)
    started = bool(prefill)
    try:
        if prefill:
            answer.push(prefill)
        for delta in deltas:
            if delta.reasoning_content:
                started = True
                reasoning = reasoning or _sink(sys.stderr, markdown=False, style="dim")
                reasoning.push(delta.reasoning_content)
            if delta.content:
                started = True
                if reasoning is not None:
                    reasoning.finish()
                    reasoning = None
                answer.push(delta.content)
    except BaseException:
        if started:
            answer.finish()
        raise
    if reasoning is not None:
        reasoning.finish()
    answer.finish()


def print_text(chunks: Iterable[str], *, plain: bool = True) -> None:
    """Print a text while it is generated, wrapped at words on a terminal."""
    print_answer((ChatDelta(chunk) for chunk in chunks), plain=plain)


def note(text: str) -> None:
    """Print a note to standard error."""
    err.print(escape(text), style="dim", soft_wrap=not err.is_terminal)


def print_error(error: Exception | str) -> None:
    """Print an error to standard error."""
    err.print(f"cyllama: {escape(str(error))}", soft_wrap=not err.is_terminal)


def figures(response: Response | ChatResponse) -> str:
    """Return a line with the tokens and the speed of an answer."""
    usage, timings = response.usage, response.timings
    speed = max(usage.completion_tokens - 1, 0) / timings.generation if timings.generation else 0.0
    drafted = f" ({timings.tokens_accepted} of them drafted)" if timings.tokens_drafted else ""
    cached = f" ({usage.cached_tokens} of them cached)" if usage.cached_tokens else ""
    return (
        f"{usage.prompt_tokens} prompt tokens{cached} in {timings.prompt * 1000:.0f} ms, "
        f"{usage.completion_tokens} generated{drafted} at {speed:.0f} tokens/s, finished by {response.finish_reason!r}"
    )


def cut_by(generated: int, limit: int | None, end: str = "--n-ctx sets the size of the context.") -> str:
    """Return a note that says what cut an answer off.

    Args:
        generated: The number of its tokens.
        limit: The most tokens that it may have.
        end: What to do if it was the end of the context.
    """
    if generated == limit:
        return f"(cut off after {limit} token{'s' if limit != 1 else ''}, as -n says)"
    return f"(cut off: the context is full. {end})"
