"""The ``cyllama`` command."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import typer

from ..errors import CyllamaError
from .bench import bench
from .chat import chat
from .embed import embed
from .generate import generate
from .info import info
from .models import models, pull, rm
from .run import run
from .terminal import EXIT_ERROR, print_error
from .tokenize import tokenize
from .usage import UsageError, explain
from .words import check_is_prompt

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "chat": chat,
    "embed": embed,
    "tokenize": tokenize,
    "bench": bench,
    "info": info,
    "pull": pull,
    "models": models,
    "rm": rm,
    "serve": import_module(".serve", __package__).serve,
}
_OTHERS = "\n\n".join(
    [
        "Other commands:",
        *(f"cyllama {name}: {(each.__doc__ or '').partition('.')[0]}" for name, each in COMMANDS.items()),
    ]
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Arguments that do not begin with a command are a prompt and its options."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Unicode shows "?" for other characters
    function, name = generate, "cyllama"
    if arguments and arguments[0] in COMMANDS:
        function, name = COMMANDS[arguments[0]], f"cyllama {arguments[0]}"
        arguments = arguments[1:]
    # What stands behind "--" is a prompt, whatever it is.
    commands = () if "--" in arguments else tuple(COMMANDS)
    try:
        if function is generate and arguments and not arguments[0].startswith("-"):
            check_is_prompt(arguments[0], commands)
        with _ended_by_sigterm():
            status = _make_app(function)(arguments, prog_name=name, obj=commands, standalone_mode=False)
    except UsageError as error:
        print_error(explain(error, name, arguments))
        sys.exit(EXIT_ERROR)
    except CyllamaError as error:
        print_error(error)
        sys.exit(EXIT_ERROR)
    sys.exit(status or 0)


class _Terminated(SystemExit):
    """SIGTERM came. Event loops let this exception pass, as they do not with others."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as an exception does, so that the terminal gets back its echo and its cursor."""

    def end(*_: object) -> None:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: signals are the program's own matter
        yield
        return
    terminated = False
    try:
        yield
    except _Terminated:
        terminated = True
    finally:
        signal.signal(signal.SIGTERM, before)
    if terminated:
        signal.raise_signal(signal.SIGTERM)  # who started this command sees by what it ended


def _make_app(function: Callable[..., None]) -> typer.Typer:
    settings = {"help_option_names": ["-h", "--help"]}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=settings)
    app.command(epilog=_OTHERS if function is generate else None)(function)
    return app
