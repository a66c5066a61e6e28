"""The sampling that a model's file recommends is the default where the caller gives no other."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama import LLM, ConfigError, GenerationConfig
from cyllama.config import SAMPLERS
from cyllama.engine.sampling import sampler_maker
from cyllama.recommended import RecommendedSampling
from langchain_cyllama import ChatCyllama

from .support.command import run
from .support.random_models import write_random_model

START = "Once upon a time"
KEYS: dict[str, str | int | float] = {
    "temp": 1.5,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.0,
    "xtc_probability": 0.25,
    "xtc_threshold": 0.2,
    "penalty_last_n": 32,
    "penalty_repeat": 1.05,
    "mirostat": 0,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
    "sequence": "penalties;top-k;temp;nucleus;minp;xtc",
}
MEANT: dict[str, Any] = {
    "temperature": 1.5,
    "top_k": 20,
    "top_p": 0.8,
    "min_p": 0.0,
    "xtc_probability": 0.25,
    "xtc_threshold": 0.2,
    "penalty_last_n": 32,
    "repeat_penalty": 1.05,
    "mirostat": 0,
    "mirostat_tau": 4.0,
    "mirostat_eta": 0.2,
    "samplers": ("penalties", "top_k", "temperature", "top_p", "min_p", "xtc"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Write two models of the same weights, of which the first recommends nothing and the second does."""
    folder = tmp_path_factory.mktemp("recommended")
    return (
        write_random_model(folder / "plain.gguf", "llama"),
        write_random_model(folder / "recommends.gguf", "llama", recommended=KEYS),
    )


def chain(llm: LLM, config: GenerationConfig) -> list[str]:
    return sampler_maker(config, llm.model.vocab, 256)([1]).names


def test_every_key_is_the_default_of_its_option(files: tuple[Path, Path]):
    with LLM(files[1], max_tokens=8) as llm:
        assert llm.recommended_sampling == MEANT
        assert {name: getattr(llm.config, name) for name in MEANT} == MEANT
        assert chain(llm, llm.config) == ["penalties", "top-k", "temp", "top-p", "xtc", "dist"]
        assert llm.config.max_tokens == 8


def test_a_generation_is_that_of_the_options_by_name(files: tuple[Path, Path]):
    options: dict[str, Any] = {"n_threads": 1, "max_tokens": 24, "seed": 5}
    with LLM(files[0], **options) as plain, LLM(files[1], **options) as recommends:
        said = recommends(START)
        assert said == plain(START, **MEANT) != plain(START)
        assert recommends(START, **{name: getattr(plain.config, name) for name in MEANT}) == plain(START)
        history = [{"role": "user", "content": "Hi"}]
        assert recommends.chat(history).text == plain.chat(history, **MEANT).text


def test_what_the_caller_gives_counts_even_if_it_is_the_usual_value(files: tuple[Path, Path]):
    usual = GenerationConfig()
    with LLM(files[1], temperature=usual.temperature, config={"top_k": usual.top_k}, n_threads=1) as llm:
        assert (llm.config.temperature, llm.config.top_k, llm.config.top_p) == (usual.temperature, usual.top_k, 0.8)
    with LLM(files[1], GenerationConfig(top_p=0.5), n_threads=1, max_tokens=6) as llm:
        assert (llm.config.temperature, llm.config.top_p) == (1.5, 0.5)
        greedy = llm(START, temperature=0, repeat_penalty=1.0)
        assert greedy == llm(START, {"temperature": 0, "repeat_penalty": 1.0})
        assert greedy == llm(START, GenerationConfig(temperature=0, repeat_penalty=1.0, max_tokens=6))


def test_a_sampler_that_the_order_leaves_out_comes_back_with_its_option(files: tuple[Path, Path]):
    with LLM(files[1], typical_p=0.9, n_threads=1) as llm:
        assert "typ_p" in llm.config.samplers
        assert "typical" in chain(llm, llm.config)
        own = llm.config.merge(samplers=["top_k"])
        assert chain(llm, own) == ["top-k", "dist"]


@given(st.lists(st.sampled_from(SAMPLERS), min_size=1, unique=True), st.sets(st.sampled_from(["typical_p", "top_k"])))
def test_an_order_keeps_its_order(order: list[str], names: set[str]):
    recommended = RecommendedSampling({"general.sampling.sequence": ";".join(order)})
    options: dict[str, Any] = {name: {"typical_p": 0.5, "top_k": 3}[name] for name in names}
    samplers = recommended.under(GenerationConfig(**options)).samplers
    assert [name for name in samplers if name in order] == order
    assert set(samplers) == {*order, *({"typical_p": "typ_p", "top_k": "top_k"}[name] for name in names)}


def test_a_model_that_recommends_nothing_is_as_before(llm: LLM):
    assert llm.recommended_sampling == {}
    assert llm.config == GenerationConfig(temperature=0)


@pytest.mark.parametrize(
    ("key", "value", "option", "meant"),
    [
        ("temp", "-1.000000", "temperature", 0.0),
        ("top_k", "-1", "top_k", 0),
        ("top_p", "1.500000", "top_p", None),
        ("top_p", "nan", "top_p", None),
        ("min_p", "often", "min_p", None),
        ("mirostat", "3", "mirostat", None),
        ("penalty_repeat", "0.000000", "repeat_penalty", None),
        ("penalty_last_n", "-1", "penalty_last_n", -1),
        ("temp", "1e99", "temperature", None),
        ("sequence", "infill;adaptive_p", "samplers", None),
        ("sequence", "top_k; TEMP ;unknown", "samplers", ("top_k", "temperature")),
    ],
)
def test_a_value_that_is_not_valid_is_left_out(
    key: str, value: str, option: str, meant: Any, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "cyllama"):
        options = RecommendedSampling({f"general.sampling.{key}": value}).options
    assert options == ({} if meant is None else {option: meant})
    assert len(caplog.records) == (meant is None)
    if meant is None:
        assert f"general.sampling.{key}" in caplog.text


def test_metadata_that_is_overridden_counts(files: tuple[Path, Path]):
    with LLM(files[1], kv_overrides={"general.sampling.temp": 0.25}, n_threads=1) as llm:
        assert llm.config.temperature == 0.25


def test_an_order_of_samplers_is_an_option_like_any_other(llm: LLM):
    config = GenerationConfig(samplers=["temperature", "top_k", "penalties"], repeat_penalty=1.1)
    assert chain(llm, config) == ["temp", "top-k", "penalties", "dist"]
    assert chain(llm, config.merge(temperature=0)) == ["penalties", "greedy"]
    assert chain(llm, GenerationConfig(samplers=())) == ["dist"]
    assert GenerationConfig().samplers == SAMPLERS
    with pytest.raises(ConfigError, match=r"samplers\.1: .*'typ_p'.*not 'top_q'"):
        GenerationConfig(samplers=["top_k", "top_q"])  # pyright: ignore[reportArgumentType]


def test_langchain_and_the_command_line_follow_the_file(files: tuple[Path, Path]):
    options: dict[str, Any] = {"n_threads": 1, "max_tokens": 12, "seed": 5}
    plain, recommends = (ChatCyllama(model_path=file, **options) for file in files)
    said = recommends.invoke("Hi").text
    assert said == plain.invoke("Hi", **MEANT).text != plain.invoke("Hi").text
    assert recommends._get_ls_params().get("ls_temperature") == 1.5
    answers = [
        json.loads(run("-m", str(file), "--json", "-n", "12", "--seed", "5", *more, "Hi").stdout)["text"]
        for file, more in ((files[0], ()), (files[1], ()), (files[1], ("--temperature", "0")))
    ]
    assert len(set(answers)) == 3
    assert "general.sampling.temp" in run("info", "-m", str(files[1])).stdout
