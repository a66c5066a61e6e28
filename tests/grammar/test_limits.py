"""Grammars that are hard to follow: what is ambiguous is cheap, and what is too much ends its own request only."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import BaseModel

from cyllama import LLM, GrammarError

from ..support.harness import turn

BRACKETS = 'root ::= "(" root ")" | "(" root "]"'
# Every letter can be a part of any number of rules that began before it.
NESTED = 'root ::= rule*\nrule ::= "a" rule "a" rule | "a" rule rule | "a"'


class Add(BaseModel):
    operation: str
    left: Add | Mul | int
    right: Add | Mul | int


class Mul(BaseModel):
    operation: str
    left: Add | Mul | int
    right: Add | Mul | int


class Calculation(BaseModel):
    result: Add | Mul | int


def test_brackets_that_close_in_two_ways_are_followed(llm: LLM):
    text = llm("x", grammar=BRACKETS, max_tokens=60)
    assert re.fullmatch(r"\(+", text)


def test_models_that_begin_alike_are_followed(llm: LLM):
    response = llm("A sum as JSON: ", response_format=Calculation, max_tokens=80)
    assert response.finish_reason in ("stop", "length")


def test_a_grammar_that_takes_too_much_work_fails_with_its_text_and_others_go_on(llm: LLM):
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(llm, turn("Say the alphabet."))  # in which no two tokens are nearly tied
        with pytest.raises(GrammarError, match=r"after \d+ tokens: too many ways .* 4194304 steps .*Write") as raised:
            llm("x", grammar=NESTED, max_tokens=2000, ignore_eos=True)
        assert other.result() == llm(turn("Say the alphabet."))
    assert re.fullmatch("a+", raised.value.partial_text)
    assert llm("x", grammar='root ::= "yes"') == "yes"


def test_a_grammar_that_is_too_large_is_refused_before_it_runs(llm: LLM):
    with pytest.raises(GrammarError, match="more than 1048576 elements"):
        llm("x", grammar='root ::= "' + "a" * 2000 + '"{1999}')
