"""LoRA adapters: answers are those of merged weights."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cyllama import (
    LLM,
    GenerationConfig,
    Stream,
)
from cyllama.llama.llama_cpp import LlamaModel

from ...support.harness import Reference
from ...support.lora import NAMES, Files, some_tokens, write_files
from ...support.random_models import (
    write_merged_model,
)


def tokens_of(stream: Stream) -> list[int]:
    stream.read()
    return stream._request.tokens


def test_an_adapter_changes_the_answer_and_its_absence_does_not(lora_llm: LLM):
    prompt = some_tokens(20)
    without = lora_llm(prompt)
    answers = [lora_llm(prompt, lora={name: 1.0}) for name in NAMES]
    assert len({without, *answers}) == 4
    assert lora_llm(prompt, lora={"red": 0}) == lora_llm(prompt, lora={}) == without
    assert lora_llm(prompt, lora={"red": 0.0, "green": 1}) == answers[1]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "mamba", "jamba"])
def test_an_answer_is_that_of_a_model_with_the_adapters_in_its_weights(architecture: str, tmp_path: Path):
    files = write_files(tmp_path, architecture)
    scales = {"red": 0.8, "blue": -0.6}
    merged = write_merged_model(
        tmp_path / "merged.gguf", files.model, {files.adapters[n]: s for n, s in scales.items()}
    )
    reference = Reference(LlamaModel(merged))
    with files.load(lora=scales) as llm:
        for seed in range(8):
            with llm(some_tokens(30, seed), stream=True) as stream:
                tokens_of(stream)
            reference.check(stream._request)
    assert len(reference.near_ties) <= 1


def test_adapters_are_asked_for_in_every_way(files: Files):
    prompt, lora = "Once upon a time", {"red": 1.0}
    with files.load() as llm:
        expected, without = llm(prompt, lora=lora), llm(prompt)
        assert expected != without
        assert llm(prompt, GenerationConfig(lora=lora)) == expected
        assert llm(prompt, {"lora": lora}) == expected
        assert llm(prompt, {"lora": {"blue": 1.0}}, lora=lora) == expected, "the dict is replaced, not added to"
        assert "".join(llm(prompt, lora=lora, stream=True)) == expected
        assert llm(prompt, lora=lora, n=3) == [expected] * 3
        assert llm(prompt, lora=lora, session="ada") == llm.session("bob")(prompt, lora=lora) == expected

        async def ask() -> list[str]:
            stream = llm.astream(prompt, lora=lora)
            return [await llm.agenerate(prompt, lora=lora), "".join([chunk async for chunk in stream])]

        assert asyncio.run(ask()) == [expected] * 2
        messages = [{"role": "user", "content": "Hello"}]
        rendered = llm.render(messages)
        assert llm.chat(messages, lora=lora).text.strip() == llm(rendered, lora=lora).strip() != llm(rendered).strip()
    with files.load(lora=lora) as llm:
        assert llm(prompt) == expected
        assert llm(prompt, lora={}) == without
        assert llm.config.lora == lora


def test_log_probabilities_are_those_of_the_answer_alone(lora_llm: LLM):
    response = lora_llm(some_tokens(300), lora={"red": 1.0}, n_batch=64, logprobs=0)
    assert response.logprobs is not None
    assert len(response.logprobs) == response.usage.completion_tokens == 24
    assert all(each.logprob < 0 for each in response.logprobs)


def test_scales_make_a_difference(lora_llm: LLM):
    prompt = some_tokens(20)
    assert len({lora_llm(prompt, lora={"red": scale}) for scale in (-2, -1, 0, 0.5, 1, 2)}) == 6
