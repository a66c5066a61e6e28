"""Schemas of every draft, and the variants that servers accept, in the keywords of draft 2020-12.

The result has only keywords that constrain, each with a valid value, and references into ``$defs``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import SchemaError
from .gbnf import json_text
from .references import References, escape
from .values import contains, is_of

MAX_DEPTH = 64
MAX_NODES = 10_000

Schema = dict[str, Any]

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_TYPE_NAMES = {
    **{kind: kind for kind in TYPES},
    **{"str": "string", "text": "string", "int": "integer", "long": "integer", "float": "number", "double": "number"},
    **{"decimal": "number", "bool": "boolean", "dict": "object", "map": "object", "struct": "object"},
    **{"list": "array", "tuple": "array", "none": "null", "nil": "null"},
}
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_CONTAINS = ("minContains", "maxContains")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SCHEMAS = (
    *("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else"),
    *("unevaluatedProperties", "unevaluatedItems"),
)
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_MAPPINGS = ("properties", "patternProperties", "dependentSchemas")
_KEPT = frozenset(
    (
        *("type", "enum", "required", "pattern", "format", "uniqueItems", "dependentRequired"),
        *(*_COUNTS, *_CONTAINS, *_NUMBERS, *_SCHEMAS, *_LISTS, *_MAPPINGS),
    )
)
#: What authors mean by "min" and "max", by the type beside them.
_SHORT = {
    **dict.fromkeys(("integer", "number"), ("minimum", "maximum")),
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
}


@dataclass
class Normalized:
    """A schema in the keywords of draft 2020-12.

    Attributes:
        schema: The schema; references are to its ``$defs``.
        origins: By the pointer of a definition, the one that it has in the schema as it was given.
        left_out: Pointers and keywords that are not a schema's, and were ignored.
    """

    schema: Schema
    origins: dict[str, str] = field(default_factory=dict)
    left_out: dict[tuple[str, str], None] = field(default_factory=dict)


class Normalizer:
    """Normalizes one schema.

    Args:
        root: The schema.
        name: What errors call it.
        tolerant: Whether parts that are not a schema are ignored instead of refused.
    """

    def __init__(self, root: object, name: str, *, tolerant: bool) -> None:
        self._root = root
        self._name = name
        self._tolerant = tolerant
        self._references = References(root, tolerant=tolerant)
        self._names: dict[str, str] = {}  # of definitions, by what is referred to
        self._waiting: list[tuple[str, object, str]] = []
        self._nodes = 0
        self._result = Normalized({})

    def run(self) -> Normalized:
        """Return the normalized schema.

        Raises:
            SchemaError: It is not a schema, or too large.
        """
        schema = self._node(self._root, "#", 0)
        definitions: dict[str, Any] = {}
        while self._waiting:
            name, target, path = self._waiting.pop()
            definitions[name] = self._node(target, path, 0)
            self._result.origins[f"#/$defs/{name}"] = path
        if isinstance(schema, bool):
            schema = {"not": {}}
        self._result.schema = schema | ({"$defs": definitions} if definitions else {})
        return self._result

    def _fail(self, path: str, reason: str) -> SchemaError:
        return SchemaError(f"{self._name}: {path:.300}: {reason}", path)

    def _wrong(self, path: str, keyword: str, reason: str) -> None:
        """Refuse the value of a keyword, or ignore it."""
        place = f"{path}/{escape(keyword)}" if keyword else path
        if not self._tolerant:
            raise self._fail(place, reason)
        self._result.left_out[path, keyword] = None

    # -------------------- one schema

    def _node(self, node: object, path: str, depth: int) -> Schema | bool:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self._fail(path, f"it is nested deeper than {MAX_DEPTH}, or contains itself")
        if self._nodes > MAX_NODES:
            raise self._fail(path, f"the schema has more than {MAX_NODES} parts")
        if isinstance(node, bool):
            return False if not node else {}
        if not isinstance(node, Mapping):
            self._wrong(path, "", f"a schema is an object, not {type(node).__name__}: {node!r:.80}")
            return {}
        for key in node:
            if not isinstance(key, str):
                self._wrong(path, "", f"a keyword is a str, not {type(key).__name__}: {key!r:.80}")
        reference = self._reference(node, path)
        if reference is not None and self._references.ignores_siblings:
            return reference
        schema = self._keywords(self._modern(node, path), path, depth)
        if reference is None or not reference:
            return schema
        return {"allOf": [reference, schema]} if schema else reference

    def _modern(self, node: Mapping[Any, Any], path: str) -> Schema:
        """Return a schema with what old drafts wrote in another way."""
        schema = {key: value for key, value in node.items() if isinstance(key, str) and key in _KEPT}
        if isinstance(schema.get("items"), (list, tuple)):
            schema["prefixItems"] = schema.pop("items")
            if "additionalItems" in node:
                schema["items"] = node["additionalItems"]
        for key, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(schema.get(key), bool) and schema.pop(key) and limit in schema:
                schema[key] = schema.pop(limit)
        if "const" in node:
            values = schema.get("enum")
            listed = not isinstance(values, (list, tuple)) or contains(values, node["const"])
            schema["enum"] = [node["const"]] if listed else []
        if "divisibleBy" in node:
            schema.setdefault("multipleOf", node["divisibleBy"])
        if "extends" in node:
            extended = node["extends"]
            schema.setdefault("allOf", list(extended) if isinstance(extended, (list, tuple)) else [extended])
        dependencies = node.get("dependencies")
        if isinstance(dependencies, Mapping):
            names = {key: value for key, value in dependencies.items() if isinstance(value, (list, tuple))}
            names |= {key: [value] for key, value in dependencies.items() if isinstance(value, str)}
            schemas = {key: value for key, value in dependencies.items() if isinstance(value, (Mapping, bool))}
            schema |= ({"dependentRequired": names} if names else {}) | (
                {"dependentSchemas": schemas} if schemas else {}
            )
        return self._repaired(node, schema, path) if self._tolerant else schema

    def _repaired(self, node: Mapping[Any, Any], schema: Schema, path: str) -> Schema:
        """Return a schema with what its author means, although no draft says it."""
        for key, value in list(schema.items()):
            if value is None or (key == "required" and isinstance(value, bool)):
                del schema[key]  # the schema of a property that is required itself: see _properties
        kind = schema.get("type")
        for short, key in zip(("min", "max"), _SHORT.get(kind, ()) if isinstance(kind, str) else (), strict=False):
            if isinstance(node.get(short), (int, float)):
                schema.setdefault(key, node[short])
        if node.get("nullable") is True and isinstance(kind, str) and kind in TYPES:
            schema["type"] = [kind, "null"]
            if isinstance(schema.get("enum"), (list, tuple)):
                schema["enum"] = [*schema["enum"], None]
        if isinstance(schema.get("enum"), Mapping):
            schema["enum"] = list(schema["enum"])
        if schema.get("enum") in ([], ()):
            self._result.left_out[path, "enum"] = None
            del schema["enum"]
        for key in ("additionalProperties", "unevaluatedProperties", "items"):
            if schema.get(key) in ("true", "false"):
                schema[key] = schema[key] == "true"
        return schema

    def _keywords(self, given: Schema, path: str, depth: int) -> Schema:
        schema: Schema = {}
        for key, value in given.items():
            place = f"{path}/{key}"
            if key in _SCHEMAS:
                schema[key] = self._node(value, place, depth + 1)
            elif key in _LISTS:
                self._list(schema, key, value, path, depth)
            elif key in _MAPPINGS:
                self._mapping(schema, key, value, path, depth)
            else:
                _READERS.get(key, Normalizer._number)(self, schema, key, value, path)
        if "properties" in schema and self._tolerant:
            self._required_properties(schema, given["properties"])
        if schema.get("enum") and self._tolerant:
            self._enum_of_type(schema)
        return schema

    # -------------------- values of keywords

    def _list(self, schema: Schema, key: str, value: object, path: str, depth: int) -> None:
        if isinstance(value, Mapping) and self._tolerant:
            value = [value]
        if not isinstance(value, (list, tuple)) or (not value and key != "prefixItems"):
            self._wrong(path, key, f"expected a list of schemas, not {value!r:.80}")
            return
        if len(value) == 0:
            return
        schema[key] = [self._node(item, f"{path}/{key}/{i}", depth + 1) for i, item in enumerate(value)]

    def _mapping(self, schema: Schema, key: str, value: object, path: str, depth: int) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self._wrong(path, key, f"expected an object, not {value!r:.80}")
            return
        found = {}
        for name, item in value.items():
            try:
                name.encode()
            except UnicodeEncodeError:
                self._wrong(f"{path}/{key}/{escape(name)}", "", "the name of a property has a lone surrogate")
                continue
            found[name] = self._node(item, f"{path}/{key}/{escape(name)}", depth + 1)
        schema[key] = found

    def _required_properties(self, schema: Schema, properties: Mapping[str, Any]) -> None:
        """Take ``required: true`` in a property's schema for what draft 3 means by it."""
        names = [
            name for name, value in properties.items() if isinstance(value, Mapping) and value.get("required") is True
        ]
        if names:
            schema["required"] = list(dict.fromkeys([*schema.get("required", []), *names]))

    def _type(self, schema: Schema, key: str, value: object, path: str) -> None:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, (str, Mapping)) for name in names):
            self._wrong(path, key, f"expected the name of a type, or a list of them, not {value!r:.80}")
            return
        types: list[str] = []
        for name in names:
            if isinstance(name, Mapping) or name.lower() in ("any", "unknown", "mixed"):  # draft 3
                return
            kind = name if name in TYPES else self._tolerant and _TYPE_NAMES.get(name.lower())
            if not kind:
                self._wrong(path, key, f"there is no type {name!r:.80}: there are {', '.join(TYPES)}")
                return
            types.append(kind)
        if not types:
            self._wrong(path, key, "there is no type in it")
        elif "number" in types:
            types = [kind for kind in types if kind != "integer"]
        if types:
            schema[key] = list(dict.fromkeys(types))

    def _enum(self, schema: Schema, key: str, value: object, path: str) -> None:
        if not isinstance(value, (list, tuple)):
            self._wrong(path, key, f"expected a list of values, not {value!r:.80}")
            return
        found = []
        for item in value:
            try:
                json_text(item).encode()
                found.append(item)
            except (ValueError, TypeError, RecursionError) as error:
                self._wrong(path, key, f"a value is not JSON: {error}")
        schema[key] = found

    def _enum_of_type(self, schema: Schema) -> None:
        """Allow listed values of another type than the one beside them, and also as that type writes them."""
        types = schema.get("type", TYPES)
        values = schema["enum"]
        if any(is_of(value, types) for value in values):
            return
        del schema["type"]
        texts = [value if isinstance(value, str) else json_text(value) for value in values]
        others = texts if "string" in types else [number for text in texts if (number := _as_number(text)) is not None]
        schema["enum"] = [*values, *others]

    def _required(self, schema: Schema, key: str, value: object, path: str) -> None:
        if isinstance(value, str) and self._tolerant:
            value = [value]
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            self._wrong(path, key, f"expected a list of names, not {value!r:.80}")
            value = [name for name in value if isinstance(name, str)] if isinstance(value, (list, tuple)) else []
        schema[key] = list(dict.fromkeys(value))

    def _dependent(self, schema: Schema, key: str, value: object, path: str) -> None:
        if not isinstance(value, Mapping) or not all(isinstance(names, (list, tuple)) for names in value.values()):
            self._wrong(path, key, f"expected an object of lists of names, not {value!r:.80}")
            return
        schema[key] = {name: [other for other in names if isinstance(other, str)] for name, names in value.items()}

    def _count(self, schema: Schema, key: str, value: object, path: str) -> None:
        number = _as_number(value) if self._tolerant else value
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            self._wrong(path, key, f"expected an integer that is not negative, not {value!r:.80}")
            return
        schema[key] = number

    def _number(self, schema: Schema, key: str, value: object, path: str) -> None:
        number = _as_number(value) if self._tolerant else value
        if not isinstance(number, (int, float)) or isinstance(number, bool) or not math.isfinite(number):
            self._wrong(path, key, f"expected a number, not {value!r:.80}")
        elif key == "multipleOf" and number <= 0:
            self._wrong(path, key, f"expected a number above 0, not {value!r:.80}")
        else:
            schema[key] = number

    def _text(self, schema: Schema, key: str, value: object, path: str) -> None:
        if not isinstance(value, str):
            self._wrong(path, key, f"expected a str, not {type(value).__name__}: {value!r:.80}")
            return
        schema[key] = value

    def _flag(self, schema: Schema, key: str, value: object, _path: str) -> None:
        if value:
            schema[key] = True

    # -------------------- references

    def _reference(self, node: Mapping[Any, Any], path: str) -> Schema | None:
        """Return the reference of a schema in our own definitions, or ``None`` if it has none."""
        key = next((key for key in ("$ref", "$dynamicRef", "$recursiveRef") if key in node), None)
        if key is None:
            return None
        value = node[key]
        found = self._references.resolve(value)
        if found is None:
            if not isinstance(value, str) or value.startswith("#"):
                self._wrong(path, key, f"there is nothing at {value!r:.80}")
            self._result.left_out[path, key] = None
            return {}
        target, place = found
        if place not in self._names:
            self._names[place] = f"d{len(self._names)}"
            self._waiting.append((self._names[place], target, place))
        return {"$ref": f"#/$defs/{self._names[place]}"}


_READERS: dict[str, Callable[[Normalizer, Schema, str, Any, str], None]] = {
    "type": Normalizer._type,
    "enum": Normalizer._enum,
    "required": Normalizer._required,
    "dependentRequired": Normalizer._dependent,
    "pattern": Normalizer._text,
    "format": Normalizer._text,
    "uniqueItems": Normalizer._flag,
    **dict.fromkeys((*_COUNTS, *_CONTAINS), Normalizer._count),
}


def _as_number(value: Any) -> int | float | None:
    """Return a number, also of a text of one."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return int(number) if math.isfinite(number) and number.is_integer() else number
    return value
