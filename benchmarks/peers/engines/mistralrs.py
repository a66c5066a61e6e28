"""mistralrs, from its wheel. It takes texts alone, and keeps the states of conversations by their prefixes."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

from peers.protocol import Answer, Ask, Clock, Settings, file_of, serve, timed_import

mistralrs, IMPORT_SECONDS = timed_import("mistralrs")


class Engine:
    """One ``Runner``."""

    def __init__(self, settings: Settings) -> None:
        os.environ["RAYON_NUM_THREADS"] = str(settings.n_threads)
        folder, name = file_of(settings)
        which = mistralrs.Which.GGUF(quantized_model_id=folder, quantized_filename=name)
        self._runner: Any = mistralrs.Runner(which=which, max_seqs=settings.n_parallel)

    def answer(self, ask: Ask) -> Answer:
        """Stream an answer: chats can be streamed, completions cannot."""
        options: dict[str, Any] = {"max_tokens": ask.n_tokens, "temperature": 0.0, "ignore_eos": not ask.ends}
        if ask.bias is not None:
            options["logit_bias"] = {ask.bias: 100.0}
        request = mistralrs.ChatCompletionRequest(messages=ask.text, model="default", stream=True, **options)
        clock = Clock()
        n_tokens = 0
        for chunk in self._runner.send_chat_completion_request(request):
            clock.token()
            n_tokens += 1
            if chunk.usage is not None:
                n_tokens = chunk.usage.completion_tokens
        return Answer(clock.first, clock.now(), n_tokens)


if __name__ == "__main__":
    serve(Engine, version("mistralrs"), IMPORT_SECONDS)
