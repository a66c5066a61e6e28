"""Schemas combined: what is valid under two of them, and whether anything can be.

The schemas are normalized. More keywords occur in them: "excluded", values that are not valid, and "incomplete", true
where alternatives were left out because they are too many; "pattern" may be a tuple of several.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import lcm
from typing import Any

from .normalize import TYPES, Schema
from .regex_syntax import UnsupportedPatternError, as_python
from .values import contains, is_of, same, type_of

MAX_ALTERNATIVES = 64  # of a product

AnySchema = Schema | bool


class ImpossibleError(Exception):
    """Nothing is valid under a schema."""


def matches(pattern: str, text: str) -> bool:
    """Whether a text contains a match of a regular expression of ECMAScript; true for one that is not understood."""
    try:
        return re.search(as_python(pattern), text) is not None
    except (re.error, RecursionError, OverflowError, UnsupportedPatternError):
        return True


def property_schema(schema: Schema, name: str) -> AnySchema:
    """Return the schema of the value of a property."""
    found: list[AnySchema] = []
    if name in schema.get("properties", {}):
        found.append(schema["properties"][name])
    found += [value for pattern, value in schema.get("patternProperties", {}).items() if matches(pattern, name)]
    if not found:
        return schema.get("additionalProperties", {})
    return both(*found)


def both(*schemas: AnySchema) -> AnySchema:
    """Return a schema for the values that are valid under each of these."""
    if False in schemas:
        return False
    parts = [schema for schema in schemas if schema]
    return parts[0] if len(parts) == 1 else {"allOf": parts} if parts else {}


def merge(one: Schema, other: Schema) -> Schema:
    """Return the constraints of two schemas without references, ``allOf`` and what :func:`expand` rewrites.

    Raises:
        ImpossibleError: Nothing is valid under both.
    """
    one, other = _with_all_properties(one, other), _with_all_properties(other, one)
    one, other = _with_all_items(one, other), _with_all_items(other, one)
    merged = dict(one)
    for key, value in other.items():
        if key not in merged:
            merged[key] = value
        elif key == "anyOf" and len(value) * len(merged[key]) > MAX_ALTERNATIVES:
            merged |= {"anyOf": min(value, merged[key], key=len), "incomplete": True}
        elif key in _MERGED:
            merged[key] = _MERGED[key](merged[key], value)
    for key in ("type", "enum", "anyOf"):
        if merged.get(key) == []:
            raise ImpossibleError(_REASONS[key])
    return merged


_REASONS = {
    "type": "its types exclude each other",
    "enum": "its constants exclude each other",
    "anyOf": "its alternatives exclude each other",
}


def _with_all_properties(schema: Schema, other: Schema) -> Schema:
    """Name all properties that ``other`` names, so that the rules for unnamed properties still apply to them."""
    if not schema.keys() & {"additionalProperties", "patternProperties"}:
        return schema
    own = schema.get("properties", {})
    added = {name: property_schema(schema, name) for name in other.get("properties", {}) if name not in own}
    return schema | {"properties": {**own, **added}} if added else schema


def _with_all_items(schema: Schema, other: Schema) -> Schema:
    """List at least as many first items as ``other`` does."""
    first, wanted = schema.get("prefixItems", []), len(other.get("prefixItems", []))
    if len(first) >= wanted:
        return schema
    return schema | {"prefixItems": [*first, *[schema.get("items", {})] * (wanted - len(first))]}


def _merge_types(one: list[str], other: list[str]) -> list[str]:
    integer = ["integer"] if "integer" in one + other and ("number" in one or "number" in other) else []
    return list(dict.fromkeys([*(kind for kind in one if kind in other), *integer]))


def _merge_properties(one: Schema, other: Schema) -> Schema:
    return {**one, **{key: both(one[key], value) if key in one else value for key, value in other.items()}}


def _merge_alternatives(one: list[Any], other: list[Any]) -> list[Any]:
    pairs = [both(x, y) for x in one for y in other]
    return [pair for pair in pairs if pair is not False]


def _merge_patterns(one: Any, other: Any) -> Any:
    first, second = ([value] if isinstance(value, str) else list(value) for value in (one, other))
    found = list(dict.fromkeys([*first, *second]))
    return tuple(found) if len(found) > 1 else found[0]


def _merge_multiples(one: float, other: float) -> float:
    first, second = (Fraction(str(value)) for value in (one, other))
    common = Fraction(lcm(first.numerator * second.denominator, second.numerator * first.denominator))
    found = common / (first.denominator * second.denominator)
    return int(found) if found.denominator == 1 else float(found)


_MERGED: dict[str, Callable[[Any, Any], Any]] = {
    "type": _merge_types,
    "enum": lambda one, other: [value for value in one if contains(other, value)],
    "excluded": lambda one, other: [*one, *other],
    "properties": _merge_properties,
    "patternProperties": _merge_properties,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    "prefixItems": lambda one, other: [both(x, y) for x, y in zip(one, other, strict=True)],
    "anyOf": _merge_alternatives,
    "pattern": _merge_patterns,
    "multipleOf": _merge_multiples,
    **dict.fromkeys(("additionalProperties", "items", "propertyNames"), both),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}

# --------------------------------------------------------------------------------------------------------- without: not


def expand(schema: Schema, leave_out: Callable[[str], None], resolve: Callable[[AnySchema], AnySchema]) -> Schema:
    """Return a schema in which conditions and negations are written as alternatives.

    Args:
        schema: The schema.
        leave_out: Called with each keyword whose rewritten form allows more values.
        resolve: Returns a schema without a reference at its top.

    Raises:
        ImpossibleError: Nothing is valid under it.
    """
    if not schema.keys() & _EXPANDED.keys():
        return schema
    result = {key: value for key, value in schema.items() if key not in _EXPANDED and key not in ("then", "else")}
    for key, rewrite in _EXPANDED.items():
        if key in schema:
            for part in rewrite(schema, lambda key=key: leave_out(key), resolve):
                if part is False:
                    raise ImpossibleError(f"nothing is valid under its {key!r}")
                result = _also(result, part)
    return result


def _also(schema: Schema, part: AnySchema) -> Schema:
    """Add a schema to the required ones, in the order in which properties are written."""
    if not isinstance(part, dict) or not part:
        return schema
    if set(part) == {"anyOf"} and "anyOf" not in schema:
        return schema | part
    return schema | {"allOf": [*schema.get("allOf", []), part]}


Rewrite = Callable[[Schema, Callable[[], None], Callable[[AnySchema], AnySchema]], list[AnySchema]]


def _one_of(
    schema: Schema, leave_out: Callable[[], None], resolve: Callable[[AnySchema], AnySchema]
) -> list[AnySchema]:
    options: list[AnySchema] = schema["oneOf"]
    names = [_only_required(option) for option in options]
    single = [found[0] for found in names if found is not None and len(found) == 1]
    if len(set(single)) == len(options):
        return [{"anyOf": [_exactly_one(name, single) for name in single]}]
    profiles = [_profile(resolve(option), resolve) for option in options]
    if not all(_disjoint(one, other) for i, one in enumerate(profiles) for other in profiles[:i]):
        leave_out()
    return [{"anyOf": options}]


def _exactly_one(name: str, names: list[str]) -> Schema:
    others = {other: False for other in names if other != name}
    return {"required": [name]} | ({"properties": others} if others else {})


def _only_required(schema: AnySchema) -> list[str] | None:
    return schema["required"] if isinstance(schema, dict) and set(schema) == {"required"} else None


def _not(schema: Schema, leave_out: Callable[[], None], _resolve: Callable[[AnySchema], AnySchema]) -> list[AnySchema]:
    negated = negation(schema["not"])
    if negated is None:
        leave_out()
        return []
    return [negated]


def negation(schema: AnySchema) -> AnySchema | None:
    """Return the negation of a simple schema of objects or values; ``None`` for other schemas."""
    if isinstance(schema, bool) or not schema:
        return schema is False
    if set(schema) == {"anyOf"}:
        parts = [negation(option) for option in schema["anyOf"]]
        return None if None in parts else both(*(part for part in parts if part is not None))
    if set(schema) == {"type"}:
        removed = set(schema["type"]) | ({"integer"} if "number" in schema["type"] else set())
        return (
            None
            if "integer" in removed and "number" not in removed
            else {"type": [t for t in TYPES if t not in removed]}
        )
    if set(schema) == {"enum"}:
        return {"excluded": schema["enum"]}
    if schema.keys() <= {"type", "properties", "required"} and schema.get("type", ["object"]) == ["object"]:
        return _negated_object(schema)
    return None


def _negated_object(schema: Schema) -> AnySchema | None:
    options: list[AnySchema] = [{"properties": {name: False}} for name in schema.get("required", ())]
    for name, value in schema.get("properties", {}).items():
        negated = negation(value)
        if negated is None:
            return None
        if negated is not False:
            options.append({"properties": {name: negated}, "required": [name]})
    return {"anyOf": options} if options else False


def _if(schema: Schema, leave_out: Callable[[], None], _resolve: Callable[[AnySchema], AnySchema]) -> list[AnySchema]:
    condition, then, otherwise = schema["if"], schema.get("then", {}), schema.get("else", {})
    if then == {} and otherwise == {}:
        return []
    negated = negation(condition)
    if negated is None:
        leave_out()
    options = [both(condition, then), both({} if negated is None else negated, otherwise)]
    return [] if {} in options else [{"anyOf": [option for option in options if option is not False]}]


def _dependent_required(schema: Schema, _leave_out: Any, _resolve: Any) -> list[AnySchema]:
    return [
        {"anyOf": [{"properties": {name: False}}, {"required": [name, *names]}]}
        for name, names in schema["dependentRequired"].items()
        if names
    ]


def _dependent_schemas(schema: Schema, _leave_out: Any, _resolve: Any) -> list[AnySchema]:
    return [
        {"anyOf": [{"properties": {name: False}}, both({"required": [name]}, value)]}
        for name, value in schema["dependentSchemas"].items()
        if value != {}
    ]


def _contains(schema: Schema, leave_out: Callable[[], None], _resolve: Any) -> list[AnySchema]:
    least = schema.get("minContains", 1)
    if least == 0 and "maxContains" not in schema:
        return []
    leave_out()
    return [{"minItems": least}] if least else []


def _unevaluated(key: str, rest: str) -> Rewrite:
    def rewrite(schema: Schema, leave_out: Callable[[], None], _resolve: Any) -> list[AnySchema]:
        value = schema[key]
        if value != {} and (value is not False or rest in schema):
            leave_out()
        return []

    return rewrite


def _nothing(_schema: Schema, _leave_out: Any, _resolve: Any) -> list[AnySchema]:
    return []


#: What each keyword is rewritten to.
_EXPANDED: dict[str, Rewrite] = {
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
    "dependentRequired": _dependent_required,
    "dependentSchemas": _dependent_schemas,
    "contains": _contains,
    "minContains": _nothing,
    "maxContains": _nothing,
    "unevaluatedProperties": _unevaluated("unevaluatedProperties", "additionalProperties"),
    "unevaluatedItems": _unevaluated("unevaluatedItems", "items"),
}

# ------------------------------------------------------------------------------------------------- of two alternatives

#: Types, listed values, and the listed values of required properties.
_Profile = tuple[set[str], list[Any] | None, dict[str, list[Any]]]


def _profile(schema: AnySchema, resolve: Callable[[AnySchema], AnySchema]) -> _Profile:
    if schema is False:
        return set(), None, {}
    if not isinstance(schema, dict) or schema.keys() & {"anyOf", "oneOf", "$ref", "allOf"}:
        return set(TYPES), None, {}
    values = schema.get("enum")
    kinds = schema.get("type", TYPES) if values is None else {type_of(value) for value in values}
    types = {*kinds, *(["integer"] if "number" in kinds else [])}
    tags: dict[str, list[Any]] = {}
    for name in schema.get("required", ()):
        tag = resolve(schema.get("properties", {}).get(name, {}))
        if isinstance(tag, dict) and "enum" in tag:
            tags[name] = tag["enum"]
    return types, values, tags


def _disjoint(one: _Profile, other: _Profile) -> bool:
    if not one[0] & other[0]:
        return True
    if one[1] is not None and other[1] is not None:
        return not any(same(x, y) for x in one[1] for y in other[1])
    if one[0] == other[0] == {"object"}:
        common = one[2].keys() & other[2].keys()
        return any(not any(same(x, y) for x in one[2][key] for y in other[2][key]) for key in common)
    return False


def implied_types(schema: Schema) -> list[str]:
    """Return the types of a schema; without "type", the types that its keywords are about."""
    if "type" in schema:
        return schema["type"]
    found = [kind for kind in TYPES if kind != "integer" and schema.keys() & OF_TYPE[kind]]
    return found or list(TYPES[:3] + TYPES[4:])


OF_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        (
            *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
            *("patternProperties", "propertyNames"),
        )
    ),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
    "string": frozenset(("minLength", "maxLength", "pattern", "format")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
    "boolean": frozenset(),
    "null": frozenset(),
}


def allowed(values: list[Any], schema: Schema) -> list[Any]:
    """Return the values that are of a schema's types and not excluded."""
    types = schema.get("type", TYPES)
    return [value for value in values if is_of(value, types) and not contains(schema.get("excluded", ()), value)]
