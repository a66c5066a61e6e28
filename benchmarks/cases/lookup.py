"""Prompt lookup: how much faster answers come that repeat something, and whether others lose by it.

A real model, since one with random weights repeats nothing: SmolLM2, which `make models` downloads.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cyllama import LLM, ChatResponse
from kit.clock import settle, wall_seconds
from kit.models import BUILD
from kit.report import Row, Table

SMOLLM2 = BUILD / "models" / "smollm2.gguf"
MAX_TOKENS = 200
WAYS: tuple[Literal["off", "lookup"], ...] = ("off", "lookup")
LEAST_COPYING, LEAST = 1.8, 0.97

CODE = '''class Stack:
    """Items, of which the last one that was put in comes out first."""

    def __init__(self):
        self.items = []

    def push(self, item):
        """Put an item on top."""
        self.items.append(item)

    def pop(self):
        """Take the item from the top."""
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items.pop()

    def peek(self):
        """Look at the item on top."""
        if not self.items:
            raise IndexError("the stack is empty")
        return self.items[-1]
'''
MAIL = """From: Margaret Whitfield, Whitfield and Sons Bookbinders
Subject: Order 48213 was damaged in transport
Message: We ordered three copies of 'The Sea Between Us' and one 'Atlas of Northern Birds' on 14 March 2024. The \
parcel arrived today at 4 Mill Road, Chichester, but the spine of the atlas is broken and two of the other books \
are wet. Please send us new ones by courier before the end of the month."""
FIELDS = ("from", "subject", "message")
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
PASSAGES = (
    "[1] The lighthouse at Skerryvore was built between 1838 and 1844 by Alan Stevenson. Its tower is 48 metres high "
    "and stands on a reef twelve miles south-west of Tiree.",
    "[2] Bell Rock Lighthouse, off the coast of Angus, is the oldest surviving sea-washed lighthouse in the world. It "
    "was built by Robert Stevenson between 1807 and 1810.",
    "[3] Muckle Flugga, the most northerly lighthouse of Scotland, was built in 1854 by Thomas and David Stevenson to "
    "protect ships during the Crimean War.",
)


class Text(NamedTuple):
    """An answer to measure, and how many times as fast it has to be as without drafts."""

    name: str
    question: str
    goal: float
    response_format: dict[str, Any] | None = None


COPY = f"Rewrite this Python class with the name Pile:\n\n```python\n{CODE}```"
FILL = f"Turn this mail into JSON, with every word of it:\n\n{MAIL}"
QUOTE = "Repeat this text word for word:\n\n" + "\n".join(PASSAGES)
TEXTS = (
    Text("copy code with a rename", COPY, LEAST_COPYING),
    Text("fill JSON from a text", FILL, LEAST_COPYING, SCHEMA),
    Text("repeat retrieved passages", QUOTE, LEAST_COPYING),
    Text("prose", "Write a long story about a fox who learns to swim.", LEAST),
)


def measure_texts(path: Path, n_threads: int, rounds: int) -> Table:
    """Measure each answer with drafts and without, in turn."""
    rows: list[Row] = []
    with LLM(str(path), n_threads=n_threads, temperature=0) as llm:
        for text in TEXTS:
            for way in WAYS:
                answer(llm, text, way)
            ratios: list[float] = []
            for i in range(rounds):
                settle()
                rates = {way: rate(answer(llm, text, way)) for way in WAYS[:: (-1) ** i]}
                ratios.append(rates["lookup"] / rates["off"])
            timings = answer(llm, text, "lookup").timings
            rows.append(Row(text.name, statistics.median(ratios), "{:.2f} times", text.goal))
            share = timings.tokens_accepted / max(timings.tokens_drafted, 1)
            rows.append(Row(f"  {timings.tokens_accepted} drafted tokens accepted, of all", share, "{:.2f}"))
    return Table(f"speculation='lookup', one caller, {path.stem}: tokens per second compared with none", rows)


def answer(llm: LLM, text: Text, speculation: Literal["off", "lookup"]) -> ChatResponse:
    """Return the answer."""
    messages = [{"role": "user", "content": text.question}]
    return llm.chat(messages, max_tokens=MAX_TOKENS, speculation=speculation, response_format=text.response_format)


def rate(response: ChatResponse) -> float:
    """Return tokens per second, from the first token to the last."""
    return (response.usage.completion_tokens - 1) / response.timings.generation


def measure_callers(path: Path, n_threads: int, rounds: int, n_callers: int = 8) -> Table:
    """Measure many callers at once, who ask for all texts, with drafts and without, in turn."""
    ratios: list[float] = []
    with LLM(str(path), n_threads=n_threads, n_parallel=n_callers, temperature=0) as llm:
        for i in range(rounds + 1):
            settle()
            seconds = {
                way: wall_seconds([partial(answer, llm, TEXTS[n % len(TEXTS)], way) for n in range(n_callers)])
                for way in WAYS[:: (-1) ** i]
            }
            if i:
                ratios.append(seconds["off"] / seconds["lookup"])
    rows = [Row("all texts twice", statistics.median(ratios), "{:.2f} times", 1.0)]
    return Table(f"speculation='lookup', {n_callers} callers at once: speed compared with none", rows)
