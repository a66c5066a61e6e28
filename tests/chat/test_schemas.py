"""JSON schemas as grammars: what a model writes under one is valid, and what is no grammar is refused with its place."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cyllama import SchemaError
from cyllama.chat import GrammarSpec, schema_grammar

from .conftest import Writer

# ------------------------------------------------------------------------------------------------------------ any schema

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
        *("^$", "^(a(b(c)?)?){1,3}$", r"^\D\W[^\d]$", "^é+😀?$", r"^\n\t$"),
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
    except SchemaError as error:  # two properties of an allOf that exclude each other, for instance
        assert error.path.startswith("#")
        return False
    text, finished = write(GrammarSpec(grammar), max_tokens=400, seed=seed)
    if finished:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    return finished


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
