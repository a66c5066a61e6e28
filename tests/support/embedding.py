"""Texts to embed, and vectors to compare."""

from __future__ import annotations

import random

import numpy as np

SAME = 0.9995
"""Cosine of the vectors of one text in different passes: rounding leaves more, and two texts of these tests 0.96."""

# fmt: off
WORDS = [
    "the", "fox", "an", "animal", "sleeps", "rests", "hello", "world", "what", "do", "foxes", "eat", "mice", "zebra",
    "12", "quick!",
]


def some_texts(n: int, most_words: int = 20, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, most_words))) for _ in range(n)]


def cosines(a: list[list[float]], b: list[list[float]]) -> np.ndarray:
    x, y = np.array(a), np.array(b)
    return (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
