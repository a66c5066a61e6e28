"""A chat that is streamed, tools that are Python functions, answers with a schema, and embeddings.

Run it with ``python examples/chat.py [model.gguf]``.
"""

from __future__ import annotations

import json
import sys

from pydantic import BaseModel

from cyllama import LLM, ChatResponse


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def get_weather(location: str) -> str:
    """Get the weather.

    Args:
        location: The name of a city.
    """
    return f"It's sunny in {location}."


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def stream(llm: LLM) -> None:
    for delta in llm.chat([user("Count from 3 to 7.")], stream=True):
        print(delta, end="", flush=True)
    print()


def remember(llm: LLM) -> None:
    history: list[dict[str, str] | ChatResponse] = [user("My name is Ada.")]
    history.append(llm.chat(history))  # an answer is a text, and a message of the next call
    history.append(user("What is my name?"))
    print(llm.chat(history))


def call_a_function(llm: LLM) -> None:
    history: list[dict[str, str] | ChatResponse] = [user("What is the weather in Paris?")]
    answer = llm.chat(history, tools=[get_weather])
    history.append(answer)
    for call in answer.message.tool_calls:
        result = get_weather(**json.loads(call.function.arguments))
        print(f"{call.function.name}: {result}")
        history.append({"role": "tool", "content": result, "tool_call_id": call.id})
    print(llm.chat(history, tools=[get_weather]))


def extract(llm: LLM) -> None:
    answer = llm.chat([user("Extract name and age as JSON: Ada is 36 years old.")], response_format=Person)
    person: Person = answer.parsed
    print(f"{person.name}, {person.age}")


def embed(llm: LLM) -> None:
    fox, other = llm.embed(["A fox sleeps.", "A fox sleeps."])
    print(f"cosine of two equal texts: {sum(a * b for a, b in zip(fox, other, strict=True)):.3f}")


def main(model_path: str | None = None) -> None:
    with LLM(model_path, temperature=0) as llm:
        stream(llm)
        remember(llm)
        call_a_function(llm)
        extract(llm)
        embed(llm)


if __name__ == "__main__":
    main(*sys.argv[1:])
