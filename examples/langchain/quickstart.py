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

        # Leaving a stream ends its generation.
        print("stream: ", end="")
        for chunk in model.stream("Count from 3 to 15."):
            print(chunk.text, end="", flush=True)
        print()

        # A call always fits its tool: the tools are the grammar of the answer.
        asked = model.bind_tools([GetWeather]).invoke("What is the weather in Paris?")
        print(f"tool calls: {[(call['name'], call['args']) for call in asked.tool_calls]}")

        # A schema is the grammar of the answer too. The question still has to say what to write.
        question = "Tell me a joke about cats. Reply in JSON with keys setup and punchline."
        joke = model.with_structured_output(Joke).invoke(question)
        print(f"structured: {joke!r}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
