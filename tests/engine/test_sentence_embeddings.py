"""A real sentence-embedding model gives the vectors that its original gives, and finds what is similar."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from cyllama import LLM

from ..support.sentence_model import Encoded, SentenceModel, UnavailableError, sentence_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the venv of the original model is laid out for Unix"),
]

PAIRS = [
    ("How do I reset my password?", "I forgot my login credentials."),
    ("A man is playing the guitar.", "Someone plays a musical instrument."),
    ("The stock market fell sharply on Monday.", "Shares dropped at the start of the week."),
    ("She baked a chocolate cake for his birthday.", "He got a home-made cake when he turned thirty."),
    ("The train to Munich leaves at 7:45.", "There is a rail connection to Bavaria in the morning."),
    ("Photosynthesis turns sunlight into chemical energy.", "Plants use light to make sugar."),
    ("My dog is afraid of thunder.", "The puppy hides whenever there is a storm."),
    ("The court dismissed the lawsuit.", "A judge rejected the case."),
    ("Water boils at 100 degrees Celsius.", "At sea level, the boiling point is 212 F."),
    ("It rained all weekend in Seattle.", "The weather in Washington was wet for two days."),
]
OTHERS = [
    "hello",
    "Hello, World!!!",
    "THIS IS ALL UPPER CASE",
    "don't can't won't it's we'll",
    "an-example_with/many\\separators|and (brackets) [too] {here}",
    "1234567890 3.14159 1,000,000 42nd $99.99 50%",
    "user@example.com https://example.com/path?query=1&b=2#top",
    "  leading, trailing and   double   spaces  ",
    "line\nbreaks\tand tabs\r\n",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "xqzvkj wrtpls mnbgh",
    "café naïve résumé Ångström Zürich São Paulo",
    "Der Fluß überschwemmte die Straße.",
    "L'été dernier, j'ai visité la Bretagne.",
    "El niño comió una manzana.",
    "Привет, как дела?",
    "Καλημέρα κόσμε",
    "我喜欢吃苹果。",
    "東京は日本の首都です。",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "สวัสดีชาวโลก",  # not Devanagari: llama.cpp drops its vowel signs, as if they were accents
    "I ❤ emoji 🎉🚀 very much",
    "e = mc², ∑ xᵢ ≤ ∞, ½ + ¼",
    "“Curly quotes” — and dashes – and an ellipsis…",
    "def add(a, b):\n    return a + b  # a comment",
    "SELECT name, COUNT(*) FROM users GROUP BY name HAVING COUNT(*) > 1;",
    '{"key": [1, 2, {"nested": null}]}',
    "The " + "very " * 100 + "long sentence is repetitive.",
    " ".join(f"{first} {second}" for first, second in PAIRS),
]
SENTENCES = [text for pair in PAIRS for text in pair] + OTHERS


@pytest.fixture(scope="module")
def model() -> SentenceModel:
    try:
        return sentence_model()
    except UnavailableError as error:
        pytest.skip(f"all-MiniLM-L6-v2 cannot be had: {error}")


@pytest.fixture(scope="module")
def llm(model: SentenceModel) -> Iterator[LLM]:
    with LLM(model.gguf) as llm:
        yield llm


@pytest.fixture(scope="module")
def original(model: SentenceModel) -> Encoded:
    return model.encode(SENTENCES)


def test_vectors_are_those_of_the_original_model(original: Encoded, llm: LLM):
    assert len(SENTENCES) == 50
    expected = np.array(original.vectors)
    together = np.array(llm.embed(SENTENCES))
    alone = np.array([llm.embed(text) for text in SENTENCES])
    for vectors in (together, alone):
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(expected, axis=1)
        print(f"cosine with the original: at least {cosines.min():.7f}")
        worst = {SENTENCES[i]: float(cosines[i]) for i in np.argsort(cosines) if cosines[i] < 0.999}
        assert worst == {}


def test_tokens_are_those_of_the_original_model(original: Encoded, llm: LLM):
    assert [text for text, ids in zip(SENTENCES, original.tokens, strict=True) if llm.tokenize(text) != ids] == []


def test_what_means_the_same_is_found(llm: LLM):
    first, second = (np.array(llm.embed([pair[i] for pair in PAIRS])) for i in range(2))
    assert (first @ second.T).argmax(axis=1).tolist() == list(range(len(PAIRS)))
