"""The network: a llama-architecture decoder in plain PyTorch, laid out as llama.cpp expects it."""

from __future__ import annotations

from dataclasses import dataclass

import torch  # pyright: ignore[reportMissingImports] - see requirements.txt
from torch import Tensor, nn  # pyright: ignore[reportMissingImports] - see requirements.txt


@dataclass(frozen=True)
class Config:
    """Hyperparameters of the network."""

    vocab: int = 1280
    layers: int = 4
    width: int = 256
    heads: int = 8
    kv_heads: int = 2
    hidden: int = 640
    context: int = 2048
    rope_base: float = 10000.0
    eps: float = 1e-5

    @property
    def head_width(self) -> int:
        """Channels of a head."""
        return self.width // self.heads


def rope_table(config: Config) -> Tensor:
    """Return the cosines and sines of all positions, of shape (2, context, head_width / 2)."""
    half = torch.arange(0, config.head_width, 2) / config.head_width
    angles = torch.outer(torch.arange(config.context), config.rope_base**-half)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbouring pairs of channels by their position, as llama.cpp does for this architecture.

    Args:
        x: Queries or keys, of shape (..., length, head_width).
        table: The cosines and sines of these positions, of shape (2, length, head_width / 2).

    Returns:
        The rotated queries or keys.
    """
    cos, sin = table.to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(nn.Module):
    """Attention with grouped queries followed by a SwiGLU feed-forward network."""

    def __init__(self, config: Config) -> None:
        """Create the layers."""
        super().__init__()
        width, kv_width = config.width, config.kv_heads * config.head_width
        self.config = config
        self.attn_norm = nn.RMSNorm(width, config.eps)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, kv_width, bias=False)
        self.attn_v = nn.Linear(width, kv_width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, config.eps)
        self.ffn_gate = nn.Linear(width, config.hidden, bias=False)
        self.ffn_up = nn.Linear(width, config.hidden, bias=False)
        self.ffn_down = nn.Linear(config.hidden, width, bias=False)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """Return the residual stream after this block; ``table`` is that of :func:`rotate`."""
        x = x + self._attention(self.attn_norm(x), table)
        h = self.ffn_norm(x)
        return x + self.ffn_down(nn.functional.silu(self.ffn_gate(h)) * self.ffn_up(h))

    def _attention(self, x: Tensor, table: Tensor) -> Tensor:
        """Return what every position gathers from those before it and itself."""
        groups = self.config.heads // self.config.kv_heads
        q = rotate(self._split_heads(self.attn_q(x)), table)
        k = rotate(self._split_heads(self.attn_k(x)), table).repeat_interleave(groups, 1)
        v = self._split_heads(self.attn_v(x)).repeat_interleave(groups, 1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.attn_output(y.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        """Turn (batch, length, heads * head_width) into (batch, heads, length, head_width)."""
        return x.unflatten(-1, (-1, self.config.head_width)).transpose(1, 2)


class TinyChat(nn.Module):
    """Decoder with tied embeddings; parameter names are those of the GGUF tensors."""

    rope: Tensor

    def __init__(self, config: Config) -> None:
        """Create and initialise the layers."""
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocab, config.width)
        self.blk = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output_norm = nn.RMSNorm(config.width, config.eps)
        self.register_buffer("rope", rope_table(config), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw the matrices; those that write to the residual stream are smaller, as their sum grows with depth."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                residual = name.endswith(("attn_output.weight", "ffn_down.weight"))
                nn.init.normal_(parameter, std=0.02 / (2 * self.config.layers) ** 0.5 if residual else 0.02)

    def forward(self, ids: Tensor, picked: Tensor | None = None) -> Tensor:
        """Return the logits.

        Args:
            ids: Tokens, of shape (batch, length).
            picked: Positions in the flattened batch that logits are wanted of, all of them by default.

        Returns:
            Logits of shape (batch, length, vocab), or (picked, vocab).
        """
        x = self.token_embd(ids)
        table = self.rope[:, : ids.shape[1]]
        for block in self.blk:
            x = block(x, table)
        if picked is not None:
            x = x.flatten(0, 1)[picked]
        return nn.functional.linear(self.output_norm(x), self.token_embd.weight)
