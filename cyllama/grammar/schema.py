"""JSON schemas as grammars: every text that fits the grammar is valid under the schema.

llama.cpp converts schemas (``common/json-schema-to-grammar.h``), but ignores what it does not know, and says nothing of
where in a schema something is wrong. So a schema is first written in the few words that llama.cpp takes exactly; for
what it has no words for, a constant stands in that is replaced in the grammar. What cannot be converted is refused. The
grammar may allow less than the schema, such as no properties that are not named, but never more.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from ..errors import SchemaError
from ..llama.llama_cpp import json_schema_to_grammar
from . import numbers, regex

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_PROPERTIES = 500
MAX_OPTIONAL = 64  # llama.cpp's rules for them grow with the square
MAX_ITEMS = 500  # llama.cpp repeats a rule with a separator no more often
MAX_ALTERNATIVES = 1000
MAX_NAME = 500

Schema = dict[str, Any]

_ANNOTATIONS = frozenset(
    (
        *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "nullable"),
        *("$schema", "$id", "$comment", "$defs", "definitions", "discriminator", "strict", "xml", "externalDocs"),
        *("contentEncoding", "contentMediaType", "contentSchema", "$vocabulary"),
    )
)
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_OF_TYPE["integer"] = _OF_TYPE["number"]
_OF_TYPE["boolean"] = _OF_TYPE["null"] = ()
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_KNOWN = frozenset(("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", *sum(_OF_TYPE.values(), ())))
_FORMATS = ("date", "time", "date-time", "uuid")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_ANYTHING: Schema = {"description": "anything"}  # {} would be an object to llama.cpp
_CHAR = "text-character"  # names of rules of our own have a hyphen where llama.cpp's have the path of a property
_STAND_IN = "\ue000stand-in:"


class _ImpossibleError(SchemaError):
    """Nothing is valid under a part of a schema, which may be one of several alternatives."""


@dataclass
class Conversion:
    """A schema in llama.cpp's words.

    Attributes:
        schema: What llama.cpp is given.
        stand_ins: Constants of it, as they appear in the grammar, and what they stand for.
        rules: Rules that those refer to.
    """

    schema: Schema
    stand_ins: dict[str, str] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)


def convert(schema: object, *, name: str = "schema", number: int = 0) -> Conversion:
    """Return a schema in words that llama.cpp takes exactly.

    Args:
        schema: A JSON schema.
        name: What errors call it.
        number: Tells it from other schemas in the same grammar.

    Raises:
        SchemaError: It cannot be converted, or nothing is valid under it.
    """
    return _Converter(schema, name, number).run()


def model_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a pydantic model.

    Raises:
        SchemaError: It has none.
    """
    try:
        return model.model_json_schema()
    except PydanticUserError as error:
        raise SchemaError(f"there is no JSON schema of {model.__name__}: {error}") from error


def schema_grammar(schema: object, *, name: str = "schema") -> str:
    """Return the GBNF grammar of a schema.

    Raises:
        SchemaError: It cannot be converted, or nothing is valid under it.
    """
    conversion = convert(schema, name=name)
    try:
        grammar = json_schema_to_grammar(json.dumps(conversion.schema, ensure_ascii=False))
    except ValueError as error:
        raise SchemaError(f"{name}: {error}", "#") from error
    return finish_grammar(grammar, [conversion])


def finish_grammar(grammar: str, conversions: Iterable[Conversion]) -> str:
    """Put what stand-ins stand for into a grammar of llama.cpp's, and repair its own rules."""
    rules: dict[str, str] = {}
    for conversion in conversions:
        for stand_in, body in conversion.stand_ins.items():
            grammar = grammar.replace(stand_in, f"( {body} )")
        rules |= conversion.rules
    lines = []
    for line in grammar.rstrip("\n").split("\n"):  # and not at the other ends of lines that Unicode has
        rule, _, body = line.partition(" ::= ")
        lines.append(f"{rule} ::= {_BETTER_RULES.get((rule, body), body)}")
    return "\n".join([*lines, *(f"{rule} ::= {body}" for rule, body in rules.items())]) + "\n"


#: Rules of llama.cpp's that allow half of a surrogate pair, which is no text, a number that is not finite, or a day
#: that does not exist; with its own words, so that no other rule of the name is meant.
_BETTER_RULES = {
    ("char", r'[^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4})'): regex.CHAR,
    (
        "number",
        '("-"? integral-part) ("." decimal-part)? ([eE] [-+]? integral-part)?',
    ): '"-"? integral-part ("." decimal-part)? ([eE] [-+]? [0-9] [0-9]?)?',
    (
        "date",
        '[0-9]{4} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | [1-2] [0-9] | "3" [0-1] )',
    ): '[1-9] [0-9]{3} "-" ( ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | "1" [0-9] | "2" [0-8] ) | '
    '( "0" [13-9] | "1" [0-2] ) "-" ( "29" | "30" ) | ( "0" [13578] | "1" [02] ) "-31" )',
}


class _Converter:
    """Converts one schema. Errors name the place by a JSON pointer."""

    def __init__(self, root: object, name: str, number: int) -> None:
        self._root = root
        self._name = name
        self._index = number
        self._prefix = f"schema-{number}-"
        self._definitions: dict[str, str] = {}  # by what is referred to
        self._converted: dict[str, Schema] = {}
        self._waiting: list[tuple[str, object, str]] = []
        self._nodes = 0
        self._result = Conversion({})

    def run(self) -> Conversion:
        converted = self._convert(self._root, "#", 0)
        while self._waiting:
            definition, target, path = self._waiting.pop()
            self._converted[definition] = self._convert(target, path, 0)
        self._check_recursion(converted)
        if "$ref" in converted:
            converted = {"anyOf": [converted]}  # llama.cpp does not look beside a reference
        self._result.schema = converted | ({"$defs": self._converted} if self._converted else {})
        if any(_CHAR in body for body in (*self._result.stand_ins.values(), *self._result.rules.values())):
            self._result.rules[_CHAR] = regex.CHAR
        return self._result

    # -------------------- errors

    def _fail(self, path: str, reason: str) -> SchemaError:
        return SchemaError(f"{self._name}: {path:.300}: {reason}", path)

    def _impossible(self, path: str, reason: str) -> SchemaError:
        return _ImpossibleError(f"{self._name}: {path:.300}: {reason}", path)

    # -------------------- any schema

    def _convert(self, node: object, path: str, depth: int) -> Schema:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self._fail(path, f"it is nested deeper than {MAX_DEPTH}, or contains itself")
        if self._nodes > MAX_NODES:
            raise self._fail(path, f"the schema has more than {MAX_NODES} parts")
        schema = self._constraints(node, path)
        if not schema:
            return _ANYTHING
        if "$ref" in schema:
            return self._reference(schema, path, depth)
        if "allOf" in schema:
            return self._convert(self._merge_all(schema, path, depth), path, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._alternatives(schema, keyword, path, depth)
        if "enum" in schema or "const" in schema:
            return self._enumeration(schema, path)
        types = self._types(schema, path)
        if len(types) > 1:
            options = [{"type": kind} | {key: schema[key] for key in _OF_TYPE[kind] if key in schema} for kind in types]
            return self._any_of(options, path, [path] * len(options), depth)
        return self._of_type(types[0], schema, path, depth)

    def _of_type(self, kind: str, schema: Schema, path: str, depth: int) -> Schema:
        if kind == "object":
            return self._object(schema, path, depth)
        if kind == "array":
            return self._array(schema, path, depth)
        if kind == "string":
            return self._string(schema, path)
        if kind == "integer":
            return self._integer(schema, path)
        if kind == "number":
            return self._number(schema, path)
        return {"type": kind}

    def _constraints(self, node: object, path: str) -> Schema:
        """Return a schema without what does not constrain."""
        if node is True:
            return {}
        if node is False:
            raise self._impossible(path, "nothing is valid under false")
        if not isinstance(node, Mapping):
            raise self._fail(path, f"a schema is an object, not {type(node).__name__}: {node!r:.80}")
        schema = {}
        for key, value in node.items():
            if not isinstance(key, str):
                raise self._fail(path, f"a keyword is a str, not {type(key).__name__}: {key!r:.80}")
            if key in _KNOWN:
                schema[key] = value
            elif key not in _ANNOTATIONS and not key.startswith("x-"):
                raise self._fail(f"{path}/{_escape(key)}", f"the keyword {key!r:.80} cannot be converted to a grammar")
        for key in _COUNTS:
            if key in schema:
                schema[key] = self._count(schema[key], f"{path}/{key}")
        if schema.get("uniqueItems") is False:
            del schema["uniqueItems"]
        return schema

    def _count(self, value: object, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._fail(path, f"expected a number of things, not {value!r:.80}")
        return value

    def _types(self, schema: Schema, path: str) -> list[str]:
        types = schema.get("type")
        if types is None:
            types = [kind for kind in _TYPES if kind != "integer" and any(key in schema for key in _OF_TYPE[kind])]
        elif isinstance(types, str):
            types = [types]
        if not isinstance(types, (list, tuple)) or not all(isinstance(kind, str) for kind in types):
            raise self._fail(f"{path}/type", f"expected the name of a type, or a list of them, not {types!r:.80}")
        for kind in types:
            if kind not in _TYPES:
                raise self._fail(f"{path}/type", f"there is no type {kind!r:.80}: there are {', '.join(_TYPES)}")
        if not types:
            raise self._impossible(f"{path}/type", "there is no type in it")
        if "number" in types:
            types = [kind for kind in types if kind != "integer"]
        return list(dict.fromkeys(types))

    # -------------------- references

    def _resolve(self, reference: object, path: str) -> tuple[object, str]:
        """Return what a reference refers to, and its place."""
        if not isinstance(reference, str) or not reference.startswith("#") or reference[1:2] not in ("", "/"):
            raise self._fail(
                f"{path}/$ref", f"only references such as '#/$defs/name' can be resolved: {reference!r:.80}"
            )
        node: Any = self._root
        for part in reference[2:].split("/") if reference[2:] else ():
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(node, Mapping) and key in node:
                node = node[key]
            elif isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                raise self._fail(f"{path}/$ref", f"there is nothing at {reference!r:.80}")
        return node, reference

    def _reference(self, schema: Schema, path: str, depth: int) -> Schema:
        target, place = self._resolve(schema["$ref"], path)
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        if siblings:
            return self._convert({"allOf": [target, siblings]}, path, depth + 1)
        if place not in self._definitions:
            definition = f"{self._prefix}definition-{len(self._definitions)}"
            self._definitions[place] = definition
            self._waiting.append((definition, target, place))
        return {"$ref": f"#/$defs/{self._definitions[place]}"}

    def _check_recursion(self, root: Schema) -> None:
        places = {definition: place for place, definition in self._definitions.items()}
        finite: set[str] = set()
        while True:  # what ends, given what is known to end
            found = {
                name for name, node in self._converted.items() if name not in finite and self._can_end(node, finite)
            }
            if not found:
                break
            finite |= found
        for name in self._converted:
            if name not in finite:
                raise self._fail(places[name], "the schema is cyclic: no value that is valid under it has an end")
        if not self._can_end(root, finite):
            raise self._fail("#", "the schema is cyclic: no value that is valid under it has an end")
        for name in self._converted:
            seen = {name}
            waiting = [name]
            while waiting:
                for reference in _beginnings(self._converted[waiting.pop()]):
                    if reference == name:
                        raise self._fail(places[name], "the schema is cyclic: it is an alternative of itself")
                    if reference not in seen:
                        seen.add(reference)
                        waiting.append(reference)

    def _can_end(self, node: Schema, finite: set[str]) -> bool:
        if "$ref" in node:
            return _definition(node) in finite
        if "anyOf" in node:
            return any(self._can_end(option, finite) for option in node["anyOf"])
        if "properties" in node:
            return all(self._can_end(node["properties"][key], finite) for key in node["required"])
        items = node.get("items")
        if isinstance(items, list):
            return all(self._can_end(item, finite) for item in items)
        return not items or not node.get("minItems") or self._can_end(items, finite)

    # -------------------- combinations

    def _merge_all(self, schema: Schema, path: str, depth: int) -> Schema:
        components = schema["allOf"]
        if not isinstance(components, (list, tuple)) or not components:
            raise self._fail(f"{path}/allOf", "expected a list of schemas")
        merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        for i, component in enumerate(components):
            place, steps = f"{path}/allOf/{i}", 0
            part = self._constraints(component, place)
            while "$ref" in part:
                target, _ = self._resolve(part.pop("$ref"), place)
                steps += 1
                if steps > MAX_DEPTH:
                    raise self._fail(place, "the reference leads back to itself")
                part = self._merge(part, self._constraints(target, place), place)
            if "allOf" in part:
                if depth > MAX_DEPTH:
                    raise self._fail(place, f"it is nested deeper than {MAX_DEPTH}, or contains itself")
                part = self._merge_all(part, place, depth + 1)
            merged = self._merge(merged, part, place)
        return merged

    def _merge(self, one: Schema, other: Schema, path: str) -> Schema:
        """Return the constraints of both."""
        one, other = _with_additional(one, other), _with_additional(other, one)
        merged = dict(one)
        for key, value in other.items():
            if key not in merged or _same(merged[key], value):
                merged[key] = value
            elif key == "const":
                raise self._impossible(path, "its constants exclude each other")
            elif key in _MERGED:
                try:
                    merged[key] = _MERGED[key](merged[key], value)
                except TypeError as error:
                    raise self._fail(path, f"two values of {key!r} cannot be compared") from error
            else:
                raise self._fail(path, f"two values of {key!r} cannot be combined")
        if isinstance(merged.get("type"), (list, tuple)) and not merged["type"]:
            raise self._impossible(path, "its types exclude each other")
        return merged

    def _alternatives(self, schema: Schema, keyword: str, path: str, depth: int) -> Schema:
        options = schema[keyword]
        if not isinstance(options, (list, tuple)) or not options:
            raise self._fail(f"{path}/{keyword}", "expected a list of schemas")
        if len(options) > MAX_ALTERNATIVES:
            raise self._fail(f"{path}/{keyword}", f"there are more than {MAX_ALTERNATIVES} alternatives")
        if keyword == "oneOf":
            self._check_disjoint(options, path)
        siblings = {key: value for key, value in schema.items() if key != keyword}
        paths = [f"{path}/{keyword}/{i}" for i in range(len(options))]
        if siblings:
            options = [{"allOf": [option, siblings]} for option in options]
        return self._any_of(options, f"{path}/{keyword}", paths, depth)

    def _any_of(self, options: Iterable[object], path: str, paths: Iterable[str], depth: int) -> Schema:
        converted: list[Schema] = []
        problem: SchemaError | None = None
        for option, place in zip(options, paths, strict=True):
            try:
                result = self._convert(option, place, depth + 1)
            except _ImpossibleError as error:
                problem = problem or error
                continue
            if result not in converted:
                converted.append(result)
        if not converted:
            raise problem or self._impossible(path, "there are no alternatives")
        return converted[0] if len(converted) == 1 else {"anyOf": converted}

    def _check_disjoint(self, options: Iterable[object], path: str) -> None:
        """Refuse a oneOf in which a value may be valid under two schemas."""
        profiles = []
        for i, option in enumerate(options):
            place = f"{path}/oneOf/{i}"
            try:
                schema = self._merge_all({"allOf": [option]}, place, 0)
            except _ImpossibleError:
                continue
            profiles.append(self._profile(schema, place))
        for i, one in enumerate(profiles):
            for j in range(i):
                if not _are_disjoint(one, profiles[j]):
                    raise self._fail(
                        f"{path}/oneOf",
                        "a value may be valid under two of them, which a grammar cannot exclude: use anyOf",
                    )

    def _profile(self, schema: Schema, path: str) -> tuple[set[str], list[Any] | None, dict[str, list[Any]]]:
        """Return the types of a schema, its values if they are listed, and those of its required properties."""
        if any(key in schema for key in ("anyOf", "oneOf", "$ref")):
            return set(_TYPES), None, {}
        values = _listed(schema)
        types = (
            {_type_of(value) for value in values} if values is not None else set(self._types(schema, path) or _TYPES)
        )
        if "number" in types:
            types.add("integer")
        tags = {}
        properties, required = schema.get("properties"), schema.get("required", ())
        if isinstance(properties, Mapping) and isinstance(required, (list, tuple)):
            for key in required:
                tag = _listed(properties.get(key)) if isinstance(key, str) else None
                if tag is not None:
                    tags[key] = tag
        return types, values, tags

    # -------------------- values

    def _enumeration(self, schema: Schema, path: str) -> Schema:
        values = schema.get("enum", [schema.get("const")])
        if not isinstance(values, (list, tuple)):
            raise self._fail(f"{path}/enum", f"expected a list of values, not {values!r:.80}")
        if "const" in schema:
            values = [value for value in values if _same(value, schema["const"])]
        if len(values) > MAX_ALTERNATIVES:
            raise self._fail(f"{path}/enum", f"there are more than {MAX_ALTERNATIVES} values")
        types = self._types(schema, path) if "type" in schema else _TYPES
        rest = [key for key in schema if key not in ("enum", "const", "type")]
        kept = []
        for value in values:
            try:
                json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
            except (ValueError, TypeError, RecursionError) as error:
                raise self._fail(f"{path}/enum", f"a value is no JSON: {error}") from error
            kind = _type_of(value)
            if kind not in types and not (kind == "integer" and "number" in types):
                continue
            if any(key in _OF_TYPE[kind] for key in rest) and not self._is_valid(value, schema, path):
                continue
            kept.append(value)
        if not kept:
            raise self._impossible(path, "none of its values is valid")
        result: Schema = {"enum": kept} if len(kept) > 1 else {"const": kept[0]}
        return result | ({"type": "string"} if all(isinstance(value, str) for value in kept) else {})

    def _is_valid(self, value: Any, schema: Schema, path: str) -> bool:
        if isinstance(value, str) and "format" not in schema:
            if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf):
                return False
            pattern = schema.get("pattern", "")
            try:
                return re.search(pattern, value) is not None
            except (re.error, TypeError) as error:
                raise self._fail(f"{path}/pattern", f"it is no regular expression: {error}") from error
        if isinstance(value, (int, float)) and "multipleOf" not in schema:
            low, above, high, below = self._bounds(schema, path)
            number = Decimal(str(value))
            return (low is None or number > low or (number == low and not above)) and (
                high is None or number < high or (number == high and not below)
            )
        raise self._fail(path, "listed values and other constraints cannot be combined")

    def _string(self, schema: Schema, path: str) -> Schema:
        least, most, pattern = schema.get("minLength", 0), schema.get("maxLength"), schema.get("pattern")
        if most is not None and least > most:
            raise self._impossible(f"{path}/minLength", "it is larger than maxLength")
        if pattern is not None:
            if least or most is not None:
                raise self._fail(
                    f"{path}/pattern", "a pattern and a length cannot be combined: put it into the pattern"
                )
            return self._stand_in("string", self._pattern(pattern, path))
        if least or most is not None:
            try:
                text = regex.repeat(_CHAR, least, most, self._add_rule)
            except regex.UnsupportedPatternError as error:
                raise self._fail(f"{path}/maxLength", str(error)) from error
            return self._stand_in("string", f'"\\"" {text} "\\""')
        form = schema.get("format")
        return {"type": "string"} | ({"format": form} if form in _FORMATS else {})

    def _pattern(self, pattern: object, path: str) -> str:
        if not isinstance(pattern, str):
            raise self._fail(f"{path}/pattern", f"expected a str, not {type(pattern).__name__}: {pattern!r:.80}")
        try:
            return regex.json_string(pattern, _CHAR, self._add_rule)
        except regex.UnsupportedPatternError as error:
            raise self._fail(f"{path}/pattern", f"{pattern!r:.80} cannot be converted: {error}") from error

    def _integer(self, schema: Schema, path: str) -> Schema:
        self._check_multiple(schema, path)
        low, above, high, below = self._bounds(schema, path)
        if low is None and high is None:
            return {"type": "integer"}
        first = math.floor(low) + 1 if low is not None and above else math.ceil(_or(low, -numbers.LARGEST))
        last = math.ceil(high) - 1 if high is not None and below else math.floor(_or(high, numbers.LARGEST))
        if high is None:
            last = max(last, first)
        if low is None:
            first = min(first, last)
        if first > last:
            raise self._impossible(path, "there is no integer in its range")
        return self._stand_in("integer", numbers.integers(first, last))

    def _number(self, schema: Schema, path: str) -> Schema:
        if self._check_multiple(schema, path):
            return self._integer({key: value for key, value in schema.items() if key != "multipleOf"}, path)
        low, above, high, below = self._bounds(schema, path)
        if low is None and high is None:
            return {"type": "number"}
        body = numbers.decimals(
            _or(low, min(-numbers.LARGEST, _or(high, numbers.LARGEST))),
            _or(high, max(numbers.LARGEST, _or(low, -numbers.LARGEST))),
            above=above,
            below=below,
        )
        if body is None:
            raise self._impossible(path, "there is no number in its range")
        return self._stand_in("number", body)

    def _check_multiple(self, schema: Schema, path: str) -> bool:
        multiple = schema.get("multipleOf")
        if multiple is None:
            return False
        if isinstance(multiple, (int, float)) and not isinstance(multiple, bool) and multiple == 1:
            return True
        raise self._fail(f"{path}/multipleOf", "a grammar cannot count in steps other than 1")

    def _bounds(self, schema: Schema, path: str) -> tuple[Decimal | None, bool, Decimal | None, bool]:
        """Return the lower bound, whether it is excluded, the upper bound and whether it is excluded."""
        values: dict[str, Decimal] = {}
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            value = schema.get(key)
            if value is None:
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
                raise self._fail(f"{path}/{key}", f"expected a number, not {value!r:.80}")
            values[key] = Decimal(str(value))
            if abs(values[key]) > 10**30:
                raise self._fail(f"{path}/{key}", "numbers beyond 1e30 cannot be converted")
        low, high = values.get("minimum"), values.get("maximum")
        above = below = False
        more, less = values.get("exclusiveMinimum"), values.get("exclusiveMaximum")
        if more is not None and (low is None or more >= low):
            low, above = more, True
        if less is not None and (high is None or less <= high):
            high, below = less, True
        return low, above, high, below

    def _stand_in(self, kind: str, body: str) -> Schema:
        """Return a constant of that type that is replaced in the grammar."""
        number = len(self._result.stand_ins)
        if kind == "string":
            constant: Any = f"{_STAND_IN}{self._index}:{number}"
            literal = f'"\\"{constant}\\""'
        else:
            constant = 7_205_759_000_000_000 + self._index * 1_000_000 + number
            literal = f'"{constant}"'
        self._result.stand_ins[literal] = body
        return {"type": kind, "const": constant}

    def _add_rule(self, body: str) -> str:
        for name, existing in self._result.rules.items():
            if existing == body:
                return name
        name = f"{self._prefix}part-{len(self._result.rules)}"
        self._result.rules[name] = body
        return name

    # -------------------- containers

    def _object(self, schema: Schema, path: str, depth: int) -> Schema:
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping) or not all(isinstance(key, str) for key in properties):
            raise self._fail(f"{path}/properties", f"expected an object, not {properties!r:.80}")
        required = schema.get("required", [])
        if not isinstance(required, (list, tuple)) or not all(isinstance(key, str) for key in required):
            raise self._fail(f"{path}/required", f"expected a list of names, not {required!r:.80}")
        if len(properties) + len(required) > MAX_PROPERTIES:
            raise self._fail(f"{path}/properties", f"there are more than {MAX_PROPERTIES} properties")
        required = list(dict.fromkeys(required))
        additional = schema.get("additionalProperties", True)
        wanted = dict(properties) | {key: additional for key in required if key not in properties}
        converted: dict[str, Schema] = {}
        for key, value in wanted.items():
            place = f"{path}/properties/{_escape(key)}" if key in properties else f"{path}/required"
            self._check_name(key, place)
            try:
                converted[key] = self._convert(value, place, depth + 1)
            except _ImpossibleError:
                if key in required:
                    raise
        least, most = schema.get("minProperties", 0), schema.get("maxProperties", math.inf)
        if least > most:
            raise self._impossible(f"{path}/minProperties", "it is larger than maxProperties")
        required += [key for key in converted if key not in required][: max(0, least - len(required))]
        if len(required) > most:
            raise self._impossible(f"{path}/maxProperties", "more properties are required")
        if len(converted) > most:
            converted = {key: value for key, value in converted.items() if key in required}
        if len(converted) - len(required) > MAX_OPTIONAL:
            raise self._fail(f"{path}/properties", f"more than {MAX_OPTIONAL} of them are not required")
        if not converted and "additionalProperties" not in schema and not least and most == math.inf:
            return {"type": "object"}
        if not converted and additional is not False and most:
            if least or most != math.inf:
                raise self._fail(path, "a number of properties without names cannot be converted")
            try:
                values = self._convert(additional, f"{path}/additionalProperties", depth + 1)
            except _ImpossibleError:
                values = None
            if values is not None:
                return {"type": "object", "additionalProperties": values}
        if len(required) < least:
            raise self._fail(f"{path}/minProperties", "a number of properties without names cannot be converted")
        return {"type": "object", "properties": converted, "required": required, "additionalProperties": False}

    def _check_name(self, name: str, path: str) -> None:
        if len(name) > MAX_NAME:
            raise self._fail(path[:200], f"the name of a property is longer than {MAX_NAME}")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise self._fail(path, "the name of a property has a lone surrogate") from error

    def _array(self, schema: Schema, path: str, depth: int) -> Schema:
        least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
        if least > most:
            raise self._impossible(f"{path}/minItems", "it is larger than maxItems")
        if schema.get("uniqueItems") and most > 1:
            raise self._fail(f"{path}/uniqueItems", "a grammar cannot tell whether items are unique")
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        first_path = f"{path}/prefixItems"
        if isinstance(rest, (list, tuple)):  # as it was written before 2020
            first, rest, first_path = rest, True, f"{path}/items"
        if not isinstance(first, (list, tuple)):
            raise self._fail(first_path, f"expected a list of schemas, not {first!r:.80}")
        if first:
            if max(len(first), least) > MAX_ITEMS:
                raise self._fail(first_path, f"there are more than {MAX_ITEMS} items")
            length = max(least, min(len(first), most))
            paths = [f"{first_path}/{i}" if i < len(first) else f"{path}/items" for i in range(int(length))]
            schemas = [*first, *[rest] * max(0, int(length) - len(first))]
            items = [self._convert(item, place, depth + 1) for item, place in zip(schemas, paths, strict=False)]
            return {"type": "array", "items": items} if items else self._empty_array()
        if most == 0:
            return self._empty_array()
        if max(least, 0 if most == math.inf else most) > MAX_ITEMS:
            limit = "minItems" if least > MAX_ITEMS else "maxItems"
            raise self._fail(f"{path}/{limit}", f"numbers of items above {MAX_ITEMS} cannot be converted")
        try:
            item = self._convert(rest, f"{path}/items", depth + 1)
        except _ImpossibleError:
            if least:
                raise
            return self._empty_array()
        counts = {"minItems": least} | ({} if most == math.inf else {"maxItems": most})
        return {"type": "array", "items": item} | counts

    def _empty_array(self) -> Schema:
        return {"const": []}


# ------------------------------------------------------------------------------------------------------------- helpers


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _or(value: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if value is None else value


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = {float: "number", str: "string", type(None): "null"}
    return kinds.get(type(value), "array" if isinstance(value, (list, tuple)) else "object")


def _same(one: object, other: object) -> bool:
    return _type_of(one) == _type_of(other) and one == other


def _listed(schema: object) -> list[Any] | None:
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if isinstance(schema.get("enum"), (list, tuple)) else None


def _are_disjoint(one: tuple[set[str], Any, dict[str, Any]], other: tuple[set[str], Any, dict[str, Any]]) -> bool:
    if not one[0] & other[0]:
        return True
    if one[1] is not None and other[1] is not None:
        return not any(_same(x, y) for x in one[1] for y in other[1])
    if one[0] == other[0] == {"object"}:
        common = set(one[2]) & set(other[2])
        return any(not any(_same(x, y) for x in one[2][key] for y in other[2][key]) for key in common)
    return False


def _definition(node: Schema) -> str:
    return node["$ref"].rpartition("/")[2]


def _beginnings(node: Schema) -> Iterator[str]:
    """Yield the definitions that a value of this schema can begin with."""
    if "$ref" in node:
        yield _definition(node)
    for option in node.get("anyOf", ()):
        yield from _beginnings(option)


def _with_additional(schema: Schema, other: Schema) -> Schema:
    """Apply ``additionalProperties`` to the properties that only ``other`` names."""
    additional = schema.get("additionalProperties", True)
    properties = other.get("properties")
    if (
        additional is True
        or not isinstance(properties, Mapping)
        or not isinstance(schema.get("properties", {}), Mapping)
    ):
        return schema
    own = dict(schema.get("properties", {}))
    return schema | {"properties": own | {key: additional for key in properties if key not in own}}


def _first(one: Any, _other: Any) -> Any:
    return one


def _both(one: Any, other: Any) -> Any:
    return {"allOf": [one, other]}


def _merge_types(one: Any, other: Any) -> list[str]:
    first, second = ([kinds] if isinstance(kinds, str) else list(kinds) for kinds in (one, other))
    integer = ["integer"] if "integer" in first + second and ("number" in first or "number" in second) else []
    return list(dict.fromkeys([*(kind for kind in first if kind in second), *integer]))


def _merge_properties(one: Any, other: Any) -> dict[str, Any]:
    return {**one, **{key: _both(one[key], value) if key in one else value for key, value in other.items()}}


def _merge_alternatives(one: Any, other: Any) -> list[Any]:
    return [_both(x, y) for x in one for y in other]


_MERGED: dict[str, Callable[[Any, Any], Any]] = {
    "type": _merge_types,
    "enum": lambda one, other: [x for x in one if any(_same(x, y) for y in other)],
    "properties": _merge_properties,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
    "additionalProperties": _both,
    "items": _both,
    "anyOf": _merge_alternatives,
    "allOf": lambda one, other: [*one, *other],
    "format": _first,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "uniqueItems": lambda one, other: one or other,
}
