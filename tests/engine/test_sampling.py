"""Every sampling option does what its name says, in a real generation."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Literal

import pytest

from cyllama import LLM, GenerationConfig
from cyllama.engine.sampling import sampler_maker

START = "Once upon a time"
CAPITAL = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def chain(llm: LLM, **options: Any) -> list[str]:
    return sampler_maker(GenerationConfig(**options), llm.model.vocab, 256)([1, 2, 3]).names


def test_the_default_chain_is_llama_cpps(llm: LLM):
    assert chain(llm) == ["top-k", "top-p", "min-p", "temp", "dist"]


def test_temperature_zero_is_greedy_and_nothing_else(llm: LLM):
    assert chain(llm, temperature=0) == ["greedy"]


def test_everything_together_comes_in_llama_cpps_order(llm: LLM):
    names = chain(
        llm,
        logit_bias={1: 1.0},
        repeat_penalty=1.1,
        dry_multiplier=0.8,
        top_n_sigma=1.0,
        typical_p=0.9,
        xtc_probability=0.5,
    )
    assert names == [
        *("logit-bias", "penalties", "dry", "top-n-sigma", "top-k", "typical", "top-p", "min-p", "xtc", "temp", "dist")
    ]


@pytest.mark.parametrize(("mirostat", "name"), [(1, "mirostat"), (2, "mirostat-v2")])
def test_mirostat_replaces_the_rest(llm: LLM, mirostat: Literal[1, 2], name: str):
    assert chain(llm, mirostat=mirostat) == ["temp", name]
    assert len(llm(START, mirostat=mirostat, seed=1, max_tokens=20)) > 0


def test_the_same_seed_gives_the_same_text_and_another_another(llm: LLM):
    texts = [llm(START, temperature=1.5, seed=seed, max_tokens=20) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_top_k_of_one_is_greedy_at_any_temperature(llm: LLM):
    assert llm(START, temperature=5, top_k=1, max_tokens=20) == llm(START, temperature=0, max_tokens=20)


def test_a_tiny_top_p_is_greedy_too(llm: LLM):
    assert llm(START, temperature=1, top_p=1e-6, min_p=0, max_tokens=20) == llm(START, temperature=0, max_tokens=20)


def test_a_bias_forces_or_forbids_a_token(llm: LLM):
    [token] = llm.tokenize(" Paris", parse_special=False)[:1]
    assert llm(CAPITAL, logit_bias={token: 1000.0}, max_tokens=3) == llm.detokenize([token] * 3)
    first = llm.tokenize(llm(CAPITAL))[0]
    assert llm.tokenize(llm(CAPITAL, logit_bias={first: -math.inf}, max_tokens=1))[0] != first


def test_ignore_eos_goes_on_to_max_tokens(llm: LLM):
    response = llm(CAPITAL, ignore_eos=True, max_tokens=60)
    assert (response.finish_reason, response.usage.completion_tokens) == ("length", 60)
    assert response.startswith("The capital of France is Paris.")


@pytest.mark.parametrize("option", ["repeat_penalty", "frequency_penalty", "presence_penalty"])
def test_penalties_make_repetition_rarer(llm: LLM, option: str):
    def most_frequent(**options: Any) -> int:
        text = llm("a a a a a a a a", temperature=0, ignore_eos=True, max_tokens=40, **options)
        return Counter(llm.tokenize(text)).most_common(1)[0][1]

    assert most_frequent(**{option: 1.9}) < most_frequent()


def test_penalties_look_at_the_prompt_too(llm: LLM):
    """With nothing else to look back at, the first token after the prompt shows whether the prompt was seen."""
    prompt = START * 3
    first = llm(prompt, temperature=0, max_tokens=1)
    ids = [*llm.tokenize(prompt), *llm.tokenize(first)]
    assert llm(ids, temperature=0, max_tokens=1) != llm(ids, temperature=0, max_tokens=1, presence_penalty=100.0) or (
        llm.tokenize(llm(ids, temperature=0, max_tokens=1))[0] not in ids
    )


def test_dry_stops_a_repetition(llm: LLM):
    answer = "The capital of France is Paris."
    asked_again = f"{CAPITAL}{answer}<|im_end|>\n{CAPITAL}"
    assert llm(asked_again, temperature=0) == answer
    dry = llm(asked_again, temperature=0, max_tokens=12, dry_multiplier=5.0, dry_penalty_last_n=-1)
    assert "capital of France" not in dry


def test_a_look_back_of_minus_one_is_the_whole_context(llm: LLM):
    assert llm(START, repeat_penalty=1.5, penalty_last_n=-1, temperature=0, max_tokens=10)
