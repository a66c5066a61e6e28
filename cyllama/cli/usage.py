"""Errors of how a command was called, in one line as all others."""

from __future__ import annotations

from collections.abc import Sequence

import typer

#: What typer raises: it carries a copy of click, or imports it, depending on the version.
UsageError: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "UsageError")
_KINDS = {
    "Input should be a valid integer": "expected an integer",
    "Input should be a valid number": "expected a number",
    "Input should be": "expected a value",
}


def explain(error: Exception, command: str, arguments: Sequence[str]) -> str:
    """Return what is wrong with the arguments of a command, with the value and the way out.

    Args:
        error: A `UsageError`.
        command: The command, `cyllama` or `cyllama chat`.
        arguments: What was behind it.
    """
    param, text = getattr(error, "param", None), getattr(error, "message", "")
    help_ = f"`{command} --help` shows what there is"
    if param is not None and text:
        for theirs, ours in _KINDS.items():
            if text.startswith(theirs):
                limit = text.removeprefix(theirs).partition(",")[0]
                text = f"{ours}{limit}, not {_value_of(param.opts, arguments)!r:.80}"
        return f"{' / '.join(param.opts)}: {text}"
    text = error.format_message().rstrip(".")  # pyright: ignore[reportAttributeAccessIssue] - a UsageError, whose module depends on the version
    if "unexpected extra argument" in text:
        rest = text.partition("(s)")[2].strip(" ()")
        return f"unexpected: {rest:.80}. Text of several words needs quotes; {help_}"
    return f"{text[:1].lower()}{text[1:]}: {help_}"


def _value_of(names: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the value of an option among the arguments, the last one."""
    found = ""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if argument in names and i + 1 < len(arguments):
            found = arguments[i + 1]
        elif equals and name in names:
            found = value
        elif argument[:2] in names and not argument.startswith("--") and len(argument) > 2:
            found = argument[2:]
    return found
