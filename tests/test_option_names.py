"""Options by the names and with the values that other programs have for them."""

from __future__ import annotations

from typing import Any

import pytest

from cyllama import LLM, ConfigError, ConfigTypeError, GenerationConfig, ModelConfig
from cyllama.option_names import HINTS

MESSAGES = [{"role": "user", "content": "Count from 3 to 7."}]


@pytest.mark.parametrize("stop", [",", [","], (",",)])
def test_stop_is_another_name_of_stop_sequences(stop: Any):
    with LLM(temperature=0, max_tokens=16) as llm:
        expected = llm.chat(MESSAGES, stop_sequences=stop).text
        assert expected == "3"
        assert llm.chat(MESSAGES, stop=stop).text == expected
        assert llm.chat(MESSAGES, {"stop": stop}).text == expected
        prompt = llm.render(MESSAGES)
        assert llm(prompt, stop=stop) == llm(prompt, {"stop": stop}) == llm.session("a")(prompt, stop=stop) == expected
    with LLM(temperature=0, stop=stop) as llm:
        assert llm.chat(MESSAGES).text == expected
        assert llm.chat(MESSAGES, stop="5").text == "3, 4, ", "a call's replaces that of the LLM"
    assert GenerationConfig(**{"stop": stop}) == GenerationConfig(stop_sequences=stop)
    assert GenerationConfig(stop_sequences="x").merge(stop=stop).stop_sequences == (",",)


def test_an_option_is_given_by_one_of_its_names(llm: LLM):
    for call in (llm, lambda text, **options: llm.chat(MESSAGES, **options), LLM):
        with pytest.raises(ConfigTypeError, match="stop and stop_sequences are the same option"):
            call("Hello", stop=".", stop_sequences=".")


def test_numbers_that_mean_none_elsewhere_mean_it_here(llm: LLM):
    config = GenerationConfig(seed=-1, max_tokens=-1, n_ctx=0)
    assert (config.seed, config.max_tokens, config.n_ctx) == (None, None, None)
    assert {"seed", "max_tokens", "n_ctx"} <= config.model_fields_set, "it replaces what an LLM was given"
    assert ModelConfig(n_threads=0, n_threads_batch=-1) == ModelConfig(n_threads=None, n_threads_batch=None)
    assert llm("Once upon a time", max_tokens=-1, n_ctx=64).usage.total_tokens == 64
    with LLM(temperature=0, n_ctx=8) as small:
        assert small("Once upon a time", n_ctx=0, max_tokens=16).finish_reason == "length"


@pytest.mark.parametrize(("name", "value"), [("seed", -2), ("max_tokens", -3), ("n_ctx", -1), ("seed", -1.0)])
def test_other_numbers_are_out_of_range(name: str, value: float):
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=name):
        GenerationConfig(**options)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("model", "the first argument, model_path"),
        ("path", "the first argument, model_path"),
        ("context_size", "did you mean 'n_ctx'"),
        ("temp", "did you mean 'temperature'"),
        ("threads", "did you mean 'n_threads'"),
        ("use_mmap", "load_mode"),
        ("lora_path", "load_lora"),
        ("prompt_lookup", "speculation='lookup'"),
        ("assistant_model", "did you mean 'draft_model'"),
        ("cache_prompt", "did you mean 'prefix_cache'"),
    ],
)
def test_other_programs_names_get_a_hint_of_ours(name: str, hint: str):
    options: dict[str, Any] = {name: 1}
    with pytest.raises(ConfigTypeError, match=hint):
        LLM(**options)


@pytest.mark.parametrize("name", ["user", "cache", "pipelining", "mode"])
def test_a_name_that_nothing_is_near_to_gets_no_hint(name: str):
    options: dict[str, Any] = {name: 1}
    with pytest.raises(ConfigTypeError, match=f"'{name}'$"):
        GenerationConfig(**options)


def test_no_hint_is_for_an_option_that_exists_and_each_suggests_one():
    known = {*GenerationConfig.model_fields, *ModelConfig.model_fields, "stop"}
    assert not known & HINTS.keys()
    for hint in HINTS.values():
        if hint.startswith("did you mean"):
            assert hint.split("'")[1] in known | {"tools", "tool_choice", "enable_thinking"}
