"""Data from sentences: the schema is the grammar of the answer, so that every answer fits it.

Run it with ``python examples/langchain/structured_extraction.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel, Field

from langchain_cyllama import ChatCyllama

SENTENCES = (
    "Ada is 36 years old and lives in London",
    "Zorblax is 7 years old and lives in Quimby",
    "Mia is 52 years old and lives in Oslo",
)


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    city: str = Field(max_length=20)


def main(model_path: str | None = None) -> None:
    # The prompt says what to write: the model does not see the schema.
    prompt = ChatPromptTemplate.from_template("Extract name, age and city as JSON: {sentence}.")
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=256) as model:
        extract = prompt | model.with_structured_output(Person)
        for person in extract.batch([{"sentence": sentence} for sentence in SENTENCES]):
            print(repr(person))

        # The form does not depend on how well the model reads a text. At this temperature, its choice is nearly random.
        guess = model.with_structured_output(Person, temperature=1000, top_k=0, top_p=1, min_p=0, seed=1)
        print(f"at random: {guess.invoke('Hello!')!r}")

        # An answer that is cut off has no value. Ask for the raw message to see both.
        cut = prompt | model.with_structured_output(Person, include_raw=True, max_tokens=8)
        result = cut.invoke({"sentence": SENTENCES[0]})
        assert isinstance(result, dict)
        print(f"cut off: {result['raw'].text}, {result['raw'].response_metadata['finish_reason']}, {result['parsed']}")
        print(f"error: {type(result['parsing_error']).__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
