"""llama-cpp-python, compiled for this processor.

Its ``generate`` is used, which yields token ids: what it is faster with than with text. A ``Llama`` is for one thread:
callers wait for each other behind a lock. It keeps the state of one conversation.
"""

from __future__ import annotations

import json
import threading
from itertools import islice
from typing import Any

from peers.protocol import Answer, Ask, Clock, Settings, serve, timed_import

llama_cpp, IMPORT_SECONDS = timed_import("llama_cpp")


class Engine:
    """One ``Llama``."""

    def __init__(self, settings: Settings) -> None:
        threads = {"n_threads": settings.n_threads, "n_threads_batch": settings.n_threads}
        options = {"n_ctx": settings.n_ctx, "embedding": settings.embedding, "verbose": False}
        self._llama: Any = llama_cpp.Llama(model_path=settings.model, **threads, **options)
        self._lock = threading.Lock()

    def answer(self, ask: Ask) -> Answer:
        """Generate token ids; where they have to fit a schema, a text."""
        clock = Clock()
        with self._lock:
            if ask.schema is not None:
                return self._fitting(ask, clock)
            tokens: list[int] = []
            prompt = ask.tokens or self._llama.tokenize(ask.text.encode(), special=True)
            for token in islice(self._llama.generate(prompt, temp=0.0), ask.n_tokens):
                clock.token()
                tokens.append(int(token))
                if ask.ends and token == self._llama.token_eos():
                    break
        return Answer(clock.first, clock.now(), len(tokens), tokens)

    def _fitting(self, ask: Ask, clock: Clock) -> Answer:
        grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(ask.schema), verbose=False)
        options = {"max_tokens": ask.n_tokens, "temperature": 0.0, "grammar": grammar, "stream": True}
        n_tokens = 0
        for _ in self._llama.create_completion(ask.text, **options):
            clock.token()
            n_tokens += 1
        return Answer(clock.first, clock.now(), n_tokens - 1)  # the last one has the reason of the end alone

    def embed(self, texts: list[str]) -> None:
        """Embed texts in one call."""
        assert len(self._llama.embed(texts)) == len(texts)


if __name__ == "__main__":
    serve(Engine, llama_cpp.__version__, IMPORT_SECONDS)
