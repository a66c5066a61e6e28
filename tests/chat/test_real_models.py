"""Chats with a real model, SmolLM2: one answer however it is asked for, and values that it reads from texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from cyllama import LLM

from ..support.real_models import needs, path_of

pytestmark = needs("smollm2")

QUESTION = [{"role": "user", "content": "Name three animals that live in the sea."}]


@pytest.fixture(scope="module")
def loaded() -> Iterator[LLM]:
    with LLM(path_of("smollm2"), temperature=0, n_threads=1) as llm:
        yield llm


@pytest.fixture
def smollm2(loaded: LLM) -> LLM:
    """The model, without a context and without sessions."""
    loaded.reset_context()
    return loaded


def test_an_answer_is_the_same_whole_in_chunks_and_by_its_prompt(smollm2: LLM):
    whole = smollm2.chat(QUESTION, max_tokens=24)
    with smollm2.chat(QUESTION, max_tokens=24, stream=True) as stream:
        chunks = [chunk.content for chunk in stream]
    by_prompt = smollm2(smollm2.render(QUESTION), max_tokens=24)
    assert len(chunks) > 10
    assert "".join(chunks) == stream.response.message.content == whole.message.content == by_prompt
    assert whole.usage == by_prompt.usage
    assert whole.usage.cached_tokens == 0, "it does not depend on what was asked before"


def test_a_chat_that_goes_on_evaluates_only_what_is_new(smollm2: LLM):
    messages = list(QUESTION)
    known = 0
    for follow in ("Which of them is the largest?", "And the smallest?"):
        answer = smollm2.chat(messages, session="ada", max_tokens=16)
        assert answer.usage.cached_tokens >= known
        known = answer.usage.total_tokens - 1
        messages += [
            {"role": "assistant", "content": answer.message.content or ""},
            {"role": "user", "content": follow},
        ]
    assert smollm2.chat(messages, session="ada", max_tokens=1).usage.cached_tokens >= known > 60


class Person(BaseModel):
    """A person of whom a text tells."""

    name: str = Field(max_length=40)
    city: str = Field(max_length=20)
    profession: Literal["chemist", "composer", "mathematician", "painter", "writer"]


TEXTS = {
    (
        "Ada Lovelace",
        "London",
        "mathematician",
    ): "Augusta Ada King, known as Ada Lovelace, was an English mathematician. "
    "She was born in London in 1815, and wrote the first program for Charles Babbage's Analytical Engine.",
    ("Marie Curie", "Warsaw", "chemist"): "Marie Curie was a chemist who was born in Warsaw in 1867. She was the first "
    "person to win the Nobel Prize twice, and found polonium and radium.",
    ("Frida Kahlo", "Mexico City", "painter"): "The painter Frida Kahlo was born in Mexico City in 1907. Many of her "
    "pictures are portraits of herself.",
    ("Johannes Brahms", "Hamburg", "composer"): "Johannes Brahms, a German composer, was born in Hamburg in 1833. He "
    "lived in Vienna for most of his life.",
}


def test_values_are_read_from_texts(smollm2: LLM):
    """Every answer fits the schema. What it says is the model's own: half of the words have to be those of the text."""
    right = 0
    for expected, text in TEXTS.items():
        question = f"{text}\n\nWho is this text about? Answer with name, city of birth and profession."
        answer = smollm2.chat([{"role": "user", "content": question}], response_format=Person, max_tokens=100)
        person = Person.model_validate_json(answer.message.content or "")
        assert answer.finish_reason == "stop"
        right += sum(said == true for said, true in zip(person.model_dump().values(), expected, strict=True))
    assert right >= 6
