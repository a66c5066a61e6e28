"""Prompts of a known number of tokens, as tokens and as text: some engines take nothing but text."""

from __future__ import annotations

import random
import re
from functools import cache
from pathlib import Path

import gguf

from peers.protocol import Ask

WORD = re.compile("[\u0120\u2581][a-z]{2,}")  # GPT-2's and SentencePiece's space, and a word


@cache
def words(model: Path) -> dict[str, int]:
    """Return the words that are one token of a model, with their ids."""
    field = gguf.GGUFReader(str(model)).fields["tokenizer.ggml.tokens"]
    return {token[1:]: i for i, token in enumerate(field.contents()) if WORD.fullmatch(token)}


def prompt(model: Path, n_tokens: int, *seed: object) -> tuple[list[int], str]:
    """Return words as tokens and as text, the same for the same seed."""
    vocabulary = words(model)
    chosen = random.Random(repr(seed)).choices(list(vocabulary), k=n_tokens)
    return [vocabulary[word] for word in chosen], " " + " ".join(chosen)


def ask(model: Path, n_prompt: int, n_tokens: int, *seed: object, bias: int | None = None) -> Ask:
    """Return a request for ``n_tokens`` after a prompt that differs from those of other seeds."""
    tokens, text = prompt(model, n_prompt, *seed)
    return Ask(tokens, text, n_tokens, bias=bias)
