"""This cyllama."""

from __future__ import annotations

from typing import Any

from peers.protocol import Answer, Ask, Clock, Settings, serve, timed_import

cyllama, IMPORT_SECONDS = timed_import("cyllama")

BIAS = 1000.0


class Engine:
    """One ``LLM``, which all threads share; conversations are its sessions."""

    def __init__(self, settings: Settings) -> None:
        options = {"n_threads": settings.n_threads, "n_parallel": settings.n_parallel}
        self._llm = cyllama.LLM(settings.model, temperature=0, **options)
        if not settings.embedding:
            self._llm("a", max_tokens=1, n_ctx=settings.n_ctx)  # creates the context

    def answer(self, ask: Ask) -> Answer:
        """Stream an answer."""
        options: dict[str, Any] = {"max_tokens": ask.n_tokens, "session": ask.conversation}
        if ask.bias is not None:
            options["logit_bias"] = {ask.bias: BIAS}
        if ask.schema is not None:
            options["response_format"] = ask.schema
        options["ignore_eos"] = ask.schema is None and not ask.ends
        options["speculation"] = "lookup" if ask.lookup else "off"
        clock = Clock()
        with self._llm(ask.tokens or ask.text, stream=True, **options) as stream:
            for _ in stream:
                clock.token()
        seconds = clock.now()
        assert stream.response is not None
        return Answer(clock.first, seconds, stream.response.usage.completion_tokens)

    def embed(self, texts: list[str]) -> None:
        """Embed texts in one call."""
        self._llm.embed(texts)


if __name__ == "__main__":
    serve(Engine, cyllama.__version__, IMPORT_SECONDS)
