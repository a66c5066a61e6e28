"""Validation of values, for the keywords that the grammar does not enforce."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import OutputError
from .formats import PATTERNS

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


def validator(schema: Mapping[str, Any]) -> Validator:
    """Return what validates under a normalized schema, with the formats that grammars enforce."""
    import jsonschema  # here, since `import cyllama` is faster without
    from jsonschema import validators

    from .algebra import matches

    checker = jsonschema.FormatChecker(formats=())
    for name, pattern in PATTERNS.items():
        checker.checks(name)(lambda value, pattern=pattern: not isinstance(value, str) or matches(pattern, value))
    kind = validators.extend(
        jsonschema.Draft202012Validator,
        {"pattern": _pattern, "patternProperties": _properties, "multipleOf": _multiple},
    )
    return kind(schema, format_checker=checker)


def is_valid(value: Any, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    """Whether a value is valid under a part of a normalized schema."""
    patterns = schema.get("pattern")
    if isinstance(patterns, tuple):
        schema = {**schema, "pattern": patterns[0], "allOf": [{"pattern": pattern} for pattern in patterns[1:]]}
    return validator({**schema, "$defs": definitions}).is_valid(value)


def problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    """Return why a value is not valid under a normalized schema; ``None`` if it is."""
    from jsonschema.exceptions import best_match

    error = best_match(validator(schema).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message:.500}"


def check_json(text: str, schema: Mapping[str, Any], what: str) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.
        schema: The normalized schema that it has to be valid under.
        what: What errors call it.

    Raises:
        OutputError: It is not JSON, or not valid.
    """
    try:
        value = json.loads(text)
        reason = problem(value, schema)
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{what} is not JSON: {error}", text) from error
    if reason is not None:
        raise OutputError(f"{what} is not valid: {reason}", text)
    return value


def _pattern(_validator: Validator, pattern: str, value: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    from .algebra import matches

    if isinstance(value, str) and not matches(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _properties(validator: Any, patterns: Mapping[str, Any], value: Any, _schema: Any) -> Iterator[Any]:
    from .algebra import matches

    if not isinstance(value, dict):
        return
    for pattern, schema in patterns.items():
        for name, item in value.items():
            if matches(pattern, name):
                yield from validator.descend(item, schema, path=name, schema_path=pattern)


def _multiple(_validator: Validator, step: float, value: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, (int, float)) and not isinstance(value, bool) and Decimal(str(value)) % Decimal(str(step)):
        yield ValidationError(f"{value!r} is not a multiple of {step!r}")
