"""The binding itself: llama.cpp's model, context, batch and sampler, with the KV cache in your own hands.

``cyllama.llama.llama_cpp`` has the names and the meanings of ``llama.h``. Here you decide what is evaluated, when the
KV cache is cleared, what is removed from it and what is saved.

Run it with ``python examples/low_level.py [model.gguf]``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from cyllama.llama.llama_cpp import (
    LlamaBatch,
    LlamaChatTemplates,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
)
from cyllama.models import TINY_CHAT

N_CTX = 512


class Generator:
    """The smallest of decode loops: sequence 0 of one context, the most likely token every time."""

    def __init__(self, model: LlamaModel) -> None:
        params = LlamaContextParams()
        params.n_ctx = params.n_batch = N_CTX
        params.n_threads = params.n_threads_batch = max(1, (os.cpu_count() or 1) // 2)  # not more than physical cores
        self.vocab = model.vocab
        self.context = LlamaContext(model, params)
        self.batch = LlamaBatch(N_CTX)
        self.sampler = LlamaSampler.chain([LlamaSampler.greedy()])

    def evaluate(self, tokens: list[int]) -> None:
        """Append tokens to the sequence, with logits for the last one."""
        self.batch.clear()
        self.batch.add_sequence(tokens, pos=self.n_tokens, seq_id=0)
        status = self.context.decode(self.batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def generate(self, max_tokens: int = 64) -> str:
        """Sample from the last logits and evaluate what was sampled, until the model ends its answer."""
        data = b""  # a character may be split over several tokens
        for _ in range(max_tokens):
            token = self.sampler.sample(self.context)
            if self.vocab.is_eog(token):
                break
            data += self.vocab.token_to_piece(token)
            self.evaluate([token])
        return data.decode("utf-8", errors="replace")

    @property
    def n_tokens(self) -> int:
        """Tokens that the sequence holds."""
        return self.context.seq_pos_max(0) + 1


def main(model_path: str | None = None) -> None:
    with LlamaModel(model_path or str(TINY_CHAT)) as model:  # leaving the block closes the contexts as well
        question = [{"role": "user", "content": "What is the capital of France?"}]
        text = LlamaChatTemplates(model).apply(json.dumps(question)).prompt
        prompt = model.vocab.tokenize(text, parse_special=True)
        print(f"{model.desc}: {model.n_layer} layers, {len(prompt)} tokens of prompt")

        generator = Generator(model)
        generator.evaluate(prompt)
        answer = generator.generate()
        print(f"answer: {answer}")
        print(f"the KV cache holds {generator.n_tokens} tokens")

        # Cleared without its data, in microseconds: cells that belong to no sequence are never read.
        generator.context.kv_cache_clear(clear_data=False)
        print(f"cleared: {generator.n_tokens} tokens")
        generator.evaluate(prompt)
        print(f"evaluated again, same answer: {generator.generate() == answer}")

        # Drop the answer and the prompt's last token. One token is evaluated instead of the whole prompt.
        removed = generator.context.seq_rm(0, p0=len(prompt) - 1)
        print(f"tail removed: {removed}, {generator.n_tokens} tokens left")
        generator.evaluate(prompt[-1:])
        print(f"one token evaluated, same answer: {generator.generate() == answer}")

        # A state is bytes or a file. Another context goes on from it, in this process or a later one.
        generator.context.seq_rm(0, p0=len(prompt) - 1)
        with TemporaryDirectory() as folder:
            path = str(Path(folder) / "prompt.state")
            generator.context.state_seq_save_file(path, seq_id=0, tokens=prompt[:-1])
            other = Generator(model)
            restored = other.context.state_seq_load_file(path, seq_id=0)
        print(f"restored: {other.n_tokens} tokens, the same ids: {restored == prompt[:-1]}")
        other.evaluate(prompt[-1:])
        print(f"restored context, same answer: {other.generate() == answer}")

        # What llama.cpp would answer with an abort of the process is refused.
        try:
            other.evaluate([model.vocab.n_tokens])
        except ValueError as error:
            print(f"refused: {error}")
        try:
            other.context.state_set_data(b"not a state")
        except ValueError as error:
            print(f"refused: {error}")
    print(f"closed with the model: {generator.context.closed and other.context.closed}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
