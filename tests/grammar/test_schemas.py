"""JSON schemas as grammars: what a model writes is valid, and what cannot be converted is refused with its place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from cyllama import ConfigError, GrammarError, OutputError, SchemaError
from cyllama.chat import ChatTemplates
from cyllama.grammar import GrammarSpec, check_response_format, schema_grammar
from cyllama.grammar.numbers import Interval, decimals, integers

from ..support.families import FAMILIES, TOOLS
from ..support.matching import Matcher
from ..support.writing import Writer

# ----------------------------------------------------------------------------------------------------------- any schema

NAMES = st.text('abcxyz_ "\\/é😀-*', min_size=1, max_size=6)
SCALARS = st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5) | st.floats(-10, 10)
PATTERNS = st.sampled_from(
    (
        *("^a+$", "^[a-z]{2,4}$", r"^\d{3}-\d{4}$", "^(yes|no|maybe)$", "^[A-Z][a-z]*( [A-Z][a-z]*)?$", "b"),
        *(
            r"^\w+@\w+\.(com|org)$",
            '^["\\\\]+$',
            "^[^a]{1,3}$",
            r"^\S{1,5}$",
            "^.{2,6}$",
            "^x|y$",
            r"^#[0-9a-fA-F]{6}$",
        ),
        *("^$", "^(a(b(c)?)?){1,3}$", r"^\D\W[^\d]$", "^é+😀?$", r"^\n\t$", r"^#[0-9a-fA-F]{6}$"),
    )
)


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(("any", "length", "pattern", "format")))
    schema: dict[str, Any] = {"type": "string"}
    if kind == "length":
        low = draw(st.integers(0, 8))
        schema |= {"minLength": low, "maxLength": low + draw(st.integers(0, 8))}
    elif kind == "pattern":
        schema["pattern"] = draw(PATTERNS)
    elif kind == "format":
        schema["format"] = draw(st.sampled_from(("date", "time", "date-time", "uuid", "email")))
    return schema


@st.composite
def number_ranges(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": draw(st.sampled_from(("integer", "number")))}
    low = draw(st.integers(-500, 500) | st.floats(-100, 100).map(lambda x: round(x, 3)))
    if draw(st.booleans()):
        schema[draw(st.sampled_from(("minimum", "exclusiveMinimum")))] = low
    if draw(st.booleans()):
        high = low + draw(st.integers(2, 2000) | st.floats(2, 5).map(lambda x: round(x, 2)))
        schema[draw(st.sampled_from(("maximum", "exclusiveMaximum")))] = high
    return schema


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, values, max_size=4))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.booleans() | values)
    return schema


@st.composite
def arrays(draw: st.DrawFn, values: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"type": "array", "prefixItems": draw(st.lists(values, min_size=1, max_size=3)), "items": False}
    low = draw(st.integers(0, 3))
    schema = {"type": "array", "items": draw(values), "minItems": low}
    return schema | ({"maxItems": low + draw(st.integers(0, 3))} if draw(st.booleans()) else {})


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    leaves = st.one_of(
        strings(),
        number_ranges(),
        st.sampled_from(({"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null", "string"]}, {})),
        st.lists(SCALARS, min_size=1, max_size=4).map(lambda values: {"enum": values}),
        SCALARS.map(lambda value: {"const": value}),
        st.sampled_from(({"$ref": "#/$defs/leaf"}, {"$ref": "#/$defs/tree"})),
    )
    inner = st.recursive(
        leaves,
        lambda values: st.one_of(
            objects(values),
            arrays(values),
            st.lists(values, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
            st.tuples(objects(values), objects(values)).map(lambda both: {"allOf": list(both)}),
        ),
        max_leaves=6,
    )
    leaf = draw(strings() | number_ranges())
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "value": leaf}, "required": ["value"]}
    return draw(inner) | {"$defs": {"leaf": leaf, "tree": tree}}


def check_schema(schema: dict[str, Any], seed: int, write: Writer) -> bool:
    try:
        grammar = schema_grammar(schema)
    except SchemaError:  # two properties of an allOf that exclude each other, for instance
        return False
    text, finished = write(GrammarSpec(grammar), max_tokens=400, seed=seed)
    if finished:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    return finished


def test_all_ends_of_lines_may_be_in_values(write_randomly: Writer):
    for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        schema = {"properties": {f"a{end}b": {"enum": [f"{end}x", {end: end}]}}, "required": [f"a{end}b"]}
        assert check_schema(schema, 1, write_randomly)


ANY = {"suppress_health_check": list(HealthCheck), "deadline": None, "phases": (Phase.explicit, Phase.generate)}


@settings(max_examples=40, derandomize=True, **ANY)
@given(schema=schemas(), seed=st.integers(0, 2**31))
def test_what_a_random_model_writes_is_valid(schema: dict[str, Any], seed: int, write_randomly: Writer):
    check_schema(schema, seed, write_randomly)


@pytest.mark.slow
def test_what_models_write_is_valid_under_300_schemas(write: Writer, write_randomly: Writer):
    finished = []

    @settings(max_examples=300, **ANY)
    @given(schema=schemas(), seed=st.integers(0, 2**31))
    def check(schema: dict[str, Any], seed: int) -> None:
        finished.extend(check_schema(schema, seed, writer) for writer in (write, write_randomly))

    check()
    assert len(finished) >= 600
    assert sum(finished) > 0.6 * len(finished)


# -------------------------------------------------------------------------------------------------------------- numbers


def as_regex(grammar: str) -> re.Pattern[str]:
    return re.compile(re.sub(r'"([^"]*)"', lambda match: re.escape(match[1]), grammar).replace(" ", ""))


@given(low=st.integers(-(10**6), 10**6), width=st.integers(0, 10**6), others=st.lists(st.integers(-(10**7), 10**7)))
def test_ranges_of_integers_are_exact(low: int, width: int, others: list[int]):
    high = low + width
    pattern = as_regex(integers(low, high))
    for number in (low, low - 1, low + 1, high, high - 1, high + 1, 0, *others):
        assert bool(pattern.fullmatch(str(number))) == (low <= number <= high)


@given(
    low=st.decimals(-1000, 1000, places=3),
    width=st.decimals(0, 1000, places=2),
    others=st.lists(st.decimals(-2000, 2000, places=5)),
    above=st.booleans(),
    below=st.booleans(),
)
def test_ranges_of_decimals_are_exact(low: Decimal, width: Decimal, others: list[Decimal], above: bool, below: bool):
    high = low + width
    grammar = decimals(Interval(low, high, above, below))
    pattern = as_regex(grammar) if grammar else None
    for number in (low, high, *others):
        text = f"{number:f}"
        if text.startswith("-") and not number:
            continue  # -0 is never written
        inside = (low < number or (low == number and not above)) and (number < high or (number == high and not below))
        if pattern is not None:
            assert bool(pattern.fullmatch(text)) == inside
        else:
            assert not inside


# -------------------------------------------------------------------------------------------------------------- refused

DEEP: dict[str, Any] = {"type": "string"}
for _ in range(3000):
    DEEP = {"type": "array", "items": DEEP}

REFUSED: list[tuple[Any, str | None]] = [
    (5, "#"),
    (False, "#"),
    ({"type": "object", "properties": {"a": {"items": {"type": "colour"}}}}, "#/properties/a/items/type"),
    ({"type": 5}, "#/type"),
    ({"type": []}, "#/type"),
    ({"type": "object", "properties": 5}, "#/properties"),
    ({"type": "object", "properties": {"a": 5}}, "#/properties/a"),
    ({"type": "object", "properties": {"~/": {"not": {}}}, "required": ["~/"]}, "#/properties/~0~1"),
    ({"type": "object", "properties": {"a": {}}, "additionalProperties": False, "minProperties": 3}, "#/minProperties"),
    ({"type": "array", "prefixItems": [{}], "items": False, "minItems": 2}, "#/items"),
    ({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3}, "#/minItems"),
    ({"type": "string", "pattern": "^a$", "minLength": 3}, "#/pattern"),
    ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6}, "#"),
    ({"type": "integer", "multipleOf": 0}, "#/multipleOf"),
    ({"allOf": [{"pattern": "^a$"}, {"pattern": "^b$"}]}, "#/pattern"),
    ({"not": {}}, "#"),
    ({"type": "object", "required": "a"}, "#/required"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "#/required"),
    ({"type": "array", "minItems": 5, "maxItems": 3}, "#/minItems"),
    ({"type": "array", "minItems": -1}, "#/minItems"),
    ({"type": "string", "minLength": 5, "maxLength": 3}, "#/minLength"),
    ({"type": "string", "minLength": "5"}, "#/minLength"),
    ({"type": "string", "pattern": "("}, "#/pattern"),
    ({"type": "string", "pattern": "(?=a)b"}, "#/pattern"),
    ({"type": "string", "pattern": "a^b"}, "#/pattern"),
    ({"type": "string", "pattern": 5}, "#/pattern"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "#"),
    ({"type": "integer", "minimum": 4.2, "maximum": 4.8}, "#"),
    ({"type": "number", "minimum": 1, "exclusiveMaximum": 1}, "#"),
    ({"type": "number", "minimum": "1"}, "#/minimum"),
    ({"type": "number", "maximum": float("nan")}, "#/maximum"),
    ({"enum": []}, "#"),
    ({"enum": 5}, "#/enum"),
    ({"enum": [float("inf")]}, "#/enum"),
    ({"enum": ["\ud800"]}, "#/enum"),
    ({"enum": [{1, 2}]}, "#/enum"),
    ({"type": "string", "enum": [1, 2]}, "#"),
    ({"anyOf": []}, "#/anyOf"),
    ({"anyOf": [False, False]}, "#/anyOf/0"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "#/allOf/1"),
    ({"allOf": [{"const": 1}, {"const": 2}]}, "#/allOf/1"),
    ({"$ref": "#/$defs/none"}, "#/$ref"),
    ({"$ref": 5}, "#/$ref"),
    ({"$ref": "#"}, "#"),
    ({"allOf": [{"$ref": "#"}]}, None),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, None),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "#"),
    (DEEP, None),
]


@pytest.mark.parametrize(("schema", "path"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_converted_is_refused_with_its_place(schema: Any, path: str | None):
    with pytest.raises(SchemaError) as caught:
        schema_grammar(schema)
    assert caught.value.path.startswith(path or "#")
    assert "#" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_cyclic_dicts_are_refused():
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    with pytest.raises(SchemaError, match="contains itself"):
        schema_grammar(schema)


# ----------------------------------------------------------------------------------------------------- response formats


class Tree(BaseModel):
    name: str = Field(pattern=r"^[a-z]+$")
    kind: Literal["leaf", "branch"]
    size: float = Field(ge=0, lt=10)
    children: list[Tree] = Field(default_factory=list, max_length=2)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def test_a_pydantic_model_is_parsed_as_an_instance(write_randomly: Writer, templates: ChatTemplates):
    plan = templates.prepare([{"role": "user", "content": "Hi"}], response_format=Tree)
    assert plan.response_format is not None
    finished = 0
    for seed in range(8):
        text, whole = write_randomly(plan, seed=seed)
        content = plan.parse(text).content
        if whole:
            finished += 1
            assert isinstance(plan.response_format.parse(content), Tree)
        else:
            with pytest.raises(OutputError) as caught:
                plan.response_format.parse(content)
            assert caught.value.text == content
    assert finished


@dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    name: str
    size: int


@pytest.mark.parametrize(
    ("response_format", "text", "value"),
    [
        (Point, '{"x":1}', Point(1)),
        (Row, '{"name":"a","size":2}', {"name": "a", "size": 2}),
        (list[Point], '[{"x":1,"y":2}]', [Point(1, 2)]),
        (Literal["yes", "no"], '"yes"', "yes"),
        (Point | None, "null", None),
        (dict[int, list[Row]], '{"5":[]}', {5: []}),
        (tuple[int, str], '[1,"x"]', (1, "x")),
    ],
    ids=range(7),
)
def test_types_are_response_formats(response_format: Any, text: str, value: Any, matches: Matcher):
    expected = check_response_format(response_format)
    assert expected is not None
    assert matches(expected.grammar, text)
    assert expected.parse(text) == value
    with pytest.raises(OutputError):
        expected.parse(text[:-1])


@pytest.mark.parametrize(
    "response_format",
    [
        SCHEMA,
        {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
        {"type": "json_schema", "schema": SCHEMA},
        {"type": "json_object", "schema": SCHEMA},
    ],
)
def test_forms_of_a_response_format(response_format: Any, write: Writer, templates: ChatTemplates):
    plan = templates.prepare([{"role": "user", "content": "Hi"}], response_format=response_format)
    text, _ = write(plan)
    jsonschema.validate(json.loads(plan.parse(text).content), SCHEMA)


@pytest.mark.parametrize("response_format", ["json", "json_object", {"type": "json_object"}])
def test_json_is_an_object(response_format: Any, write: Writer, templates: ChatTemplates):
    plan = templates.prepare(
        [{"role": "user", "content": 'Reply in JSON with the keys "a": 1, "b": 2.'}], response_format=response_format
    )
    text, finished = write(plan)
    assert not finished or isinstance(json.loads(plan.parse(text).content), dict)


def test_text_is_no_format(templates: ChatTemplates):
    for response_format in (None, "text", {"type": "text"}):
        assert check_response_format(response_format) is None


@pytest.mark.parametrize("response_format", ["yaml", 5, {"type": "json_schema"}, {"type": "xml"}, [], int])
def test_what_is_no_response_format_is_refused(response_format: Any, templates: ChatTemplates):
    with pytest.raises(SchemaError):
        templates.prepare([{"role": "user", "content": "Hi"}], response_format=response_format)


@pytest.mark.parametrize("name", FAMILIES)
def test_json_stands_alone_in_every_family(name: str, templates: ChatTemplates, write_randomly: Writer):
    plan = templates.prepare(
        [{"role": "user", "content": "Hi"}], response_format=SCHEMA, chat_template=FAMILIES[name].template
    )
    assert plan.prompt == templates.render([{"role": "user", "content": "Hi"}], chat_template=FAMILIES[name].template)
    for seed in range(3):
        text, finished = write_randomly(plan, seed=seed)
        if finished:
            message = plan.parse(text)
            jsonschema.validate(json.loads(message.content), SCHEMA)
            assert message.content == message.content.strip()


# ------------------------------------------------------------------------------------------------------------- grammars


@pytest.mark.parametrize(
    "grammar",
    [
        "",
        "root",
        "root ::= (",
        "root ::= other",
        'rule ::= "a"',
        "root ::= root",
        "%llguidance {}",
        5,
        "\ud800",
        "x" * 2**21,
    ],
)
def test_broken_grammars_are_refused(grammar: Any, templates: ChatTemplates):
    with pytest.raises(GrammarError) as caught:
        templates.prepare([{"role": "user", "content": "Hi"}], grammar=grammar)
    assert str(caught.value)
    assert templates.render([{"role": "user", "content": "Hi"}])


def test_a_grammar_decides_the_whole_answer(templates: ChatTemplates, write: Writer):
    plan = templates.prepare([{"role": "user", "content": "Hi"}], grammar='root ::= "<think>" [0-9]{3} <|im_end|>?')
    text, finished = write(plan)
    assert finished
    assert re.fullmatch("<think>[0-9]{3}", text)
    assert plan.parse(text).content == text


def test_a_grammar_is_the_only_form_of_an_answer(templates: ChatTemplates):
    user = [{"role": "user", "content": "Hi"}]
    grammar = 'root ::= "a"'
    for other in ({"tools": TOOLS}, {"response_format": "json"}):
        options: dict[str, Any] = other
        with pytest.raises(ConfigError):
            templates.prepare(user, grammar=grammar, **options)
    assert templates.prepare(user, tools=TOOLS, tool_choice="none", grammar=grammar).grammar
    assert templates.prepare(user, tools=TOOLS, tool_choice="none", response_format="json").grammar
    assert templates.prepare(user, tools=TOOLS, response_format="json").grammar
