"""Parsers of answers, which llama.cpp makes from a template, and which can be replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cyllama.llama.llama_cpp import LlamaChatParams, LlamaChatTemplates, LlamaModel
from cyllama.models import TINY_CHAT

TEMPLATE = "{%- for m in messages -%}{{- m.role + ': ' + m.content -}}{%- endfor -%}{{- 'assistant: ' -}}"


@pytest.fixture(scope="module")
def params() -> LlamaChatParams:
    with LlamaModel(TINY_CHAT) as model:
        return LlamaChatTemplates(model, TEMPLATE).apply('[{"role": "user", "content": "Hi"}]')


def peg(*parsers: dict[str, Any], root: int = 0) -> str:
    return json.dumps({"parsers": list(parsers), "rules": {}, "root": root})


def test_a_parser_reads_as_it_is_told(params: LlamaChatParams):
    assert params.parse("Hello")[0] == "Hello"
    same = params.with_parser(params.parser)
    assert same.parse("Hello") == params.parse("Hello")
    prompt = {"type": "literal", "literal": params.generation_prompt}
    until = {"type": "until", "delimiters": ["."]}
    reads = [prompt, until, {"type": "tag", "tag": "content", "child": 1}, {"type": "sequence", "children": [0, 2]}]
    assert params.with_parser(peg(*reads, root=3)).parse("One. Two.")[0] == "One"
    assert params.parse("One. Two.")[0] == "One. Two."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "{}",
        '{"parsers": 1, "rules": {}, "root": 0}',
        peg({"type": "nonsense"}),
        peg({"type": "literal", "literal": "x"}, root=1),
        peg({"type": "sequence", "children": [1]}),
        peg({"type": "sequence", "children": [0]}),
        peg({"type": "choice", "children": [1, 0]}, {"type": "literal", "literal": "x"}),
        peg({"type": "sequence", "children": [1, 0]}, {"type": "literal", "literal": "x"}),
        peg({"type": "repetition", "child": 0, "min_count": 0, "max_count": -1}),
        peg({"type": "ref", "name": "root"}),
        peg(*({"type": "atomic", "child": i + 1} for i in range(500)), {"type": "any"}),
        peg(*({"type": "tag", "tag": "x", "child": i - 1} for i in range(1, 500)), root=400),
        "[" * 100_000,
    ],
)
def test_what_could_recurse_without_end_is_no_parser(text: str, params: LlamaChatParams):
    with pytest.raises(ValueError, match=r"^not a parser of answers|^the parser"):
        params.with_parser(text)


def test_recursion_behind_brackets_is_as_deep_as_the_text(params: LlamaChatParams):
    nested = [
        {"type": "literal", "literal": "["},
        {"type": "literal", "literal": "]"},
        {"type": "sequence", "children": [0, 7, 1]},
        {"type": "repetition", "child": 2, "min_count": 0, "max_count": -1},
        {"type": "literal", "literal": params.generation_prompt},
        {"type": "tag", "tag": "content", "child": 3},
        {"type": "sequence", "children": [4, 5]},
        {"type": "rule", "name": "nested", "child": 3, "trigger": False},
    ]
    reads = params.with_parser(peg(*nested, root=6))
    for depth in (1, 5000):
        assert reads.parse("[" * depth + "]" * depth)[0] == "[" * depth + "]" * depth
    with pytest.raises(RuntimeError):
        reads.parse("[" * 100_000)
