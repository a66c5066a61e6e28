"""What a word may mean that stands where a command could: a prompt of one word is more often a command misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from ..errors import PromptError

_LIKE_A_COMMAND = 0.8  # difflib's ratio: "chatt", "model" and "tokenise" are, "what" and "full" are not
_MEANINGS = {  # what commands of other programs are called here
    "help": "cyllama --help",
    "version": "cyllama --version",
    "list": "cyllama models",
    "ls": "cyllama models",
    "download": "cyllama pull NAME",
    "remove": "cyllama rm NAME",
    "delete": "cyllama rm NAME",
    "show": "cyllama info -m MODEL",
}
_MISSING = ("create", "ps", "push", "stop")  # commands of other programs that are not here


def check_is_prompt(word: str, commands: Collection[str]) -> None:
    """Refuse a word that was probably meant as a command.

    Args:
        word: The first argument, or the prompt.
        commands: The names of all commands.

    Raises:
        PromptError: It is the name of a command or near one, or a command of a similar program.
    """
    name = word.strip().lower()
    near = difflib.get_close_matches(name, commands, n=1, cutoff=_LIKE_A_COMMAND)
    if name in commands:
        hint = f"a command stands before all options: `cyllama {name}`."
    elif name in _MEANINGS:
        hint = f"did you mean `{_MEANINGS[name]}`?"
    elif near:
        hint = f"did you mean `cyllama {near[0]}`?"
    elif name in _MISSING:
        hint = f"this installation has no such command; it has {', '.join(sorted(commands))}."
    else:
        return
    raise PromptError(f"{word!r} is not taken as a prompt: {hint} To ask just that, write `cyllama -- {word}`")
