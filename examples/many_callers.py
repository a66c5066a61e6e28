"""Many threads and tasks share one model, and are decoded together.

Run it with ``python examples/many_callers.py [model.gguf]``.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from cyllama import LLM

ANIMALS = ("fox", "dog", "cat", "owl", "bear", "mouse", "horse", "rabbit")


def prompt(llm: LLM, animal: str) -> str:
    return llm.render([{"role": "user", "content": f"Tell me a story about a {animal}."}])


def from_threads(llm: LLM) -> None:
    with ThreadPoolExecutor(len(ANIMALS)) as pool:
        stories = list(pool.map(lambda animal: llm(prompt(llm, animal), max_tokens=24), ANIMALS))
    for animal, story in zip(ANIMALS, stories, strict=True):
        print(f"{animal}: {story}")
    print(f"{llm.stats.mean_batch_size:.1f} tokens in a batch, on average")


async def from_tasks(llm: LLM) -> None:
    # Nothing here waits on a thread of its own.
    first, second = await asyncio.gather(
        llm.agenerate(prompt(llm, "fox"), max_tokens=24), llm.agenerate(prompt(llm, "owl"), max_tokens=24)
    )
    print(f"tasks: {first} / {second}")

    async with llm.astream(prompt(llm, "bear"), max_tokens=200) as stream:
        async for _ in stream:
            break  # leaving the block ends the generation within one step
    print(f"a stream that was left: {stream.response.finish_reason}")


def several_answers(llm: LLM) -> None:
    # The prompt is evaluated once for all of them.
    answers = llm(prompt(llm, "fox"), n=4, temperature=0.8, seed=1, max_tokens=24)
    print(f"the longest of {len(answers)}: {max(answers, key=len)}")


def main(model_path: str | None = None) -> None:
    with LLM(model_path, temperature=0, n_parallel=8) as llm:
        from_threads(llm)
        asyncio.run(from_tasks(llm))
        several_answers(llm)


if __name__ == "__main__":
    main(*sys.argv[1:2])
