"""LoRA adapters, and sets of them that a step computes with."""

from __future__ import annotations

from collections.abc import Iterable

from ..llama.llama_cpp import LlamaAdapterLora

AdapterKey = tuple[tuple[str, float], ...]
"""Identifies a set of adapters: the digest of each one's file, and its scale. Empty for no adapters.

A state can be used only with the set that it was computed with.
"""


class Adapter:
    """A LoRA adapter that was loaded.

    Attributes:
        name: The name that callers use for it.
        lora: The adapter itself.
        identity: A digest of its file.
        unloaded: Whether its name was removed. It is freed when no generation uses it any more.
    """

    def __init__(self, name: str, lora: LlamaAdapterLora, identity: str) -> None:
        self.name = name
        self.lora = lora
        self.identity = identity
        self.unloaded = False


class AdapterSet:
    """Adapters to compute with, each with its scale.

    Attributes:
        adapters: The adapters and their scales, without those of scale 0.
        key: Equal for sets that compute the same results.
    """

    def __init__(self, adapters: Iterable[tuple[Adapter, float]] = ()) -> None:
        self.adapters = [(adapter, float(scale)) for adapter, scale in adapters if scale != 0]
        self.key: AdapterKey = tuple(sorted((adapter.identity, scale) for adapter, scale in self.adapters))


NO_ADAPTERS = AdapterSet()
