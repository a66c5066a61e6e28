"""The tensors of random models, and parts that several architectures have."""

from __future__ import annotations

from collections.abc import Sequence

import gguf
import numpy as np

N_EMBD, N_HEAD, N_FF = 64, 4, 96


class Tensors:
    """The tensors of a model, made in order from one source of randomness."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int, sliding_window: int | None = None) -> None:
        self.writer = writer
        self.sliding_window = sliding_window
        self._rng = np.random.default_rng(seed)

    def add(self, name: str, values: np.ndarray) -> None:
        """Add values as F32."""
        self.writer.add_tensor(name, values.astype(np.float32))

    def normal(
        self, name: str, shape: tuple[int, ...], std: float | None = None, zero_rows: Sequence[int] = ()
    ) -> None:
        """Add values that keep the size of what they are multiplied with, unless ``std`` says otherwise."""
        values = self._rng.standard_normal(shape) * (shape[-1] ** -0.5 if std is None else std)
        values[list(zero_rows)] = 0
        self.add(name, values)

    def uniform(self, name: str, shape: tuple[int, ...], low: float, high: float) -> None:
        """Add values between two bounds."""
        self.add(name, self._rng.uniform(low, high, shape))

    def ones(self, name: str, *shape: int) -> None:
        """Add a tensor of ones, as norms have it."""
        self.add(name, np.ones(shape))


def add_attention(tensors: Tensors, block: str, *, n_head_kv: int = N_HEAD) -> None:
    """Add an attention that looks at few tokens: an average over many would be nearly the same for every history."""
    width = n_head_kv * N_EMBD // N_HEAD
    tensors.normal(f"{block}.attn_q.weight", (N_EMBD, N_EMBD), 1.5 * N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_k.weight", (width, N_EMBD), 1.5 * N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_v.weight", (width, N_EMBD), 2 * N_EMBD**-0.5)
    tensors.normal(f"{block}.attn_output.weight", (N_EMBD, N_EMBD))


def add_feed_forward(tensors: Tensors, block: str) -> None:
    """Add a gated feed-forward network."""
    tensors.ones(f"{block}.ffn_norm.weight", N_EMBD)
    tensors.normal(f"{block}.ffn_gate.weight", (N_FF, N_EMBD))
    tensors.normal(f"{block}.ffn_up.weight", (N_FF, N_EMBD))
    tensors.normal(f"{block}.ffn_down.weight", (N_EMBD, N_FF))


def add_layer_norm(tensors: Tensors, name: str, weight: float = 1.0) -> None:
    """Add the weight and the bias of a layer norm."""
    tensors.add(f"{name}.weight", np.full(N_EMBD, weight))
    tensors.normal(f"{name}.bias", (N_EMBD,), 0.1)
