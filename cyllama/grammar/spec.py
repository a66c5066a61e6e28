"""The constraint of a generated text, for llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Trigger:
    """Where a lazy grammar begins.

    Attributes:
        kind: "word", "pattern" (a regular expression to search for) or "pattern_full" (one for the whole text).
        value: The text of it.
    """

    kind: str
    value: str


@dataclass(frozen=True)
class GrammarSpec:
    """The constraint of an answer.

    Attributes:
        text: The grammar, GBNF.
        lazy: Whether it begins at a trigger only.
        triggers: What it begins at.
        prefix: Text that it begins with and that the prompt ends with already.
        continued: Text of a message that follows the prefix in the prompt; what spells control tokens in it is text.
    """

    text: str
    lazy: bool = False
    triggers: tuple[Trigger, ...] = ()
    prefix: str = ""
    continued: str = ""
