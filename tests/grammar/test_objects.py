"""Objects as grammars: many properties, alternatives that begin alike, recursion, white space."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from cyllama.chat import check_tools
from cyllama.grammar import check_response_format, convert, model_schema, schema_grammar
from cyllama.grammar.schema import conversion_grammar
from cyllama.llama.llama_cpp import LlamaModel, LlamaSampler, check_grammar

from ..support.matching import Matcher
from ..support.schema_corpus import INT, STR, arr, obj


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class Add(BaseModel):
    left: Expression
    right: Expression
    sign: Literal["+"]


class Multiply(BaseModel):
    left: Expression
    right: Expression
    sign: Literal["*"]


class Expression(BaseModel):
    value: Add | Multiply | int


def nested(depth: int) -> Any:
    value: Any = {"value": 1}
    for i in range(depth):
        value = {"value": {"left": value, "right": {"value": i}, "sign": "+*"[i % 2]}}
    return value


def test_alternatives_that_begin_alike_are_written_once(matches: Matcher, model: LlamaModel):
    grammar = schema_grammar(model_schema(Expression))
    assert matches(grammar, compact(nested(60)))
    assert not matches(grammar, compact(nested(3)).replace("+", "-"))
    # Deep inside of what may become either, one stack is followed, not one for each way to get there.
    sampler = LlamaSampler.grammar(model.vocab, grammar)
    beginning = '{"value":{"left":' * 200
    assert matches.reach(sampler, beginning) == len(beginning)


def test_alternatives_may_differ_in_what_they_leave_out(matches: Matcher):
    options = [obj("a", a=INT, b=INT, c=STR), obj("a", "d", a=INT, b=INT, d=STR), obj(a=INT, b=STR), {"type": "null"}]
    grammar = schema_grammar({"anyOf": options})
    valid: list[Any] = [
        {"a": 1},
        {"a": 1, "b": 2, "c": ""},
        {"a": 1, "b": 2, "d": ""},
        {"a": 1, "b": ""},
        {"b": ""},
        {},
        None,
    ]
    invalid: list[Any] = [{"a": ""}, {"a": 1, "c": "", "d": ""}, {"b": 2}, {"d": ""}, {"a": 1, "b": "", "d": ""}]
    for value in valid:
        assert matches(grammar, compact(value)), value
    for value in invalid:
        assert not matches(grammar, compact(value)), value


class Node(BaseModel):
    name: str = Field(pattern="^[a-z]$")
    next: Node | None = None
    children: dict[str, list[Node]] = {}


def test_recursion_of_classes_is_kept(matches: Matcher):
    schema = model_schema(Node)
    assert schema["$ref"] == "#/$defs/Node"
    for grammar in (schema_grammar(schema), conversion_grammar(convert(schema, tolerant=True))):
        assert matches(grammar, '{"name":"a","next":{"name":"b","next":null},"children":{"x":[{"name":"c"}]}}')
        assert not matches(grammar, '{"name":"a","next":{"name":"b","next":{}}}')
        assert not matches(grammar, '{"name":"a","children":{"x":[{}]}}')
    expected = check_response_format(Node)
    assert expected is not None
    assert isinstance(expected.parse('{"name":"a","next":{"name":"b"}}').next, Node)


def test_grammars_of_many_properties_grow_with_their_number(matches: Matcher):
    sizes = {}
    for n in (500, 1000, 3000):
        properties = {f"property_{i}": INT if i % 3 else STR for i in range(n)}
        grammar = schema_grammar(obj("property_1", **properties))
        check_grammar(grammar)
        sizes[n] = len(grammar)
        assert matches(grammar, f'{{"property_1":1,"property_3":"","property_{n - 2}":5}}') == ((n - 2) % 3 != 0)
        assert matches(grammar, '{"property_1":1}')
        assert not matches(grammar, '{"property_2":1}')
    assert sizes[3000] < 3.2 * sizes[1000]


def test_other_properties_are_told_from_those_with_a_name(matches: Matcher):
    names = ["a", "ab", 'b"\\', "é", "😀", "a\n", ""]
    grammar = schema_grammar({"type": "object", "properties": dict.fromkeys(names, INT), "additionalProperties": STR})
    for name in names:
        assert matches(grammar, json.dumps({name: 1}, ensure_ascii=False, separators=(",", ":")))
        assert not matches(grammar, json.dumps({name: ""}, ensure_ascii=False, separators=(",", ":")))
    for name in ("c", "abc", "A", 'b"', "éé", "a\n\n", "\\", "\x00", " "):
        assert matches(grammar, json.dumps({"": 1, name: ""}, ensure_ascii=False, separators=(",", ":"))), name


def test_a_property_without_a_name(matches: Matcher):
    for grammar in (
        schema_grammar(obj("", **{"": INT, "a": INT})),
        schema_grammar({"properties": {"": obj("", **{"": INT})}}),
    ):
        check_grammar(grammar)
    assert matches(schema_grammar(obj("", **{"": INT, "a": INT})), '{"":5,"a":1}')
    assert not matches(schema_grammar(obj("", **{"": INT, "a": INT})), "5")


@pytest.mark.parametrize("schema", [obj("a", a=arr(INT)), {"type": "object"}, {}, {"type": "object", "properties": {}}])
def test_white_space_has_an_end(schema: dict[str, Any], matches: Matcher):
    grammar = schema_grammar(schema)
    assert matches(grammar, '{"a": [1, 2]}')
    assert matches(grammar, '{\n  "a": [\n    1,\n    2\n  ]\n}')
    assert matches(grammar, '{\n\t"a": [\n\t\t1]}')
    for wrong in (
        '{  "a": [1]}',
        '{\n\n"a":[1]}',
        '{ \n"a":[1]}',
        '{"a" :[1]}',
        '{\n \t"a":[1]}',
        ' {"a":[1]}',
        '{"a":[1]}\n',
    ):
        assert not matches(grammar, wrong)
    assert not matches(grammar, "{\n" + " " * 30 + '"a":[1]}')


def test_the_arguments_of_a_tool_without_parameters_end():
    for parameters in (None, {}, {"type": "object", "properties": {}}, {"properties": {}, "required": []}):
        (tool,) = check_tools([{"name": "f", "parameters": parameters}])
        grammar = conversion_grammar(tool.convert(0))
        assert '"{" schema-space "}"' in grammar
        assert "*" not in grammar
