"""What no grammar can say is checked after the answer, and sampled again where that was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cyllama import LLM, ConfigError, GenerationConfig, OutputError
from cyllama.attempts import Attempts

UNIQUE = {
    "type": "object",
    "properties": {
        "a": {
            "type": "array",
            "items": {"enum": ["x", "y", "z", "w"]},
            "uniqueItems": True,
            "minItems": 2,
            "maxItems": 2,
        }
    },
    "required": ["a"],
}
NEVER: dict[str, Any] = {"type": "object", "properties": {"n": {"enum": [1], "allOf": [{"type": "integer"}]}}} | {
    "required": ["n"],
    "not": {"properties": {"n": {"multipleOf": 1}}},
}
TOOL: dict[str, Any] = {"name": "pick", "description": "Pick letters", "parameters": UNIQUE}
ASK = [{"role": "user", "content": "Pick letters."}]


def seed_of(llm: LLM, *, valid: bool) -> int:
    """Return a seed with which the first answer is valid, or is not."""
    for seed in range(200):
        try:
            _ = llm("Letters: ", response_format=UNIQUE, seed=seed, temperature=1, max_tokens=120).parsed
        except OutputError as error:
            if not valid and "non-unique" in str(error):
                return seed
        else:
            if valid:
                return seed
    raise AssertionError("no such seed")


def test_a_value_that_is_not_valid_is_never_handed_over(llm: LLM):
    seed = seed_of(llm, valid=False)
    response = llm("Letters: ", response_format=UNIQUE, seed=seed, temperature=1, max_tokens=120)
    with pytest.raises(OutputError, match=r"\$\.a: .* non-unique") as caught:
        _ = response.parsed
    assert caught.value.text == response.text


def test_an_answer_is_sampled_again_until_it_is_valid(llm: LLM):
    seed = seed_of(llm, valid=False)
    response = llm("Letters: ", response_format=UNIQUE, seed=seed, temperature=1, max_tokens=120, max_attempts=60)
    assert len(set(response.parsed["a"])) == 2
    again = llm("Letters: ", response_format=UNIQUE, seed=seed, temperature=1, max_tokens=120, max_attempts=60)
    assert again.text == response.text


def test_a_valid_answer_is_sampled_once(llm: LLM):
    seed = seed_of(llm, valid=True)
    before = llm.stats.tokens_generated
    response = llm("Letters: ", response_format=UNIQUE, seed=seed, temperature=1, max_tokens=120, max_attempts=9)
    assert response.parsed
    assert llm.stats.tokens_generated - before == response.usage.completion_tokens


def test_at_temperature_0_later_attempts_differ_and_are_the_same_every_time(llm: LLM):
    before = llm.stats.contexts_created + llm.stats.context_reuses

    def ask(max_attempts: int) -> str:
        return llm("{", response_format=NEVER, temperature=0, max_tokens=60, max_attempts=max_attempts).text

    assert ask(4) == ask(4)
    assert llm.stats.contexts_created + llm.stats.context_reuses - before == 8


def test_a_call_of_a_strict_tool_is_valid_or_an_error(llm: LLM):
    options: dict[str, Any] = {"tool_choice": "required", "temperature": 1, "max_tokens": 120}
    seeds = range(40)
    loose = [llm.chat(ASK, tools=[TOOL], seed=seed, **options) for seed in seeds]
    calls = [response.message.tool_calls[0].function.arguments for response in loose]
    wrong = next(
        seed
        for seed in seeds
        if loose[seed].finish_reason == "tool_calls" and len(set(json.loads(calls[seed])["a"])) == 1
    )
    strict = [TOOL | {"strict": True}]
    with pytest.raises(OutputError, match="the call of the tool 'pick' is not valid") as caught:
        llm.chat(ASK, tools=strict, seed=wrong, **options)
    assert caught.value.text == calls[wrong]
    stream = llm.chat(ASK, tools=strict, seed=wrong, stream=True, **options)
    with pytest.raises(OutputError):
        list(stream)
    assert stream.response.message.tool_calls[0].function.arguments == calls[wrong]
    again = llm.chat(ASK, tools=strict, seed=wrong, max_attempts=40, **options)
    assert len(set(json.loads(again.message.tool_calls[0].function.arguments)["a"])) == 2


async def test_attempts_in_an_event_loop(llm: LLM):
    seed = seed_of(llm, valid=False)
    options: dict[str, Any] = {"seed": seed, "temperature": 1, "max_tokens": 120, "max_attempts": 60}
    response = await llm.agenerate("Letters: ", response_format=UNIQUE, **options)
    assert response.text == llm("Letters: ", response_format=UNIQUE, **options).text
    chat = await llm.achat(ASK, response_format=UNIQUE, **options)
    assert chat.text == llm.chat(ASK, response_format=UNIQUE, **options).text


@pytest.mark.parametrize("max_attempts", [0, -1, 1.5, "2", True, 10**6])
def test_what_is_not_a_number_of_attempts_is_refused(llm: LLM, max_attempts: Any):
    with pytest.raises(ConfigError, match="max_attempts"):
        llm("x", max_attempts=max_attempts)
    with pytest.raises(ConfigError, match="max_attempts"):
        llm.chat(ASK, max_attempts=max_attempts)


def test_attempts_exclude_what_cannot_be_taken_back(llm: LLM):
    with pytest.raises(ConfigError, match="stream"):
        llm.chat(ASK, response_format=UNIQUE, max_attempts=2, stream=True)
    with pytest.raises(ConfigError, match="on_token"):
        llm("x", response_format=UNIQUE, max_attempts=2, on_token=print)
    options: dict[str, Any] = {"max_attempts": 2, "n": 2}
    with pytest.raises(ConfigError, match="n exclude"):
        llm("x", response_format=UNIQUE, **options)


@pytest.mark.parametrize("fails", [False, True], ids=["answer", "call of a strict tool"])
def test_a_call_that_was_cancelled_makes_no_other_attempt(fails: bool):
    answers: list[int] = []
    tries = Attempts[int](GenerationConfig(), 5, lambda _: False, lambda: len(answers) == 2)

    def attempt_all() -> int:
        for _ in tries:
            with tries.attempt():
                answers.append(len(answers))
                tries.answer = answers[-1]
                if fails:
                    raise OutputError("not valid", "{}")
        return tries.answer

    if fails:
        with pytest.raises(OutputError):
            attempt_all()
    else:
        assert attempt_all() == 1
    assert answers == [0, 1]
