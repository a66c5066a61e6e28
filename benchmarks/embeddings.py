"""Embeddings: many short texts in one call, and in one call for each.

The model is all-MiniLM-L6-v2, which ``tests/support/sentence_model.py`` installs and converts, once.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cyllama import LLM
from cyllama.engine.hardware import physical_cores
from kit.report import Row, Table, describe_run

SCRIPT = Path(__file__).parents[1] / "tests" / "support" / "sentence_model.py"
WORDS = [
    "fox",
    "river",
    "the",
    "a",
    "old",
    "house",
    "sleeps",
    "near",
    "quick",
    "bridge",
    "reads",
    "paper",
    "and",
    "red",
]
N_TEXTS = 1000
N_ROUNDS = 3
GOAL = 1.0


def short_texts(n: int, most_words: int) -> list[str]:
    """Return texts of one to so many words."""
    rng = random.Random(1)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, most_words))) for _ in range(n)]


def seconds(function: Callable[[], object]) -> float:
    """Return how long a function takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(llm: LLM, most_words: int) -> Table:
    """Compare one call with one for each text, in turns, since other work on the machine comes and goes."""
    texts = short_texts(N_TEXTS, most_words)
    llm.embed(texts[0])
    together: list[float] = []
    alone: list[float] = []
    passes = llm.stats.embedding_passes
    for _ in range(N_ROUNDS):
        together.append(seconds(lambda: llm.embed(texts)))
        alone.append(seconds(lambda: [llm.embed(text) for text in texts]))
    n_passes = (llm.stats.embedding_passes - passes) / N_ROUNDS - N_TEXTS
    n_tokens = sum(map(llm.count_tokens, texts)) / N_TEXTS
    factors = [each / one for each, one in zip(alone, together, strict=True)]
    rows = [
        Row("texts/s, one call", N_TEXTS / statistics.median(together)),
        Row("texts/s, one call for each", N_TEXTS / statistics.median(alone)),
        Row("passes of the one call", n_passes, "{:.0f}"),
        Row("times as fast in one call", statistics.median(factors), "{:.2f}", GOAL),
    ]
    return Table(f"{N_TEXTS} texts of 1 to {most_words} words, {n_tokens:.1f} tokens on average", rows)


def main() -> int:
    """Measure, print, and return the exit code."""
    done = subprocess.run([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return done.returncode
    n_threads = physical_cores()
    print(f"all-MiniLM-L6-v2, {describe_run(n_threads, N_ROUNDS)}")
    with LLM(done.stdout.strip(), n_threads=n_threads) as llm:
        tables = [measure(llm, most_words) for most_words in (3, 15)]
    print(*tables, sep="\n")
    return 0 if all(table.reached for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
