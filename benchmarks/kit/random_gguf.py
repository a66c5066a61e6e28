"""Llama-architecture GGUF files of any size, with random weights.

The tokenizer and the chat template are copied from another GGUF file and padded with filler tokens to the size of the
vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np

TINY_CHAT = Path(__file__).resolve().parents[2] / "cyllama" / "models" / "tiny-chat.gguf"
FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}  # llama.cpp's llama_ftype
SUPER_BLOCK = 256  # weights of a block of the K types


class Shape(NamedTuple):
    """Sizes of a model."""

    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_vocab: int


PRESETS = {
    "5m": Shape(8, 64, 16, 16, 256, 32000),
    "0.5b": Shape(24, 896, 14, 2, 4864, 151936),
    "1b": Shape(22, 2048, 32, 4, 5632, 32000),
    "8b": Shape(32, 4096, 32, 8, 14336, 128256),
}


def write_model(path: Path, shape: Shape, file_type: str, *, tokenizer: Path, n_ctx: int, seed: int, name: str) -> None:
    """Write a model of random weights.

    Args:
        path: The file to write.
        shape: Its sizes.
        file_type: A key of ``FILE_TYPES``.
        tokenizer: A GGUF whose tokenizer and chat template it gets.
        n_ctx: Context length that it claims to be trained for.
        seed: Of the weights.
        name: Written to its metadata.
    """
    writer = gguf.GGUFWriter(str(path), "llama")
    n_vocab = _copy_tokenizer(writer, tokenizer, shape.n_vocab)
    _write_metadata(writer, shape._replace(n_vocab=n_vocab), file_type, n_ctx, name)
    _write_tensors(writer, shape._replace(n_vocab=n_vocab), file_type, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_tokenizer(writer: gguf.GGUFWriter, source: Path, n_vocab: int) -> int:
    """Copy every ``tokenizer.*`` key, padding the lists of tokens; return the size of the vocabulary."""
    padding = {
        "tokenizer.ggml.tokens": lambda i: f"\u0120w{i}",  # a word with its leading space, in GPT-2's byte alphabet
        "tokenizer.ggml.scores": lambda _: -1e9,
        "tokenizer.ggml.token_type": lambda _: int(gguf.TokenType.NORMAL),
    }
    for key, field in gguf.GGUFReader(str(source)).fields.items():
        if not key.startswith("tokenizer."):
            continue
        value, types = field.contents(), field.types
        if key in padding:
            value = list(value) + [padding[key](i) for i in range(len(value), n_vocab)]
            n_vocab = len(value)
        item_type = types[-1] if types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, types[0], sub_type=item_type)
    return n_vocab


def _write_metadata(writer: gguf.GGUFWriter, shape: Shape, file_type: str, n_ctx: int, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_head)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)


def _write_tensors(writer: gguf.GGUFWriter, shape: Shape, file_type: str, rng: np.random.Generator) -> None:
    n_layer, n_embd, n_head, n_head_kv, n_ff, n_vocab = shape
    kv_width, std = n_head_kv * (n_embd // n_head), n_embd**-0.5

    def matrix(tensor: str, rows: int, cols: int, std: float, *, precise: bool = False) -> None:
        data, kind = _random_matrix(rng, rows, cols, std, _type_of(file_type, cols, precise=precise))
        writer.add_tensor(f"{tensor}.weight", data, raw_dtype=kind)

    def ones(tensor: str) -> None:
        writer.add_tensor(f"{tensor}.weight", np.ones(n_embd, np.float32))

    matrix("token_embd", n_vocab, n_embd, 0.02)
    ones("output_norm")
    matrix("output", n_vocab, n_embd, 0.05, precise=True)
    for i in range(n_layer):
        precise = i < n_layer // 8 or i >= 7 * n_layer // 8 or (i - n_layer // 8) % 3 == 2
        ones(f"blk.{i}.attn_norm")
        ones(f"blk.{i}.ffn_norm")
        matrix(f"blk.{i}.attn_q", n_embd, n_embd, std)
        matrix(f"blk.{i}.attn_k", kv_width, n_embd, std)
        matrix(f"blk.{i}.attn_v", kv_width, n_embd, std, precise=precise)
        matrix(f"blk.{i}.attn_output", n_embd, n_embd, std)
        matrix(f"blk.{i}.ffn_gate", n_ff, n_embd, std)
        matrix(f"blk.{i}.ffn_up", n_ff, n_embd, std)
        matrix(f"blk.{i}.ffn_down", n_embd, n_ff, n_ff**-0.5, precise=precise)


def _type_of(file_type: str, cols: int, *, precise: bool) -> str:
    """Return the type of a matrix as llama.cpp chooses it: more bits where they matter most, in rows that fit."""
    if file_type != "Q4_K_M":
        return file_type
    if cols % SUPER_BLOCK:
        return "Q8_0" if precise else "Q5_0"
    return "Q6_K" if precise else "Q4_K"


def _random_matrix(
    rng: np.random.Generator, rows: int, cols: int, std: float, kind: str
) -> tuple[np.ndarray, gguf.GGMLQuantizationType | None]:
    """Return random weights of a standard deviation, in the layout of ``kind`` on disk."""
    if kind == "F16":
        return (rng.standard_normal((rows, cols), dtype=np.float32) * std).astype(np.float16), None
    weights_per_block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (rows, cols // weights_per_block, n_bytes), dtype=np.uint8)

    def fill(place: int, value: float) -> None:
        blocks[:, :, place : place + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)

    if kind == "Q4_0":
        fill(0, std / 4.6)
    elif kind == "Q5_0":
        fill(0, std / 9.2)
    elif kind == "Q8_0":
        fill(0, std / 73)
        quants = blocks[:, :, 2:].view(np.int8)
        np.maximum(quants, -127, out=quants)
    elif kind == "Q4_K":
        fill(0, std / 147)  # all scales and minima are 32, in 6 bits each
        fill(2, 7.5 * std / 147)
        blocks[:, :, 4:12], blocks[:, :, 12:16] = 160, 0
    else:
        blocks[:, :, 192:208] = 32
        fill(208, std / 592)
    return blocks.reshape(rows, -1), gguf.GGMLQuantizationType[kind]
