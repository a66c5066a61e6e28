"""The other project of the name cyllama, written in Cython, from its wheel.

It takes texts alone, and an ``LLM`` is for one thread: callers wait for each other behind a lock.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import Any

from peers.protocol import Answer, Ask, Clock, Settings, serve, timed_import

cyllama, IMPORT_SECONDS = timed_import("cyllama")


class Engine:
    """One ``LLM`` of that project."""

    def __init__(self, settings: Settings) -> None:
        self._config = cyllama.GenerationConfig
        self._options = {"temperature": 0.0, "n_ctx": settings.n_ctx, "n_gpu_layers": 0}
        self._llm: Any = cyllama.LLM(settings.model, **self._options)
        for _ in self._llm("a", config=self._config(max_tokens=1, **self._options), stream=True):
            pass  # creates the context
        self._llm._ctx.set_n_threads(settings.n_threads, settings.n_threads)  # no option does
        self._lock = threading.Lock()

    def answer(self, ask: Ask) -> Answer:
        """Stream an answer."""
        clock = Clock()
        n_tokens = 0
        with self._lock:
            for _ in self._llm(ask.text, config=self._config(max_tokens=ask.n_tokens, **self._options), stream=True):
                clock.token()
                n_tokens += 1
        return Answer(clock.first, clock.now(), n_tokens)


if __name__ == "__main__":
    serve(Engine, version("cyllama"), IMPORT_SECONDS)
