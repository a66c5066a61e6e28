"""Llama models of one layer, in any shape, for tests of kernels and of the binding."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from .files import N_VOCAB, copy_tokenizer, finish


def write_one_layer(
    path: Path,
    *,
    nan: bool = False,
    n_vocab: int | None = None,
    n_head: int = 4,
    n_head_kv: int = 4,
    head_width: int = 8,
    n_ff: int = 64,
    quantized: bool = False,
    rope_scaling: str | None = None,
) -> Path:
    """Write a llama model of one layer.

    Args:
        path: The file to write.
        nan: Damage its last norm.
        n_vocab: Leave the vocabulary out, and have that many tokens.
        n_head: Heads of the attention.
        n_head_kv: Those of keys and values.
        head_width: Width of each.
        n_ff: Width of the feed-forward network.
        quantized: Have matrices of the type Q4_0.
        rope_scaling: What it says about the scaling of positions.

    Returns:
        The path.
    """
    width = n_head * head_width
    writer = gguf.GGUFWriter(path, "llama")
    if n_vocab is None:
        copy_tokenizer(writer)
    else:
        writer.add_tokenizer_model("no_vocab")
        writer.add_vocab_size(n_vocab)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    if rope_scaling is not None:
        writer.add_string("llama.rope.scaling.type", rope_scaling)
    writer.add_tensor("output_norm.weight", np.full(width, np.nan if nan else 1.0, np.float32))
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{norm}.weight", np.ones(width, np.float32))
    rng = np.random.default_rng(0)
    for name, shape in _matrices(n_vocab or N_VOCAB, width, n_head_kv * head_width, n_ff).items():
        scale = 0.3 if ".attn_" in name else 0.1  # an average over all tokens would be the same for most
        tensor = rng.standard_normal(shape).astype(np.float32) * scale
        if quantized:
            q4_0 = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, q4_0), raw_dtype=q4_0)
        else:
            writer.add_tensor(name, tensor)
    return finish(writer, path)


def _matrices(n_vocab: int, width: int, kv_width: int, n_ff: int) -> dict[str, tuple[int, int]]:
    shapes = {
        "token_embd.weight": (n_vocab, width),
        "output.weight": (n_vocab, width),
        "blk.0.ffn_gate.weight": (n_ff, width),
        "blk.0.ffn_up.weight": (n_ff, width),
        "blk.0.ffn_down.weight": (width, n_ff),
    }
    shapes |= {f"blk.0.attn_{part}.weight": (width, width) for part in ("q", "output")}
    return shapes | {f"blk.0.attn_{part}.weight": (kv_width, width) for part in ("k", "v")}
