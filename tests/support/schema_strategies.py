"""Schemas with values that are valid under them: the value is drawn first, and then a schema around it."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
_NAMES = st.text('abcxyz_ "\\/é😀-*', min_size=1, max_size=5)
_NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e9, 1e9).map(lambda number: number + 0.0)  # and no -0.0
VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4),
    max_leaves=8,
)
_OTHERS: tuple[Schema, ...] = (
    {"type": "string", "pattern": "^[a-z]{3}$"},
    {"type": "integer", "minimum": 3},
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}, "required": ["a"]},
    {"type": "array", "items": {"type": "boolean"}},
    {"enum": ["x", 1, None]},
    {"type": "object", "properties": {"kind": {"const": "k"}}, "required": ["kind"], "additionalProperties": False},
    {"type": "null"},
)


def type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {int: "integer", float: "number", str: "string", type(None): "null", list: "array"}
    return kinds.get(type(value), "object")


@st.composite
def schemas_of(draw: st.DrawFn, value: Any, depth: int = 0) -> Schema:
    """Return a schema under which a value is valid."""
    schema = draw(_PLAIN[type_of(value)](value, depth))
    if depth > 2:
        return schema
    form = draw(st.integers(0, 19))
    other = draw(st.sampled_from(_OTHERS))
    if form == 0:
        options = [other, schema] if draw(st.booleans()) else [schema, other]
        return {"anyOf": options}
    if form == 1:
        return {"allOf": [schema, {"minProperties": 0, "minItems": 0, "type": ["object", type_of(value)]}]}
    if form == 2:
        return schema | {"not": {"enum": ["never", -17]}}
    if form == 3:
        return schema | {"if": {"type": "object", "required": ["never"]}, "then": {"minProperties": 2}}
    if form == 4:
        return schema | {"title": "t", "x-order": 1, "markdownDescription": "d", "default": None, "$comment": "c"}
    if form == 5 and not isinstance(value, (dict, list)):
        return {"enum": [draw(_TEXTS), value, {"a": 1}]}
    if form == 6:
        return {"oneOf": [schema, {"type": "string", "const": "\u0000never"}]}
    if form == 7:
        return {"description": "anything"}
    return schema


@st.composite
def _strings(draw: st.DrawFn, value: str, _depth: int) -> Schema:
    schema: Schema = {"type": "string"}
    for key, bound in (("minLength", len(value) - draw(st.integers(0, 3))), ("maxLength", len(value) + 2)):
        if draw(st.booleans()):
            schema[key] = max(bound, 0)
    patterns = [
        f"^{re.escape(value)}$",
        re.escape(value[1:3]),
        f"^(?:x|{re.escape(value)})*$",
        rf"^(?!.*never)[\s\S]{{0,{len(value) + 1}}}$",
        f"(?={re.escape(value[:2])})",
    ]
    if draw(st.booleans()) and not value.endswith("\n"):
        schema["pattern"] = draw(st.sampled_from(patterns))
    return schema


@st.composite
def _numbers(draw: st.DrawFn, value: float, _depth: int) -> Schema:
    schema: Schema = {"type": "integer" if isinstance(value, int) and draw(st.booleans()) else "number"}
    below, above = draw(st.integers(0, 500)), draw(st.integers(0, 500))
    if draw(st.booleans()):
        schema |= (
            {"minimum": value - below} if not below or draw(st.booleans()) else {"exclusiveMinimum": value - below}
        )
    if draw(st.booleans()):
        schema |= (
            {"maximum": value + above} if not above or draw(st.booleans()) else {"exclusiveMaximum": value + above}
        )
    if isinstance(value, int) and value and draw(st.integers(0, 3)) == 0:
        schema["multipleOf"] = draw(
            st.sampled_from([n for n in (1, 2, 3, 5, 10, 25, 0.5, 0.01) if value % n == 0 or n < 1])
        )
    return schema


@st.composite
def _arrays(draw: st.DrawFn, value: list[Any], depth: int) -> Schema:
    schema: Schema = {"type": "array"}
    n = draw(st.integers(0, len(value)))
    if n:
        schema["prefixItems"] = [draw(schemas_of(item, depth + 1)) for item in value[:n]]
    rest = [draw(schemas_of(item, depth + 1)) for item in value[n:]]
    if rest or draw(st.booleans()):
        schema["items"] = {"anyOf": rest} if rest else {"type": "integer"}
    if draw(st.booleans()):
        schema["minItems"] = len(value) - draw(st.integers(0, len(value)))
    if draw(st.booleans()):
        schema["maxItems"] = len(value) + draw(st.integers(0, 3))
    if value and draw(st.integers(0, 4)) == 0:
        schema["contains"] = draw(schemas_of(draw(st.sampled_from(value)), depth + 1))
    return schema


@st.composite
def _objects(draw: st.DrawFn, value: dict[str, Any], depth: int) -> Schema:
    names = list(value)
    n = draw(st.integers(0, len(names)))
    properties: Schema = {}
    for name in names[:n]:
        if draw(st.integers(0, 3)) == 0:
            properties[draw(_NAMES.filter(lambda other: other not in value))] = draw(st.sampled_from(_OTHERS))
        properties[name] = draw(schemas_of(value[name], depth + 1))
    schema: Schema = {"type": "object"} | ({"properties": properties} if properties else {})
    rest = [draw(schemas_of(value[name], depth + 1)) for name in names[n:]]
    if rest:
        schema["additionalProperties"] = draw(st.sampled_from((True, {"anyOf": rest})))
    elif draw(st.booleans()):
        schema["additionalProperties"] = draw(st.sampled_from((False, {"type": "null"})))
    if names[:n] and draw(st.booleans()):
        schema["required"] = draw(st.lists(st.sampled_from(names[:n]), unique=True))
    extra = draw(st.integers(0, 9))
    if extra == 0:
        schema |= {"minProperties": max(0, len(names) - 1), "maxProperties": len(names) + 2}
    elif extra == 1 and n:
        schema["dependentRequired"] = {names[0]: [names[n - 1]]}
    elif extra == 2:
        schema["propertyNames"] = {"maxLength": 12}
    elif extra == 3:
        schema["patternProperties"] = {"^never": {"type": "null"}}
    return schema


_PLAIN: dict[str, Any] = {
    "string": _strings,
    "integer": _numbers,
    "number": _numbers,
    "array": _arrays,
    "object": _objects,
    "boolean": lambda _value, _depth: st.sampled_from(({"type": "boolean"}, {"type": ["boolean", "string"]})),
    "null": lambda _value, _depth: st.sampled_from(({"type": "null"}, {"type": ["null", "integer"]})),
}


@st.composite
def schemas_with_values(draw: st.DrawFn) -> tuple[Schema, Any]:
    """Return a schema, and a value that is valid under it, with its properties in the order of the schema."""
    value = draw(VALUES)
    schema = draw(schemas_of(value))
    if draw(st.integers(0, 3)) == 0:
        return {"$ref": "#/$defs/it", "$defs": {"it": schema}}, value
    return schema, value
