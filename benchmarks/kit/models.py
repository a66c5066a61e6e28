"""The models that the benchmarks run: random weights, written once, in the sizes of real ones."""

from __future__ import annotations

import random
from pathlib import Path

from kit.random_gguf import PRESETS, TINY_CHAT, write_model

BUILD = Path(__file__).resolve().parents[2] / "build"
N_CTX = 32768
FIRST_FILLER = 2048  # the tokenizer's own tokens, byte and control tokens among them, have smaller ids
ANSWER_TOKEN = 20_000  # of which every answer consists: what continues a conversation has to know its tokens, and
ANSWER_BIAS = 1000.0  # random weights would also generate halves of characters, which llama-server refuses to return


def bench_model(preset: str, file_type: str) -> Path:
    """Return the file of a model with random weights, which is written unless it is there.

    Args:
        preset: A key of ``random_gguf.PRESETS``.
        file_type: A key of ``random_gguf.FILE_TYPES``.
    """
    path = BUILD / "bench" / f"{preset}-{file_type}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        name = f"random-{preset}"
        write_model(partial, PRESETS[preset], file_type, tokenizer=TINY_CHAT, n_ctx=N_CTX, seed=0, name=name)
        partial.rename(path)
    return path


def random_prompt(n_tokens: int, *seed: object) -> list[int]:
    """Return token ids that differ from those of any other seed from the first on, and are the same in every run.

    All are whole words, so that no peer waits for the rest of a character before it shows one.
    """
    numbers = random.Random(repr(seed))
    return [numbers.randrange(FIRST_FILLER, PRESETS["5m"].n_vocab) for _ in range(n_tokens)]
