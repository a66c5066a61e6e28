"""Embeddings of a real generative model, SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cyllama import LLM

from ...support.real_models import needs, path_of

pytestmark = needs("smollm2")

PAIRS = [
    ("The cat sleeps on the sofa.", "A kitten is asleep on the couch."),
    ("The stock market fell sharply on Monday.", "Share prices dropped at the start of the week."),
    ("Water boils at 100 degrees Celsius.", "The boiling point of water is 212 degrees Fahrenheit."),
    ("She plays the violin in an orchestra.", "He plays the piano in a band."),
]


@pytest.fixture(scope="module")
def smollm2() -> Iterator[LLM]:
    with LLM(path_of("smollm2"), n_threads=1) as llm:
        yield llm


def test_texts_that_say_the_same_are_closer_than_others(smollm2: LLM):
    """On average: a generative model's vectors have a large part in common, and this model is small."""
    first, second = (np.array(smollm2.embed([pair[i] for pair in PAIRS])) for i in (0, 1))
    common = np.concatenate([first, second]).mean(axis=0)
    first, second = first - common, second - common
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    similar = first @ second.T
    same = np.eye(len(PAIRS), dtype=bool)
    assert similar[same].mean() > similar[~same].mean() + 0.3


def test_a_text_has_the_same_vector_alone_and_among_others(smollm2: LLM):
    texts = [text for pair in PAIRS for text in pair]
    together = np.array(smollm2.embed([*texts, " ".join(texts)]))
    alone = np.array([smollm2.embed(text) for text in texts[:3]])
    assert together.shape == (9, 576)
    cosines = (together[:3] * alone).sum(axis=1) / np.linalg.norm(together[:3], axis=1) / np.linalg.norm(alone, axis=1)
    assert cosines.min() > 0.99
