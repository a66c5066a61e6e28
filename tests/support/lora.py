"""Models with adapters, and their answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cyllama import (
    LLM,
)
from cyllama.engine import Request
from cyllama.llama.llama_cpp import LlamaAdapterLora, LlamaModel

from .harness import EXACT, Reference, Step
from .random_models import (
    write_random_adapter,
    write_random_model,
)

NAMES = ("red", "green", "blue")
SETS: list[dict[str, float]] = [{}, {"red": 1.0}, {"green": 1.0, "blue": -0.5}]
ANSWER: dict[str, Any] = {"max_tokens": 24, "ignore_eos": True}
EXACT_ANSWER = EXACT | ANSWER


class Files(NamedTuple):
    """A model of random weights, and adapters for it."""

    model: Path
    adapters: dict[str, Path]

    def load(self, **options: Any) -> LLM:
        """Return an LLM with all of them loaded."""
        llm = LLM(self.model, **(EXACT_ANSWER | options))
        for name, path in self.adapters.items():
            llm.load_lora(name, path)
        return llm

    def reference(self, lora: dict[str, float]) -> Reference:
        """Return what the model answers with these adapters, without the engine."""
        model = LlamaModel(self.model)
        return Reference(model, [(LlamaAdapterLora(model, self.adapters[name]), lora[name]) for name in lora])


def write_files(folder: Path, architecture: str) -> Files:
    model = write_random_model(folder / f"{architecture}.gguf", architecture)
    adapters = {name: write_random_adapter(folder / f"{name}.gguf", model, i) for i, name in enumerate(NAMES)}
    return Files(model, adapters)


def some_tokens(n: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(300, 1200, n).tolist()


def key_of(request: Request) -> tuple[tuple[str, float], ...]:
    """Return what tells the adapters that a request asks for."""
    return tuple(sorted(request.config.lora.items()))


def slices_of(steps: Sequence[Step]) -> list[tuple[tuple[tuple[str, float], ...], int]]:
    """Return the sets in the order of their slices, and how many steps each slice had."""
    keys = [key_of(next(iter(step.requests))) for step in steps]
    return [(key, len(list(group))) for key, group in itertools.groupby(keys)]
