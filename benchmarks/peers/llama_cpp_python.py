#!/usr/bin/env python3
"""Answer requests with llama-cpp-python: a JSON object per line, from stdin to stdout. See workers.py.

Its ``generate`` is used, which yields token ids: what it is faster with than with text.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from itertools import islice
from typing import Any

from llama_cpp import Llama  # pyright: ignore[reportMissingImports]


class Worker:
    """One ``Llama``, whose callers take turns behind a lock."""

    def __init__(self, model: str, n_threads: int, n_ctx: int) -> None:
        self._llama: Any = Llama(
            model_path=model, n_ctx=n_ctx, n_threads=n_threads, n_threads_batch=n_threads, verbose=False
        )
        self._lock = threading.Lock()

    def complete_all(self, prompts: list[list[int]], n_tokens: int) -> dict[str, Any]:
        """Answer prompts from a thread each."""
        threads = [threading.Thread(target=self.complete, args=(prompt, n_tokens)) for prompt in prompts]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"seconds": time.perf_counter() - start}

    def complete(self, prompt: list[int], n_tokens: int) -> dict[str, Any]:
        """Answer one prompt."""
        start = time.perf_counter()
        with self._lock:
            tokens = self._llama.generate(prompt, temp=0.0)
            answer = [next(tokens)]
            first = time.perf_counter() - start
            answer += islice(tokens, n_tokens - 1)
        return {"first": first, "tokens": [int(token) for token in answer]}


def main() -> None:
    """Answer until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--n-ctx", type=int, required=True)
    args = parser.parse_args()
    worker = Worker(args.model, args.threads, args.n_ctx)
    for line in sys.stdin:
        request = json.loads(line)
        if "prompts" in request:
            answer = worker.complete_all(request["prompts"], request["n_tokens"])
        else:
            answer = worker.complete(request["prompt"], request["n_tokens"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
