"""Values as JSON schema compares them."""

from __future__ import annotations

from collections.abc import Collection, Mapping


def type_of(value: object) -> str:
    """Return the name of the type that JSON schema has for a value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = {float: "number", str: "string", type(None): "null"}
    return kinds.get(type(value), "array" if isinstance(value, (list, tuple)) else "object")


def is_of(value: object, types: Collection[str]) -> bool:
    """Whether a value is of one of these types."""
    kind = type_of(value)
    return kind in types or (kind == "integer" and "number" in types)


def same(one: object, other: object) -> bool:
    """Whether two values are equal: 1 and 1.0 are, 1 and true are not."""
    if type_of(one) != type_of(other):
        return False
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(x, y) for x, y in zip(one, other, strict=True))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return one == other


def contains(values: Collection[object], value: object) -> bool:
    """Whether a value is one of several."""
    return any(same(value, other) for other in values)
