"""JSON schemas of pydantic's types, corrected where pydantic's own schemas allow values that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_INTEGER_KEY = r"^(0|-?[1-9]\d{0,19})$"
_NUMBER_KEY = r"^-?(0|[1-9]\d{0,19})(\.\d{1,20})?$"

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}

#: How JSON writes keys of these types.
_KEYS: Mapping[str, dict[str, Any]] = {
    "int": {"pattern": _INTEGER_KEY},
    "float": {"pattern": _NUMBER_KEY},
    "decimal": {"pattern": _NUMBER_KEY},
    "bool": {"enum": ["true", "false"]},
    "uuid": {"format": "uuid"},
    "date": {"format": "date"},
    "time": {"format": "time"},
    "datetime": {"format": "date-time"},
    "timedelta": {"format": "duration"},
}


class SchemaGenerator(GenerateJsonSchema):
    """Describes how decimal numbers, and keys that are not texts, are written."""

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Return a number; where it has no bounds, also one in quotes, which keeps every digit."""
        number: JsonSchemaValue = {"type": "number"}
        for key, keyword in _BOUNDS.items():
            if schema.get(key) is not None:
                number[keyword] = float(schema.get(key, 0))
        places, digits = schema.get("decimal_places"), schema.get("max_digits")
        most = 20 if places is None else places
        whole = 20 if digits is None else max(0, digits - most)
        if places is not None:
            number["multipleOf"] = float(f"1e-{places}")
            if digits is not None:
                number |= {"exclusiveMinimum": -(10**whole), "exclusiveMaximum": 10**whole} | number
        if any(schema.get(key) is not None for key in _BOUNDS):
            return number
        fraction = rf"(\.\d{{1,{most}}})?" if most else ""
        pattern = rf"^-?(0|[1-9]\d{{0,{whole - 1}}}){fraction}$" if whole else rf"^-?0{fraction}$"
        return {"anyOf": [number, {"type": "string", "pattern": pattern}]}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Return an object whose keys have the form of their type."""
        result = super().dict_schema(schema)
        key = schema.get("keys_schema", {}).get("type", "")
        if key in _KEYS and "propertyNames" not in result and "patternProperties" not in result:
            result["propertyNames"] = _KEYS[key]
        return result
