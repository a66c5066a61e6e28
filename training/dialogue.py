"""The random source and the conversation to which the skills of the corpus append their turns."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import words

Message = dict[str, Any]
"""A message in the OpenAI format, except that the arguments of its tool calls are objects instead of JSON text."""

HELD_OUT_SHARE = 10
"""One made-up word in so many is kept for evaluation."""


def article(noun: str) -> str:
    """Return a noun with its indefinite article."""
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"


def lower_first(text: str) -> str:
    """Return a text with its first letter lowered, unless that is the pronoun I."""
    return text if text.startswith(("I ", "I'")) else text[0].lower() + text[1:]


def upper_first(text: str) -> str:
    """Return a text with its first letter raised."""
    return text[0].upper() + text[1:]


def dumps(value: Any) -> str:
    """Return a value as JSON, spaced and unescaped exactly as llama.cpp's ``tojson`` writes it."""
    return json.dumps(value, ensure_ascii=False)


def is_held_out(word: str) -> bool:
    """Tell whether a made-up word, in lower case, is kept for evaluation."""
    return zlib.crc32(word.encode()) % HELD_OUT_SHARE == 0


class Rng(random.Random):
    """Random source that keeps a share of the made-up words, and one phrasing of every list, for evaluation."""

    def __init__(self, seed: int, *, held_out: bool = False, new_phrasing: bool = False) -> None:
        """Seed the source.

        Args:
            seed: Determines everything that is drawn.
            held_out: Make up only words that are kept for evaluation instead of only words that are not.
            new_phrasing: Use the phrasings that are kept for evaluation instead of the others.
        """
        super().__init__(seed)
        self.held_out = held_out
        self.new_phrasing = new_phrasing

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def phrase(self, options: Sequence[str]) -> str:
        """Return one of several phrasings; the last of three or more is kept for evaluation."""
        if len(options) < 3:
            return self.choice(options)
        return options[-1] if self.new_phrasing else self.choice(options[:-1])

    def made_up(self) -> str:
        """Return a pronounceable lower-case word of this source's split."""
        while True:
            syllables = self.randint(1, 3)
            stem = "".join(self.choice(words.ONSETS) + self.choice(words.NUCLEI) for _ in range(syllables))
            word = stem + self.choice(words.CODAS)
            if len(word) > 2 and is_held_out(word) == self.held_out:
                return word

    def foreign(self) -> str:
        """Return a name in another script or with diacritics."""
        kind = self.random()
        if kind < 0.35:
            return "".join(self.choices(words.CJK, k=self.randint(2, 4)))
        if kind < 0.5:
            return "".join(self.choices(words.KANA, k=self.randint(2, 5)))
        if kind < 0.65:
            return "".join(self.choices(words.CYRILLIC, k=self.randint(3, 6))).capitalize()
        return "".join(self._accented(letter) for letter in self.name())

    def _accented(self, letter: str) -> str:
        """Put a diacritic on about half of the letters that can bear one."""
        return self.choice(words.ACCENTS[letter]) if letter in words.ACCENTS and self.chance(0.5) else letter

    def name(self) -> str:
        """Return a first name, mostly made up, and always so for evaluation."""
        if self.held_out or self.chance(0.65):
            return self.made_up().capitalize()
        return self.choice(words.NAMES)

    def any_name(self) -> str:
        """Return a name that is now and then foreign or has a surname."""
        if self.chance(0.08):
            return self.foreign()
        return f"{self.name()} {self.name()}" if self.chance(0.08) else self.name()

    def place(self) -> str:
        """Return a city, real or made up."""
        return self.choice(words.CITIES) if self.chance(0.6) else self.made_up().capitalize()

    def word(self) -> str:
        """Return a lower-case word, real or made up."""
        if self.chance(0.35):
            return self.made_up()
        return self.choice(self.choice(words.EVERYDAY))

    def number(self) -> int:
        """Return a non-negative integer of one to five digits."""
        return self.randrange(10 ** self.choice((1, 2, 2, 2, 3, 4, 5)))

    def phrase_of_words(self, low: int, high: int) -> str:
        """Return ``low`` to ``high`` words in a row."""
        return " ".join(self.word() for _ in range(self.randint(low, high)))


Value = Callable[[Rng], str]
"""Draws the text that fills a gap of a sentence."""


@dataclass(frozen=True)
class Fact:
    """Something that a user can tell: how it is said, how it is asked for and how it is answered."""

    key: str
    value: Value
    statements: Sequence[str]
    questions: Sequence[str]
    answer: str
    unknown: str


@dataclass
class Dialogue:
    """A conversation, the tools offered in it and what has been told in it so far.

    Attributes:
        messages: The messages in order.
        tools: Signatures of the tools in the OpenAI format.
        facts: What was told, by key, with the value that holds now.
        persona: Name and role that the system message gives to the assistant, if any.
    """

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, tuple[Fact, str]] = field(default_factory=dict)
    persona: tuple[str, str] | None = None

    @property
    def tool_names(self) -> set[str]:
        """Names of the tools offered so far."""
        return {tool["function"]["name"] for tool in self.tools}

    def user(self, text: str) -> None:
        """Append a user message."""
        self.messages.append({"role": "user", "content": text})

    def assistant(self, text: str) -> None:
        """Append an assistant message."""
        self.messages.append({"role": "assistant", "content": text})

    def turn(self, question: str, answer: str) -> None:
        """Append a user message and its answer."""
        self.user(question)
        self.assistant(answer)

    def system(self, text: str) -> None:
        """Set or extend the system message."""
        if self.messages and self.messages[0]["role"] == "system":
            self.messages[0]["content"] += " " + text
        else:
            self.messages.insert(0, {"role": "system", "content": text})
