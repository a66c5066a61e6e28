"""Whatever is wrong is refused with a typed error that names it, and the instance works afterwards."""

from __future__ import annotations

import math
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from cyllama import (
    LLM,
    ChatTemplateError,
    ConfigError,
    ConfigTypeError,
    ContextError,
    ContextMemoryError,
    ContextSizeError,
    CyllamaError,
    GenerationConfig,
    ModelAccessError,
    ModelConfig,
    ModelLoadError,
    ModelNotFoundError,
    PromptError,
    PromptTypeError,
)
from cyllama import errors as errors_module

from .support.random_models import write_random_model

CAPITAL = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(autouse=True)
def _usable_afterwards(llm: LLM):
    yield
    assert llm(CAPITAL) == "The capital of France is Paris."


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match=r"no model file at .*missing\.gguf"):
        LLM(tmp_path / "missing.gguf")
    with pytest.raises(FileNotFoundError):
        LLM("")


def test_a_path_that_is_no_unicode(tmp_path: Path):
    with pytest.raises(ModelNotFoundError):
        LLM(tmp_path / "model-\udcff.gguf")


def test_a_directory(tmp_path: Path):
    with pytest.raises(ModelAccessError, match="directory"):
        LLM(tmp_path)


def test_an_unreadable_file(tmp_path: Path, tiny_chat: Path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny_chat.read_bytes())
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ModelAccessError, match="Permission denied"):
            LLM(path)
    finally:
        os.seteuid(user)


def test_a_path_through_a_file(tiny_chat: Path):
    with pytest.raises(ModelAccessError, match="Not a directory"):
        LLM(tiny_chat / "model.gguf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty.*; the file is damaged or incomplete: download it again"),
        ("Dear diary, " * 1000, "not a GGUF file; download a GGUF file, or convert the model with llama.cpp"),
        ("version https://git-lfs.github.com/spec/v1\n", "not a GGUF file; it is a pointer of Git LFS: `git lfs pull`"),
        ("\n<!DOCTYPE html>", "not a GGUF file; it is a web page"),
    ],
)
def test_a_file_that_is_not_a_model(tmp_path: Path, content: str, message: str):
    path = tmp_path / "model.gguf"
    path.write_text(content)
    with pytest.raises(ModelLoadError, match=message):
        LLM(path)


def test_a_download_that_was_cut_says_what_to_do(tmp_path: Path, tiny_chat: Path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_chat.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError) as caught:
        LLM(path)
    reason = "tensor '...' data is not within the file bounds, model is corrupted or incomplete"
    expected = f"cannot load {path}: {reason}; the file is damaged or incomplete: download it again"
    assert re.sub(r"tensor '.*?'", "tensor '...'", str(caught.value)) == expected


def test_a_model_of_another_kind_says_which_build_this_is(tmp_path: Path):
    path = write_random_model(tmp_path / "model.gguf", "llama")
    path.write_bytes(path.read_bytes().replace(b"llama", b"lllam"))
    with pytest.raises(
        ModelLoadError, match=r"unknown model architecture: 'lllam'; llama.cpp b\d+, which this is, does"
    ):
        LLM(path)


@pytest.mark.parametrize("magic", [b"", b"GGUF", b"GGUF\x03\0\0\0"])
def test_random_bytes(tmp_path: Path, magic: bytes):
    path = tmp_path / "random.gguf"
    for seed in range(10):
        path.write_bytes(magic + random.Random(seed).randbytes(50_000))
        with pytest.raises(ModelLoadError):
            LLM(path)


@pytest.mark.parametrize("part", range(20))
def test_a_truncated_model(tmp_path: Path, tiny_chat: Path, part: int):
    data = tiny_chat.read_bytes()
    path = tmp_path / "truncated.gguf"
    # Half of the places are in the metadata, the first 2 %, where every field has its own way to be cut off.
    end = 5 + part * len(data) // 500 if part < 10 else part * len(data) // 20
    path.write_bytes(data[:end])
    with pytest.raises(ModelLoadError, match=r"truncated\.gguf"):
        LLM(path)


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("prompt", ["", [], ()])
def test_an_empty_prompt(llm: LLM, prompt: Any):
    with pytest.raises(PromptError, match="empty"):
        llm(prompt)


@pytest.mark.parametrize("prompt", [None, 5, b"bytes", {"role": "user"}, ["text"], [1.5], {1, 2}, object()])
def test_a_prompt_of_the_wrong_type(llm: LLM, prompt: Any):
    with pytest.raises(PromptTypeError):
        llm(prompt)


@pytest.mark.parametrize("token", [-1, 1280, 2**31, 2**63, -(2**40)])
def test_a_token_id_out_of_range(llm: LLM, token: int):
    with pytest.raises(PromptError, match=rf"{token} is out of range: the vocabulary has ids 0 to 1279"):
        llm([1, token])
    with pytest.raises(PromptError, match="out of range"):
        llm.detokenize([token])


def test_lone_surrogates(llm: LLM):
    with pytest.raises(PromptError, match="lone surrogate at index 2"):
        llm("ab\ud800cd")
    with pytest.raises(ConfigError, match=r"stop_sequences\.0"):
        llm("text", stop_sequences=["\udfff"])


def test_a_nul_is_a_character_like_any_other(llm: LLM):
    assert llm("ab\0cd", max_tokens=3).usage.prompt_tokens == llm.count_tokens("ab\0cd") > llm.count_tokens("ab")


@pytest.mark.parametrize("unit", ["a", " ", "7", "\n", "日", "word ", "'s", "\0"])
def test_a_prompt_of_a_megabyte(llm: LLM, unit: str):
    with pytest.raises(ContextSizeError, match=r"the prompt has \d+ tokens"):
        llm(unit * (1_000_000 // len(unit.encode())))


def test_a_prompt_longer_than_n_ctx(llm: LLM):
    with pytest.raises(
        ContextSizeError, match=r"has 17 tokens but n_ctx is 16: raise n_ctx in GenerationConfig or shorten"
    ):
        llm(CAPITAL, n_ctx=16)


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_ctx", -1),
        ("n_ctx", 2**31),
        ("n_ctx", 2**70),
        ("max_tokens", -2),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "5"),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 1e300),
        ("temperature", -0.1),
        ("temperature", "hot"),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("min_p", -0.5),
        ("repeat_penalty", 0),
        ("frequency_penalty", math.nan),
        ("penalty_last_n", -2),
        ("penalty_last_n", 2**31),
        ("mirostat", 3),
        ("seed", -2),
        ("seed", 2**32 - 1),
        ("n_batch", 0),
        ("n_batch", 2**40),
        ("stop_sequences", [""]),
        ("stop_sequences", [5]),
        ("dry_sequence_breakers", ["\ud800"]),
        ("logit_bias", {0: math.nan}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", [1]),
    ],
)
def test_a_generation_option_out_of_range(llm: LLM, name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"GenerationConfig\.{name}"):
        llm(CAPITAL, **{name: value})
    with pytest.raises(ConfigError):
        GenerationConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_gpu_layers", -2),
        ("n_threads", -2),
        ("n_threads", 10_000),
        ("split_mode", "diagonal"),
        ("load_mode", "fast"),
        ("type_k", "f8"),
        ("tensor_split", [-1.0]),
        ("rope_freq_base", math.inf),
        ("threadpool_poll", 101),
        ("n_ubatch", 0),
    ],
)
def test_a_model_option_out_of_range(tiny_chat: Path, name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"ModelConfig\.{name}"):
        LLM(tiny_chat, **{name: value})


def test_a_device_that_does_not_exist(tiny_chat: Path):
    with pytest.raises(ConfigError, match="no device 'TPU7': this build has CPU"):
        LLM(tiny_chat, devices=["TPU7"])


def test_a_bias_for_a_token_that_does_not_exist(llm: LLM):
    with pytest.raises(ConfigError, match="token id 5000 is out of range"):
        llm(CAPITAL, logit_bias={5000: 1.0})


@pytest.mark.parametrize("config", [5, "hot", ["temperature"], ModelConfig(), GenerationConfig])
def test_a_config_of_the_wrong_type(llm: LLM, tiny_chat: Path, config: Any):
    with pytest.raises(ConfigTypeError, match="expected a GenerationConfig or a dict"):
        llm(CAPITAL, config)
    with pytest.raises(ConfigTypeError):
        LLM(tiny_chat, config)
    with pytest.raises(ConfigTypeError):
        LLM(tiny_chat, model_config=5)  # type: ignore[arg-type]


def test_a_config_cannot_be_changed():
    config = GenerationConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.temperature = 1.0  # type: ignore[misc]


def test_a_context_far_beyond_memory(llm: LLM):
    with pytest.raises(ContextMemoryError, match=r"n_ctx=2000000000 tokens needs .* GiB .* smaller n_ctx") as caught:
        llm(CAPITAL, n_ctx=2_000_000_000)
    assert isinstance(caught.value, MemoryError)
    assert llm.stats.n_ctx == 0


def test_a_huge_batch_is_no_more_than_the_context(llm: LLM):
    assert llm(CAPITAL, n_batch=2_000_000_000) == "The capital of France is Paris."


def test_a_huge_max_tokens_ends_with_the_context(llm: LLM):
    assert llm(CAPITAL, max_tokens=2_000_000_000) == "The capital of France is Paris."


def test_a_quantized_v_cache_without_flash_attention(tiny_chat: Path):
    with LLM(tiny_chat, type_v="q8_0", flash_attn="disabled") as llm, pytest.raises(ContextError, match="flash_attn"):
        llm(CAPITAL)


# ----------------------------------------------------------------------------------------------------------------- chat


@pytest.mark.parametrize("messages", [[], [{}], [{"role": "user"}], ["hello"], [{"role": "user", "content": 5}]])
def test_messages_that_are_not_valid(llm: LLM, messages: Any):
    with pytest.raises(ChatTemplateError):
        llm.render(messages)


# --------------------------------------------------------------------------------------------------------------- errors


def test_every_error_is_ours_and_of_a_builtin_type():
    classes = [c for c in vars(errors_module).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) > 10
    for error in classes:
        assert issubclass(error, CyllamaError)
        if error is not CyllamaError:
            assert any(base.__module__ == "builtins" and base not in (Exception, object) for base in error.__mro__)


def test_a_context_larger_than_the_machine_is_a_memory_error_where_free_memory_cannot_be_told(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", lambda: None)
    with pytest.raises(ContextMemoryError, match=r"more than the machine's memory .* smaller n_ctx"):
        llm(CAPITAL, n_ctx=2_000_000_000)
