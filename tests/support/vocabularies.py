"""Vocabularies of all kinds of tokenizers, with control tokens that are hard to tell from text."""

from __future__ import annotations

from pathlib import Path

import gguf

from cyllama.llama.llama_cpp import LlamaModel, LlamaModelParams

from .random_models import finish

_KINDS = gguf.TokenType
CONTROL = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im|>",
    "<|end|>",
    "<|object_ref_start|>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<start_of_turn>",
    "<end_of_turn>",
    "<｜tool▁call▁begin｜>",
    "<｜User｜>",
    "endoftext",
    "␃",
)
UNKNOWN = "<unk>"
USER_DEFINED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "[img]")
_LETTERS = tuple(chr(c) for c in range(33, 127))
_WORDS = ("the", "or", "ll", "im", "end", "user", "end|>", "<|")


def _tokens() -> list[tuple[str, int]]:
    tokens = [(UNKNOWN, _KINDS.UNKNOWN), *((text, _KINDS.CONTROL) for text in CONTROL)]
    return [*tokens, *((text, _KINDS.USER_DEFINED) for text in USER_DEFINED)]


def _add_sentencepiece(writer: gguf.GGUFWriter) -> list[tuple[str, int]]:
    writer.add_tokenizer_model("llama")
    writer.add_add_space_prefix(True)
    tokens = [*_tokens(), *((f"<0x{byte:02X}>", _KINDS.BYTE) for byte in range(256))]
    return [*tokens, *((text, _KINDS.NORMAL) for text in ("\u2581", "\u2581the", *_LETTERS, *_WORDS))]


def _add_unigram(writer: gguf.GGUFWriter) -> list[tuple[str, int]]:
    writer.add_tokenizer_model("t5")
    writer.add_add_space_prefix(True)
    return [*_tokens(), *((text, _KINDS.NORMAL) for text in ("\u2581", "\u2581the", *_LETTERS, *_WORDS))]


def _add_wordpiece(writer: gguf.GGUFWriter) -> list[tuple[str, int]]:
    writer.add_tokenizer_model("bert")
    writer.add_sep_token_id(2)
    words = (*(f"\u2581{text}" for text in (*_LETTERS, *_WORDS)), *_LETTERS)
    return [*_tokens(), *((text, _KINDS.NORMAL) for text in words)]


def _add_rwkv(writer: gguf.GGUFWriter) -> list[tuple[str, int]]:
    writer.add_tokenizer_model("rwkv")
    bytes_ = (f"\\x{byte:02x}" for byte in range(256))
    return [*_tokens(), *((text, _KINDS.NORMAL) for text in (*bytes_, *_WORDS))]


def _byte_letters() -> list[str]:
    """Return what GPT-2 writes for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    return [chr(byte) for byte in printable] + [chr(256 + i) for i, _ in enumerate(others)]


def _add_bytes_of_gpt2(writer: gguf.GGUFWriter) -> list[tuple[str, int]]:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_merges(["t h", "th e", "o r", "l l", "i m", "e n", "en d", "< |", "end |"])
    merged = ("th", "the", "or", "ll", "im", "en", "end", "<|", "end|")
    return [*_tokens(), *((text, _KINDS.NORMAL) for text in (*_byte_letters(), *merged))]


_KINDS_OF_VOCABULARIES = {
    "SPM": _add_sentencepiece,
    "BPE": _add_bytes_of_gpt2,
    "UGM": _add_unigram,
    "WPM": _add_wordpiece,
    "RWKV": _add_rwkv,
}
VOCABULARIES = tuple(_KINDS_OF_VOCABULARIES)


def load_vocabulary(path: Path, kind: str, chat_template: str) -> LlamaModel:
    """Write a file with a vocabulary and no weights, and load it."""
    writer = gguf.GGUFWriter(path, "llama")
    tokens = _KINDS_OF_VOCABULARIES[kind](writer)
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([float(len(text)) if kind == _KINDS.NORMAL else 0.0 for text, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(chat_template)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    finish(writer, path)
    params = LlamaModelParams()
    params.vocab_only = True
    return LlamaModel(path, params)


def write_byte_vocabulary(path: Path, pre: str) -> Path:
    """Write a file with a vocabulary of the 256 bytes alone, that pre-tokenizer and no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*_byte_letters(), "<eos>"])
    writer.add_token_types([_KINDS.NORMAL] * 256 + [_KINDS.CONTROL])
    writer.add_token_merges(["a a"])
    writer.add_eos_token_id(256)
    return finish(writer, path)
