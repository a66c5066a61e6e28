"""A chat model of LangChain in this process: invoke, stream, a tool, structured output.

Run it with ``python examples/langchain/quickstart.py [model.gguf]``; without an argument it uses the embedded
tiny-chat.
"""

from __future__ import annotations

import sys

from pydantic import BaseModel

from langchain_cyllama import ChatCyllama


class GetWeather(BaseModel):
    """Get the weather."""

    location: str


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=256) as model:
        answer = model.invoke("What is the capital of France?")
        print(f"answer: {answer.text}")
        print(f"finish reason: {answer.response_metadata['finish_reason']}")
        print(f"tokens: {answer.usage_metadata}")

        # A stream ends what is generated when it is left.
        print("stream: ", end="")
        for chunk in model.stream("Count from 3 to 15."):
            print(chunk.text, end="", flush=True)
        print()

        # What is called, and with what, always fits the tools: they are the grammar of the answer.
        asked = model.bind_tools([GetWeather]).invoke("What is the weather in Paris?")
        print(f"tool calls: {[(call['name'], call['args']) for call in asked.tool_calls]}")

        # So is a schema. What the model is to write, the question has to say all the same.
        question = "Tell me a joke about cats. Reply in JSON with keys setup and punchline."
        joke = model.with_structured_output(Joke).invoke(question)
        print(f"structured: {joke!r}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
