"""Chains side by side in a ``RunnableParallel``: one model decodes all of them together.

Run it with ``python examples/langchain/parallel_chains.py [model.gguf]``.
"""

from __future__ import annotations

import itertools
import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel

from langchain_cyllama import ChatCyllama


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=32) as model:

        def chain(request: str) -> Runnable[dict[str, str], str]:
            return ChatPromptTemplate.from_template(request) | model | StrOutputParser()

        writers = RunnableParallel(
            story=chain("Tell me a story about a {animal}."),
            joke=chain("Tell me a joke about {animal}s."),
            numbers=chain("Count from 1 to 20."),
        )
        for name, text in writers.invoke({"animal": "fox"}).items():
            print(f"{name}: {text}")
        print(f"{model.client.stats.mean_batch_size:.1f} tokens in a batch, on average")

        # Chunks of all of them arrive as they are generated.
        arrived = [name for chunk in writers.stream({"animal": "owl"}) for name in chunk]
        changes = sum(one != other for one, other in itertools.pairwise(arrived))
        print(f"{len(arrived)} chunks; {changes} times the next one was of another chain")

        # Branches that share a session do not share a history: each one keeps a KV cache of its own.
        for _ in range(2):
            before = model.client.stats.prompt_tokens_evaluated
            writers.invoke({"animal": "bear"}, {"configurable": {"session_id": "ada"}})
            print(f"evaluated for three prompts: {model.client.stats.prompt_tokens_evaluated - before} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:2])
