"""The closest grammar: every valid value is allowed, whatever a schema says, and what is left out is known."""

from __future__ import annotations

import json
import logging
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cyllama import OutputError, SchemaError
from cyllama.chat import ChatTemplates
from cyllama.grammar import GrammarSpec, check_grammar, check_response_format, convert, schema_grammar
from cyllama.grammar.schema import conversion_grammar

from ..support import schema_corpus as corpus
from ..support.matching import Matcher
from ..support.schema_strategies import Schema, schemas_with_values
from ..support.writing import Writer

ANY = {"suppress_health_check": list(HealthCheck), "deadline": None, "phases": (Phase.explicit, Phase.generate)}


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_value(schema: Schema, value: Any, matches: Matcher) -> None:
    if jsonschema.Draft202012Validator(schema).is_valid(value):
        assert matches(schema_grammar(schema), compact(value))


@settings(max_examples=60, derandomize=True, **ANY)
@given(case=schemas_with_values())
def test_valid_values_are_allowed(case: tuple[Schema, Any], matches: Matcher):
    check_value(*case, matches)


@pytest.mark.slow
@settings(max_examples=3000, **ANY)
@given(case=schemas_with_values())
def test_many_valid_values_are_allowed(case: tuple[Schema, Any], matches: Matcher):
    check_value(*case, matches)


@pytest.mark.parametrize(("begin", "end"), [(0, 40), pytest.param(0, 1000, marks=pytest.mark.slow)])
def test_no_tool_is_refused(begin: int, end: int, templates: ChatTemplates):
    schemas = list(corpus.tools())
    assert len(schemas) >= 300
    named = [
        {"type": "function", "function": {"name": f"tool_{i}", "parameters": schema}}
        for i, schema in enumerate(schemas)
    ][begin:end]
    for first in range(0, len(named), 100):
        tools = named[first : first + 100]
        for choice in ("auto", "required"):
            plan = templates.prepare([{"role": "user", "content": "Hi"}], tools=tools, tool_choice=choice)
            assert plan.grammar is not None


def test_schemas_of_every_kind_become_grammars():
    for schema in list(corpus.tools())[::4]:
        check_grammar(conversion_grammar(convert(schema, tolerant=True)))


def check_answer(schema: Schema, seed: int, write: Writer) -> bool:
    """Let a model answer; return whether it came to an end with a value."""
    expected = check_response_format(schema)
    assert expected is not None
    text, finished = write(GrammarSpec(expected.grammar), max_tokens=250, seed=seed)
    if not finished:
        return False
    try:
        value = expected.parse(text)
    except OutputError:
        assert expected.conversion.left_out
        return False
    plain = {key: part for key, part in schema.items() if key != "$schema"}
    if not any(pattern in compact(schema) for pattern in (r"\\p{L}", "(?<year>", r"\\u{61}", "multipleOf", "$id")):
        jsonschema.Draft202012Validator(plain).validate(value)
    return True


def test_answers_are_valid_under_schemas_of_every_kind(write_randomly: Writer):
    schemas = [schema for schema in corpus.values() if schema not in [sloppy for sloppy, _ in corpus.SLOPPY]]
    valid = [check_answer(schema, seed, write_randomly) for seed, schema in enumerate(schemas[::5])]
    assert sum(valid) > len(valid) / 3


@pytest.mark.slow
def test_all_answers_are_valid_or_an_error(write_randomly: Writer, write: Writer):
    schemas = [schema for schema in corpus.values() if schema not in [sloppy for sloppy, _ in corpus.SLOPPY]]
    schemas += [schema for schema in corpus.TOOLS.values() if schema]
    for writer in (write, write_randomly):
        valid = [check_answer(schema, seed, writer) for seed in range(3) for schema in schemas]
        assert sum(valid) > len(valid) / 3


@pytest.mark.parametrize(("schema", "values"), corpus.SLOPPY, ids=range(len(corpus.SLOPPY)))
def test_servers_are_understood(schema: Schema, values: list[Any], matches: Matcher):
    grammar = conversion_grammar(convert(schema, tolerant=True))
    for value in values:
        assert matches(grammar, compact(value)), value


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, [1], [0]),
        ({"type": "string", "not": {"enum": ["a"]}, "enum": ["a", "b"]}, ["b"], ["a"]),
        ({"not": {"type": "null"}}, [1, "x"], [None]),
        (
            corpus.obj(a=corpus.STR, b=corpus.STR) | {"not": {"required": ["a", "b"]}},
            [{"a": ""}, {}],
            [{"a": "", "b": ""}],
        ),
        (corpus.TOOLS["top_one_of"], [{"id": "x"}, {"name": "x"}], [{}, {"id": "x", "name": "x"}]),
        (
            corpus.TOOLS["conditions"],
            [{"kind": "card", "number": "1"}, {"kind": "iban", "iban": "1"}],
            [{"kind": "card"}, {"kind": "iban", "number": "1"}],
        ),
        (corpus.TOOLS["many_conditions"], [{"k": "a", "x": 1}, {"k": "c"}], [{"k": "a", "y": 1}, {"k": "b", "x": 1}]),
        (
            corpus.obj(a=corpus.STR, b=corpus.STR) | {"dependentRequired": {"a": ["b"]}},
            [{}, {"b": ""}, {"a": "", "b": ""}],
            [{"a": ""}],
        ),
        ({"type": "object", "propertyNames": {"pattern": "^[a-z]$"}}, [{"a": 1}], [{"A": 1}]),
        (
            {"type": "object", "propertyNames": {"enum": ["a"]}, "additionalProperties": {"type": "null"}},
            [{"a": None}],
            [{"b": None}],
        ),
        (
            {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": False},
            [{"xy": None}, {}],
            [{"y": None}, {"xy": 1}],
        ),
        (
            {"type": "object", "properties": {"a": corpus.INT}, "additionalProperties": corpus.STR},
            [{"a": 1, "b": ""}],
            [{"a": ""}],
        ),
        (
            {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": corpus.INT},
            [{"a": 1}, {"a": 1, "b": 2}],
            [{}, {"a": 1, "b": 2, "c": 3}],
        ),
        (
            corpus.obj(a=corpus.INT, b=corpus.INT, c=corpus.INT) | {"minProperties": 2},
            [{"a": 1, "c": 1}],
            [{}, {"b": 1}],
        ),
        ({"type": "integer", "multipleOf": 15, "minimum": 0, "maximum": 90}, [0, 15, 90], [10, 105]),
        ({"type": "integer", "multipleOf": 100}, [0, -100, 12300], [10, 120]),
        ({"type": "number", "multipleOf": 0.01, "minimum": 0}, [0, 0.01, 12.5], [0.001]),
        ({"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 1}, [0.25, 1, 1.0], [0.3, 1.25]),
        (
            {"type": "array", "prefixItems": [corpus.INT, corpus.STR], "items": False},
            [[], [1], [1, "x"]],
            [["x"], [1, "x", 1]],
        ),
        ({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}, [[1, 2]], [[1, 2, 1]]),
        ({"allOf": [corpus.obj("a", a=corpus.INT), corpus.obj("b", b=corpus.INT)]}, [{"a": 1, "b": 2}], [{"a": 1}]),
        ({"$id": "https://x.org/s", "$ref": "item", "$defs": {"i": {"$id": "item", "type": "integer"}}}, [1], ["x"]),
        ({"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "string", "pattern": "^(ab|c)*$", "maxLength": 3}, ["", "ab", "cab"], ["cabc", "abab"]),
        ({"allOf": [{"pattern": "^a"}, {"pattern": "z$"}], "type": "string"}, ["az", "a-z"], ["a", "bz"]),
        ({"type": "string", "format": "ipv4", "pattern": "^10[.]"}, ["10.0.0.1"], ["11.0.0.1", "10."]),
    ],
    ids=range(26),
)
def test_what_a_grammar_can_say_is_exact(schema: Schema, valid: list[Any], invalid: list[Any], matches: Matcher):
    grammar = schema_grammar(schema)
    for value in valid:
        assert matches(grammar, compact(value)), value
    for value in invalid:
        assert not matches(grammar, compact(value)), value


@pytest.mark.parametrize(
    ("schema", "left_out"),
    [
        (
            {"type": "object", "properties": {"a/b": {"type": "array", "uniqueItems": True}}},
            [("#/properties/a~1b", "uniqueItems")],
        ),
        ({"type": "string", "pattern": r"^(a|b)\1$"}, [("#", "pattern")]),
        ({"type": "array", "contains": {"type": "integer"}}, [("#", "contains")]),
        ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]}, [("#", "oneOf")]),
        ({"$ref": "https://example.com/unknown"}, [("#", "$ref")]),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer", "multipleOf": 777}}}, [("#/$defs/a", "multipleOf")]),
        ({"type": "string", "maxLength": 10**9}, [("#", "maxLength")]),
        ({"type": "array", "maxItems": 10**6}, [("#", "maxItems")]),
        ({"type": "number", "minimum": 1e300}, [("#", "minimum")]),
        ({"type": "string", "title": "T", "x-y": 1, "unit": "m", "markdownDescription": "d"}, []),
    ],
    ids=range(10),
)
def test_what_is_left_out_is_known_and_logged_once(
    schema: Schema, left_out: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING, "cyllama.grammar"):
        for _ in range(3):
            assert list(convert(schema, name=f"the schema {left_out}").left_out) == left_out
    assert len(caplog.records) == bool(left_out)


def test_what_is_left_out_is_checked_in_the_answer():
    cases: list[tuple[Schema, str, str]] = [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1, 2]", "[1, 1]"),
        ({"type": "string", "pattern": r"^(a|b)\1$"}, '"aa"', '"ab"'),
        ({"type": "number", "multipleOf": 0.777}, "1.554", "1.5"),
        (
            {"$schema": "http://json-schema.org/draft-04/schema#", "items": {"minimum": 1, "exclusiveMinimum": True}}
            | {"type": "array", "uniqueItems": True},
            "[2]",
            "[1]",
        ),
        ({"type": "array", "contains": {"type": "string", "pattern": r"^\p{Lu}$"}}, '["É"]', '["é"]'),
        ({"type": "array", "contains": {"type": "string", "format": "date"}}, '["2024-02-29"]', '["2023-02-29"]'),
    ]
    for schema, valid, invalid in cases:
        expected = check_response_format(schema)
        assert expected is not None
        assert expected.parse(valid) == json.loads(valid)
        with pytest.raises(OutputError, match="the answer is not valid") as caught:
            expected.parse(invalid)
        assert caught.value.text == invalid


def test_a_whole_schema_that_cannot_be_read_is_any_object_for_a_tool(matches: Matcher):
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    for schema in (corpus.obj(a=deep), {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}):
        with pytest.raises(SchemaError):
            schema_grammar(schema)
        conversion = convert(schema, tolerant=True)
        assert conversion.left_out
        assert matches(conversion_grammar(conversion), '{"a":[1,{"b":null}]}')
