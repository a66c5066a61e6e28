"""xllamacpp, from its wheel: llama.cpp's server inside this process."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from peers.protocol import Answer, Ask, Clock, Settings, serve, timed_import

xllamacpp, IMPORT_SECONDS = timed_import("xllamacpp")

BIAS = 1000.0
ERRORS_ONLY = 1


class Engine:
    """One ``Server``, with a slot for each conversation that is answered at once."""

    def __init__(self, settings: Settings) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = settings.model
        params.n_parallel = settings.n_parallel
        params.n_ctx = settings.n_ctx * settings.n_parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.n_threads
        params.verbosity = ERRORS_ONLY
        params.embedding = settings.embedding
        self._server: Any = xllamacpp.Server(params)

    def answer(self, ask: Ask) -> Answer:
        """Stream an answer."""
        request: dict[str, Any] = {"prompt": ask.tokens or ask.text, "max_tokens": ask.n_tokens, "stream": True}
        request |= {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": ask.conversation is not None}
        if ask.bias is not None:
            request["logit_bias"] = [[ask.bias, BIAS]]
        if ask.schema is not None:
            request["json_schema"] = ask.schema
        request["ignore_eos"] = ask.schema is None and not ask.ends
        clock = Clock()
        last: dict[str, Any] = {}

        def on_chunk(chunk: dict[str, Any]) -> bool:
            clock.token()
            last.update(chunk)
            return False

        self._server.handle_completions(request, on_chunk)
        if "usage" not in last:
            raise RuntimeError(f"the answer ended with {last}")
        return Answer(clock.first, clock.now(), last["usage"]["completion_tokens"])

    def embed(self, texts: list[str]) -> None:
        """Embed texts in one call."""
        reply = self._server.handle_embeddings({"input": texts})
        if len(reply.get("data", ())) != len(texts):
            raise RuntimeError(f"the texts were answered with {reply}")


if __name__ == "__main__":
    serve(Engine, version("xllamacpp"), IMPORT_SECONDS)
