"""Several processes with a model each, for work that has to be apart: a crash of one does not end the others.

Run it with ``python examples/deployment/processes.py [model.gguf]``. One process is enough for many callers: they are
decoded together.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from cyllama import LLM, ForkedError

WORKERS = 2
llm: LLM | None = None


def load(model_path: str | None, n_threads: int) -> None:
    """Load the model of a worker, once."""
    global llm
    llm = LLM(model_path, temperature=0, max_tokens=24, n_threads=n_threads)


def answer(question: str) -> tuple[int, str]:
    assert llm is not None
    return os.getpid(), llm.chat([{"role": "user", "content": question}]).text


def main(model_path: str | None = None) -> None:
    # "spawn" starts a process without the memory and the locks of this one. The weights are mapped: both share them.
    n_threads = max(1, (os.cpu_count() or 1) // WORKERS)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=spawn, initializer=load, initargs=(model_path, n_threads)) as pool:
        for _, text in pool.map(answer, ["What is the capital of France?", "Count from 3 to 7."]):
            print(text)

    if hasattr(os, "fork"):
        parents = LLM(model_path)
        child = os.fork()
        if child == 0:  # the threads that compute exist in the parent only
            try:
                parents("Hello")
            except ForkedError as error:
                print(f"in a fork: {error}", flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
