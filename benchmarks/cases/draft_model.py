"""A draft model: what it gains where it is right, and what it costs where it is wrong.

No pair of real models of one family is at hand. The large model is SmolLM2 with eight times as many layers, of which
those that were added change nothing, or little (:mod:`kit.deep_model`): SmolLM2 itself is always right, or often. With
twice as many layers, of which all count, it says nonsense, and is never right. What a step costs is what it costs in a
real pair of these sizes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from cases.lookup import SMOLLM2
from cyllama import LLM, ChatResponse
from kit.clock import settle, wall_seconds
from kit.deep_model import write_deep_model
from kit.models import BUILD
from kit.report import Row, Table

LAYERS = 8  # times as many
MAX_TOKENS = 100
Way = Literal["off", "draft"]
WAYS: tuple[Way, ...] = ("off", "draft")
LEAST = 0.97
QUESTIONS = ("What is a fox?", "Write a long story about a fox who learns to swim.")


class Pair(NamedTuple):
    """How often the small model is right, how much an added layer of the large one changes, and one of the small one.

    The small model has ``layers`` times as many layers as SmolLM2.
    """

    name: str
    strength: float
    layers: int = 1
    strength_of_small: float = 0.0


PAIRS = (Pair("always right", 0.0), Pair("often right", 0.01), Pair("never right", 0.0, 2, 1.0))
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def deep_model(layers: int, strength: float) -> Path:
    """Return the file of a model, which is written unless it is there."""
    path = BUILD / "bench" / f"{SMOLLM2.stem}-{layers}x-{strength:g}.gguf"
    return write_deep_model(SMOLLM2, path, layers, strength)


def measure_pair(pair: Pair, n_threads: int, rounds: int, clock: str, n_callers: int) -> Table:
    """Measure answers with drafts and without, in turn, and ``n_callers`` at once, if that is not 0."""
    large, small = deep_model(LAYERS, pair.strength), deep_model(pair.layers, pair.strength_of_small)
    rows: list[Row] = []
    with LLM(str(large), draft_model=small, n_threads=n_threads, n_parallel=8, temperature=0) as llm:
        for question in QUESTIONS:
            answer(llm, question, "draft")
        calls = [partial(answer, llm, question) for question in QUESTIONS]
        ratios = [_ratio(call, rounds, CLOCKS[clock]) for call in calls]
        for question, ratio in zip(QUESTIONS, ratios, strict=True):
            timings = answer(llm, question, "draft").timings
            rows.append(Row(f"{question:.44}", ratio, "{:.2f} times", LEAST))
            rows.append(Row(f"  accepted of {timings.tokens_drafted}", timings.tokens_accepted, "{:.0f}"))
        if n_callers:
            asked = [calls[n % len(calls)] for n in range(n_callers)]
            ratio = _ratio(lambda way: wall_seconds([partial(call, way) for call in asked]), rounds, CLOCKS[clock])
            rows.append(Row(f"{n_callers} callers at once", ratio, "{:.2f} times", LEAST))
    return Table(f"speculation='draft', {pair.name}: speed compared with none, {clock} time", rows)


def answer(llm: LLM, question: str, speculation: Way) -> ChatResponse:
    """Return the answer."""
    messages = [{"role": "user", "content": question}]
    return llm.chat(messages, max_tokens=MAX_TOKENS, ignore_eos=True, speculation=speculation)


def _ratio(run: Callable[[Way], object], rounds: int, clock: Callable[[], float]) -> float:
    """Return how many times as fast something runs with drafts as without, in the median of the rounds."""
    ratios: list[float] = []
    for i in range(rounds):
        seconds: dict[str, float] = {}
        for way in WAYS[:: (-1) ** i]:
            settle()
            started = clock()
            run(way)
            seconds[way] = clock() - started
        ratios.append(seconds["off"] / seconds["draft"])
    return statistics.median(ratios)
