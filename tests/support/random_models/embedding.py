"""Models that embed or rank texts, or translate them: with an encoder."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from .architectures import N_CTX_TRAIN
from .files import N_VOCAB, copy_tokenizer, finish
from .tensors import N_EMBD, N_FF, N_HEAD, Tensors, add_feed_forward, add_layer_norm

BERT_N_CTX = 128  # positions that a random BERT has
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = ".,:;!?'-()"
_WORDS = ("the", "fox", "an", "animal", "sleeps", "rests", "hello", "world", "what", "do", "foxes", "eat", "mice")


def write_random_bert(
    path: Path,
    *,
    pooling: gguf.PoolingType | int | None = gguf.PoolingType.MEAN,
    causal: bool | None = False,
    seed: int = 0,
    nan: bool = False,
) -> Path:
    """Write an embedding model of 1 MB with a WordPiece vocabulary, or a rank model.

    Args:
        path: The file to write.
        pooling: What it says about pooling; with ``RANK``, it gets a head that makes one number.
        causal: What it says about attention; ``None`` for nothing, as if it generated text.
        seed: Of the weights.
        nan: Damage its weights.

    Returns:
        The path.
    """
    writer = gguf.GGUFWriter(path, "bert")
    n_vocab = _add_wordpiece(writer)
    writer.add_name("random-bert")
    writer.add_context_length(BERT_N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(2)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(1e-6)
    writer.add_token_type_count(2)
    if causal is not None:
        writer.add_causal_attention(causal)
    if pooling is not None:
        writer.add_uint32("bert.pooling_type", int(pooling))

    tensors = Tensors(writer, seed)
    tensors.normal("token_embd.weight", (n_vocab, N_EMBD), 1.0)
    tensors.normal("position_embd.weight", (BERT_N_CTX, N_EMBD), 0.5)
    tensors.normal("token_types.weight", (2, N_EMBD), 0.1)
    add_layer_norm(tensors, "token_embd_norm")
    for i in range(2):
        block = f"blk.{i}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.normal(f"{block}.{part}.weight", (N_EMBD, N_EMBD), 1.5 * N_EMBD**-0.5)
            tensors.normal(f"{block}.{part}.bias", (N_EMBD,), 0.1)
        add_layer_norm(tensors, f"{block}.attn_output_norm")
        tensors.normal(f"{block}.ffn_up.weight", (N_FF, N_EMBD))
        tensors.normal(f"{block}.ffn_up.bias", (N_FF,), 0.1)
        tensors.normal(f"{block}.ffn_down.weight", (N_EMBD, N_FF))
        tensors.normal(f"{block}.ffn_down.bias", (N_EMBD,), 0.1)
        add_layer_norm(tensors, f"{block}.layer_output_norm", np.nan if nan and i else 1.0)
    if pooling == gguf.PoolingType.RANK:
        tensors.normal("cls.weight", (N_EMBD, N_EMBD))
        tensors.normal("cls.bias", (N_EMBD,), 0.1)
        tensors.normal("cls.output.weight", (1, N_EMBD))
        tensors.normal("cls.output.bias", (1,), 0.1)
    return finish(writer, path)


def write_random_t5_encoder(path: Path, seed: int = 0) -> Path:
    """Write the encoder of a T5, which is evaluated with ``llama_encode`` and says nothing about pooling."""
    writer = gguf.GGUFWriter(path, "t5encoder")
    copy_tokenizer(writer, {})
    writer.add_name("random-t5encoder")
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(1)
    writer.add_head_count(N_HEAD)
    writer.add_key_length(N_EMBD // N_HEAD)
    writer.add_value_length(N_EMBD // N_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    tensors, block = Tensors(writer, seed), "enc.blk.0"
    tensors.normal("token_embd.weight", (N_VOCAB, N_EMBD), 1.0)
    tensors.ones("enc.output_norm.weight", N_EMBD)
    tensors.normal(f"{block}.attn_rel_b.weight", (32, N_HEAD))
    tensors.ones(f"{block}.attn_norm.weight", N_EMBD)
    for part in "qkvo":
        tensors.normal(f"{block}.attn_{part}.weight", (N_EMBD, N_EMBD), 0.5 * N_EMBD**-0.5)
    add_feed_forward(tensors, block)
    return finish(writer, path)


def write_random_t5(path: Path, seed: int = 0) -> Path:
    """Write an encoder-decoder model of one block on each side."""
    writer = gguf.GGUFWriter(path, "t5")
    copy_tokenizer(writer)
    writer.add_name("random-t5")
    writer.add_context_length(512)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(1)
    writer.add_head_count(N_HEAD)
    writer.add_key_length(N_EMBD // N_HEAD)
    writer.add_value_length(N_EMBD // N_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_relative_attn_buckets_count(32)
    writer.add_decoder_start_token_id(0)
    tensors = Tensors(writer, seed)
    tensors.normal("token_embd.weight", (N_VOCAB, N_EMBD), 1.0)
    tensors.normal("output.weight", (N_VOCAB, N_EMBD), 0.4)
    for side in ("enc", "dec"):
        block = f"{side}.blk.0"
        tensors.ones(f"{side}.output_norm.weight", N_EMBD)
        tensors.normal(f"{block}.attn_rel_b.weight", (32, N_HEAD))
        _t5_attention(tensors, block, "attn")
        add_feed_forward(tensors, block)
    _t5_attention(tensors, "dec.blk.0", "cross_attn")
    return finish(writer, path)


def _t5_attention(tensors: Tensors, block: str, name: str) -> None:
    tensors.ones(f"{block}.{name}_norm.weight", N_EMBD)
    for part in "qkvo":
        tensors.normal(f"{block}.{name}_{part}.weight", (N_EMBD, N_EMBD), 0.5 * N_EMBD**-0.5)


def _add_wordpiece(writer: gguf.GGUFWriter) -> int:
    """Add a vocabulary of a few words, and of letters to begin and to continue others with; return its size."""
    kinds = gguf.TokenType
    tokens = [(f"[{name}]", kinds.CONTROL) for name in ("PAD", "CLS", "SEP", "MASK")] + [("[UNK]", kinds.UNKNOWN)]
    tokens += [(f"\u2581{text}", kinds.NORMAL) for text in (*_LETTERS, *_MARKS, *_WORDS)]
    tokens += [(text, kinds.NORMAL) for text in (*_LETTERS, "es", "ing")]
    writer.add_tokenizer_model("bert")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    ids = {text: i for i, (text, _) in enumerate(tokens)}
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_mask_token_id(ids["[MASK]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    return len(tokens)
