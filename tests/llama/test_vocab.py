"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaModel, LlamaVocabType

from ..support.random_models import write_one_layer
from ..support.vocabularies import write_byte_vocabulary


def test_a_vocabulary_says_what_it_has(model: LlamaModel):
    vocab = model.vocab
    assert vocab.type == LlamaVocabType.BPE
    assert len(vocab) == vocab.n_tokens == 1280
    assert vocab.eos in vocab.eog_tokens()
    assert vocab.is_eog(vocab.eos)
    assert vocab.is_control(vocab.eos)
    assert not vocab.is_control(vocab.tokenize("fox", False)[0])
    assert vocab.get_text(vocab.eos).startswith("<|")
    assert vocab.suppress_tokens() == []


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=300))
def test_every_text_comes_back(model: LlamaModel, text: str):
    assert model.vocab.detokenize(model.vocab.tokenize(text, add_special=False)) == text.encode()


def test_pieces_make_up_the_text(model: LlamaModel, story: list[int]):
    assert b"".join(model.vocab.token_to_piece(token) for token in story) == model.vocab.detokenize(story)


def test_control_tokens_are_text_unless_asked_for(model: LlamaModel):
    vocab = model.vocab
    text = vocab.get_text(vocab.eos)
    assert vocab.tokenize(text, add_special=False, parse_special=True) == [vocab.eos]
    assert vocab.eos not in vocab.tokenize(text, add_special=False)
    assert vocab.token_to_piece(vocab.eos) == b""
    assert vocab.token_to_piece(vocab.eos, special=True) == text.encode()
    assert vocab.detokenize([vocab.eos], unparse_special=True) == text.encode()
    assert vocab.detokenize([]) == b""


@pytest.mark.parametrize("token", [-1, 1280, 2**31 - 1, -(2**31)])
def test_ids_out_of_range_are_refused(token: int, model: LlamaModel):
    vocab = model.vocab
    for use in (vocab.token_to_piece, vocab.get_text, vocab.get_score, vocab.get_attr, vocab.is_eog, vocab.is_control):
        with pytest.raises(ValueError, match="ids 0 to 1279"):
            use(token)
    with pytest.raises(ValueError, match="ids 0 to 1279"):
        vocab.detokenize([1, token])


def test_lone_surrogates_are_refused_and_nul_is_text(model: LlamaModel):
    with pytest.raises(UnicodeEncodeError):
        model.vocab.tokenize("a\ud800b")
    assert model.vocab.detokenize(model.vocab.tokenize("a\0b", False)) == b"a\0b"


@pytest.mark.parametrize("character", ["a", " ", "\n", "7", "!", "é", "中", "😀", "\0", "aB"])
def test_a_megabyte_of_one_character(character: str, model: LlamaModel):
    text = character * (1_000_000 // len(character.encode()))
    assert model.vocab.detokenize(model.vocab.tokenize(text, False)) == text.encode()


# One of every kind of regular expression; std::regex recurses for each character.
@pytest.mark.parametrize(
    "pre", ["default", "gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "falcon", "tekken", "gpt-4o", "bloom"]
)
def test_long_texts_do_not_overflow_the_stack(pre: str, tmp_path: Path, in_process: Callable[..., str]):
    code = f"""
vocab = LlamaModel({str(write_byte_vocabulary(tmp_path / "bytes.gguf", pre))!r}, vocab_only).vocab
for text in ("a", " ", "!", "\\n", "aB", " a"):
    text *= 100_000 // len(text)
    assert vocab.detokenize(vocab.tokenize(text, False)) == text.encode()
print("fine")
"""
    setup = "vocab_only = LlamaModelParams()\nvocab_only.vocab_only = True\nlogging.disable()\n"
    assert in_process(setup + code) == "fine\n"


def test_a_text_too_long_for_the_memory_is_an_error(in_process: Callable[..., str]):
    code = """
import resource
vocab = load().vocab
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
print(raised(vocab.tokenize, "a" * (2 << 20)))
print(len(vocab.tokenize("aa bb")) > 0)
"""
    out = in_process(code)
    assert "RuntimeError: the text is too long" in out
    assert out.endswith("True\n")


def test_a_model_without_a_vocabulary_of_text(tmp_path: Path, in_process: Callable[..., str]):
    code = f"""
vocab = LlamaModel({str(write_one_layer(tmp_path / "llama.gguf", n_vocab=100))!r}).vocab
print(len(vocab), vocab.type)
for use in (vocab.get_text, vocab.get_score, vocab.get_attr, vocab.is_eog, vocab.is_control, vocab.token_to_piece):
    print(raised(use, 5))
S = LlamaSampler
for use in (lambda: vocab.tokenize("a"), lambda: vocab.detokenize([5]), vocab.eog_tokens, lambda: S.infill(vocab),
            lambda: S.grammar(vocab, 'root ::= "a"'), lambda: S.dry(vocab, 1.0)):
    print(raised(use))
"""
    lines = in_process(code).splitlines()
    assert lines[0] == "100 LlamaVocabType.NONE"
    assert lines[1:] == ["RuntimeError: the model has no vocabulary of text"] * 12


def test_a_vocabulary_keeps_its_model(tiny_chat: Path):
    assert LlamaModel(tiny_chat).vocab.tokenize("Hello") != []
