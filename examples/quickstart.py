"""Load a model, ask it something, stream an answer, and read how each came about.

Run it with ``python examples/quickstart.py [model.gguf]``; without an argument it uses the embedded tiny-chat.
"""

from __future__ import annotations

import sys

from cyllama import LLM


def main(model_path: str | None = None) -> None:
    # Options of GenerationConfig given here are the defaults of every call.
    with LLM(model_path, temperature=0, max_tokens=256) as llm:
        # A chat model wants its own format around a message: render() applies the template from the model's file.
        prompt = llm.render([{"role": "user", "content": "What is the capital of France?"}])
        response = llm(prompt)
        print(f"answer: {response}")

        # A response is a str that also knows how it came about.
        print(f"model: {response.model}")
        print(f"finish reason: {response.finish_reason}")
        print(f"tokens: {response.usage.prompt_tokens} prompt + {response.usage.completion_tokens} completion")
        print(f"timed: {response.timings.prompt > 0 and response.timings.generation > 0}")

        # Chunks arrive while the text is generated. Leaving the block early would end the generation.
        prompt = llm.render([{"role": "user", "content": "Count from 3 to 15."}])
        chunks = []
        print("stream: ", end="")
        with llm(prompt, stream=True) as stream:
            for chunk in stream:
                print(chunk, end="", flush=True)
                chunks.append(chunk)
        print()
        print(f"{len(chunks)} chunks, together the response: {''.join(chunks) == stream.response}")

        # Any option can be given to a single call as well. This answer ends before the first comma.
        response = llm(prompt, stop_sequences=[","], seed=1)
        print(f"up to the first comma: {response}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
