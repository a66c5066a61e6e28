"""Sixteen requests in one ``abatch``: they are decoded together, and no thread waits for any of them.

Run it with ``python examples/langchain/batch.py [model.gguf]``.
"""

from __future__ import annotations

import asyncio
import sys

from langchain_core.messages import AIMessage

from langchain_cyllama import ChatCyllama

# fmt: off
ANIMALS = (
    "fox", "dog", "cat", "owl", "bear", "mouse", "horse", "rabbit", "lion", "goat", "wolf", "frog", "duck", "pig",
    "whale", "zebra",
)
# fmt: on


async def ask(model: ChatCyllama) -> None:
    stories = [f"Tell me a story about a {animal}." for animal in ANIMALS]
    for animal, answer in zip(ANIMALS, await model.abatch(list(stories), max_tokens=48), strict=True):
        print(f"{animal}: {answer.text}")
    stats = model.client.stats
    print(f"{stats.tokens_generated} tokens in {stats.steps} steps")

    # What is finished first comes first, with its place among the requests.
    requests = [f"Count from 1 to {last}." for last in (60, 3, 8)]
    async for place, answer in model.abatch_as_completed(list(requests)):
        if isinstance(answer, AIMessage):
            print(f"request {place}: {answer.text}")


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, n_parallel=16, temperature=0, max_tokens=256) as model:
        asyncio.run(ask(model))


if __name__ == "__main__":
    main(*sys.argv[1:2])
