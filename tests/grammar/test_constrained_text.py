"""Plain text that has to fit a grammar or a response format."""

from __future__ import annotations

import asyncio
import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from cyllama import LLM, ConfigError, DecodeError, GrammarError, OutputError, SchemaError

START = "Once upon a time"
YES_OR_NO = 'root ::= "yes" | "no"'
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
}


class Point(BaseModel):
    x: int
    y: int


def test_a_text_fits_its_grammar(llm: LLM):
    response = llm("Is the sky blue? Answer: ", grammar=YES_OR_NO)
    assert response in ("yes", "no")
    assert response.finish_reason == "stop"
    assert response.parsed is None


def test_a_text_fits_its_schema(llm: LLM):
    response = llm("A person as JSON: ", response_format=PERSON, max_tokens=200)
    jsonschema.validate(json.loads(response), PERSON)
    assert response.parsed == json.loads(response)


def test_a_text_is_read_as_a_model(llm: LLM):
    for response in llm("A point as JSON: ", response_format=Point, n=3, temperature=1.0, seed=1, max_tokens=300):
        if response.finish_reason == "stop":
            assert isinstance(response.parsed, Point)
        else:
            with pytest.raises(OutputError):
                _ = response.parsed


def test_a_text_that_was_cut_does_not_pretend_to_be_whole(llm: LLM):
    response = llm("A person as JSON: ", response_format=PERSON, max_tokens=3)
    assert response.finish_reason == "length"
    with pytest.raises(OutputError) as raised:
        _ = response.parsed
    assert raised.value.text == response


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0}])
@pytest.mark.parametrize("extra", [{}, {"repeat_penalty": 1.3}, {"mirostat": 1}, {"mirostat": 2}])
def test_however_it_is_sampled(llm: LLM, options: dict[str, Any], extra: dict[str, Any]):
    for seed in range(5):
        config = {**options, **extra, "seed": seed, "max_tokens": 30}
        response = llm(START, config, grammar="root ::= [0-9]{3} [a-f]+ [.]")
        assert re.fullmatch(r"[0-9]{3}[a-f]+\.?", response)
        assert llm(START, config, grammar="root ::= [0-9]{3} [a-f]+ [.]") == response


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"temperature": 1.0},
        {"mirostat": 1, "temperature": 1.0},
        {"mirostat": 2, "temperature": 1.0},
        {"temperature": 1.0, "top_n_sigma": 1.0, "typical_p": 0.9, "xtc_probability": 0.5, "dry_multiplier": 0.8},
    ],
)
def test_without_an_end_a_text_goes_on_as_far_as_its_grammar(llm: LLM, extra: dict[str, Any]):
    config = {"ignore_eos": True, "max_tokens": 30, "seed": 1, **extra}
    response = llm("Is the sky blue? Answer: ", config, grammar=YES_OR_NO)
    assert (response in ("yes", "no"), response.finish_reason) == (True, "stop")
    schema = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
    response = llm("The weather as JSON: ", config, response_format=schema)
    assert (set(response.parsed), response.finish_reason) == ({"sunny"}, "stop")
    response = llm("A word: ", config, grammar="root ::= [a-z]+")
    assert (response.finish_reason, response.usage.completion_tokens) == ("length", 30)


def test_biases_that_forbid_all_that_fits_are_named(llm: LLM):
    letters = [token for text in ("a", " a") for token in llm.tokenize(text, add_bos=False)]
    forbidden = dict.fromkeys(letters, -math.inf)
    with pytest.raises(DecodeError, match="logit biases forbid every one that the grammar allows"):
        llm("A letter: ", grammar='root ::= "a"', logit_bias=forbidden)
    assert llm("A letter: ", grammar='root ::= "a" | "b"', logit_bias=forbidden) == "b"


@pytest.mark.parametrize("mirostat", [1, 2])
def test_mirostat_chooses_among_what_fits(llm: LLM, mirostat: int):
    config = {"mirostat": mirostat, "temperature": 5.0}
    assert len({llm("A letter: ", config, grammar="root ::= [a-z]", seed=seed) for seed in range(30)}) > 1


def test_in_streams_sessions_and_event_loops(llm: LLM):
    with llm(START, grammar=YES_OR_NO, stream=True) as stream:
        assert "".join(stream) in ("yes", "no")
    with llm.session("ada") as ada:
        assert ada("Is the sky blue? ", grammar=YES_OR_NO) in ("yes", "no")
        point = ada(" A point as JSON: ", response_format=Point, max_tokens=300)
        assert point.finish_reason == "length" or isinstance(point.parsed, Point)

    async def main() -> None:
        with llm.session("bob") as bob:
            assert await llm.agenerate(START, grammar=YES_OR_NO) in ("yes", "no")
            assert await bob.agenerate("Is the sky blue? ", grammar=YES_OR_NO) in ("yes", "no")
            assert "".join([chunk async for chunk in bob.astream("?", grammar=YES_OR_NO)]) in ("yes", "no")
            assert all(text in ("yes", "no") for text in await llm.agenerate(START, n=3, grammar=YES_OR_NO))

    asyncio.run(main())


def test_a_grammar_constrains_its_own_request_only(llm: LLM):
    free = llm(START, max_tokens=20)

    def ask(i: int) -> bool:
        if i % 2:
            return (
                re.fullmatch("[0-9]{10}", llm(START, grammar="root ::= [0-9]{10}", temperature=1, seed=i)) is not None
            )
        return llm(START, max_tokens=20)[:10] == free[:10]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(32)))


def test_what_is_no_grammar_is_refused_and_nothing_is_evaluated(llm: LLM):
    before = llm.stats.prompt_tokens_evaluated
    with pytest.raises(GrammarError):
        llm(START, grammar="root ::= (")
    with pytest.raises(GrammarError):
        llm(START, grammar="")
    with pytest.raises(SchemaError):
        llm(START, response_format={"type": "object", "properties": {"a": {"not": {}}}, "required": ["a"]})
    with pytest.raises(SchemaError, match="response_format"):
        llm(START, response_format="yaml")
    with pytest.raises(ConfigError, match="either grammar or response_format"):
        llm(START, grammar=YES_OR_NO, response_format="json")
    assert llm.stats.prompt_tokens_evaluated == before
    assert llm(START, max_tokens=1).finish_reason == "length"
