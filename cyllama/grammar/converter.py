"""From a normalized schema to the nodes of a grammar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from ..errors import SchemaError
from . import gbnf, numbers, regex
from .algebra import (
    OF_TYPE,
    AnySchema,
    ImpossibleError,
    allowed,
    both,
    expand,
    implied_types,
    merge,
    property_schema,
)
from .formats import HTTP_URL_LENGTH, PATTERNS
from .gbnf import Rules
from .nodes import ANY_OF, Array, Graph, Leaf, Literals, Union
from .normalize import MAX_DEPTH, MAX_NODES, Normalized, Schema
from .objects import MAX_COUNTED, Shape, other_names
from .references import escape
from .regex_syntax import InvalidPatternError, UnsupportedPatternError, parse
from .values import type_of

MAX_ALTERNATIVES = 1000
MAX_ITEMS = 5000
_MAX_EXCLUDED = 2000  # most characters of names that other properties must not have


class _ImpossibleError(SchemaError):
    """Nothing is valid under a part of a schema, which may be one of several alternatives."""


class Converter:
    """Converts one schema. Errors name the place by a JSON pointer.

    Args:
        normalized: The schema.
        name: What errors call it.
        prefix: What the names of rules begin with.
        tolerant: Whether a part under which nothing is valid is replaced by one under which everything is valid.
    """

    def __init__(self, normalized: Normalized, name: str, prefix: str, *, tolerant: bool) -> None:
        self._definitions: Schema = normalized.schema.get("$defs", {})
        self._root = {key: value for key, value in normalized.schema.items() if key != "$defs"}
        self._origins = normalized.origins
        self._name = name
        self._tolerant = tolerant
        self._referred: dict[str, str] = {}  # names of rules by references
        self._waiting: list[str] = []
        self._steps = 0
        self.graph = Graph(Rules(prefix))
        #: Pointers and keywords of what the grammar does not enforce.
        self.left_out: dict[tuple[str, str], None] = {}

    def run(self) -> str:
        """Return the name of the node of a value.

        Raises:
            SchemaError: Nothing is valid under the schema, or it is too large.
        """
        root = self._any_if_impossible(self._root, "#", 0)
        while self._waiting:
            reference = self._waiting.pop()
            target = self._definitions[reference.rpartition("/")[2]]
            path = self._origins[reference]
            self.graph.define(self._referred[reference], self._any_if_impossible(target, path, 0))
        for reference, name in self._referred.items():
            if not self.graph.can_end(name) or not self.graph.options(name):
                raise self._fail(self._origins[reference], "the schema is cyclic: no value that is valid has an end")
        if not self.graph.can_end(root):
            raise self._fail("#", "the schema is cyclic: no value that is valid under it has an end")
        return root

    def _fail(self, path: str, reason: str) -> SchemaError:
        return SchemaError(f"{self._name}: {path:.300}: {reason}", path)

    def _impossible(self, path: str, reason: str) -> SchemaError:
        return _ImpossibleError(f"{self._name}: {path:.300}: {reason}", path)

    def _leave_out(self, path: str, keyword: str) -> None:
        self.left_out[path, keyword] = None

    # -------------------- any schema

    def _any_if_impossible(self, node: AnySchema, path: str, depth: int) -> str:
        try:
            return self._convert(node, path, depth)
        except _ImpossibleError as error:
            if not self._tolerant:
                raise
            self._leave_out(error.path, "")
            types = node.get("type", []) if isinstance(node, dict) else []
            kinds = [kind for kind in types if kind in ANY_OF]
            if kinds:
                return self._union([self._rule(ANY_OF[kind]) for kind in kinds])
            return self._rule(gbnf.VALUE)

    def _rule(self, name: str) -> str:
        return self.graph.rules.shared(name)

    def _union(self, options: Iterable[str]) -> str:
        found = list(dict.fromkeys(options))
        return found[0] if len(found) == 1 else self.graph.add(Union(tuple(found)))

    def _convert(self, node: AnySchema, path: str, depth: int) -> str:
        self._steps += 1
        if depth > MAX_DEPTH:
            raise self._fail(path, f"it is nested deeper than {MAX_DEPTH}, or contains itself")
        if self._steps > 5 * MAX_NODES:
            raise self._fail(path, f"the schema has more than {5 * MAX_NODES} parts when its alternatives are combined")
        if isinstance(node, dict) and set(node) == {"$ref"}:
            return self._reference(node["$ref"])
        schema = dict(self._flat(node, path, 0))
        if not schema:
            return self._rule(gbnf.VALUE)
        if schema.pop("incomplete", False):
            self._leave_out(path, "anyOf")
        if "anyOf" in schema:
            return self._alternatives(schema, path, depth)
        if "enum" in schema:
            return self._enumeration(schema, path)
        if schema.get("excluded"):
            self._leave_out(path, "not")
        types = implied_types(schema)
        return self._union(self._each(types, lambda kind: self._of_type(kind, schema, path, depth), path))

    def _each(self, items: Iterable[Any], convert: Callable[[Any], str], path: str) -> list[str]:
        """Convert alternatives; leave out those under which nothing is valid."""
        found: list[str] = []
        problem: SchemaError | None = None
        for item in items:
            try:
                found.append(convert(item))
            except _ImpossibleError as error:
                problem = problem or error
        if not found:
            raise problem or self._impossible(path, "there are no alternatives")
        return found

    def _of_type(self, kind: str, schema: Schema, path: str, depth: int) -> str:
        if kind == "object":
            return self._object(schema, path, depth)
        if kind == "array":
            return self._array(schema, path, depth)
        if kind == "string":
            return self._string(schema, path)
        if kind in ("integer", "number"):
            return self._number(schema, path, integer=kind == "integer")
        return self._rule(ANY_OF[kind])

    def _reference(self, reference: str) -> str:
        if reference not in self._referred:
            self._referred[reference] = self.graph.rules.reserve()
            self._waiting.append(reference)
        return self._referred[reference]

    # -------------------- combinations

    def _flat(self, node: AnySchema, path: str, depth: int) -> Schema:
        """Return a schema without references, ``allOf``, conditions and negations at its top."""
        self._steps += 1
        if depth > MAX_DEPTH:
            raise self._fail(path, f"it is nested deeper than {MAX_DEPTH}, or contains itself")
        if node is False:
            raise self._impossible(path, "nothing is valid under it")
        assert isinstance(node, dict)
        if "$ref" in node:
            return self._flat(self._definitions[node["$ref"].rpartition("/")[2]], path, depth + 1)
        try:
            schema = expand(node, lambda key: self._leave_out(path, key), lambda part: self._peek(part, path, depth))
        except ImpossibleError as error:
            raise self._impossible(path, str(error)) from error
        if "allOf" not in schema:
            return schema
        merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        for i, part in enumerate(schema["allOf"]):
            place = f"{path}/allOf/{i}"
            try:
                merged = merge(merged, self._flat(part, place, depth + 1))
            except ImpossibleError as error:
                raise self._impossible(place, str(error)) from error
        return merged

    def _peek(self, node: AnySchema, path: str, depth: int) -> AnySchema:
        """Return a schema flat, without adding to the keywords that are left out."""
        known = dict(self.left_out)
        try:
            return self._flat(node, path, depth + 1)
        except _ImpossibleError:
            return False
        finally:
            self.left_out = known

    def _alternatives(self, schema: Schema, path: str, depth: int) -> str:
        options: list[AnySchema] = schema["anyOf"]
        if len(options) > MAX_ALTERNATIVES:
            raise self._fail(f"{path}/anyOf", f"there are more than {MAX_ALTERNATIVES} alternatives")
        siblings = {key: value for key, value in schema.items() if key != "anyOf"}
        places = [f"{path}/anyOf/{i}" for i in range(len(options))]

        def convert(i: int) -> str:
            option = {"allOf": [siblings, options[i]]} if siblings else options[i]
            return self._convert(option, places[i], depth + 1)

        return self._union(self._each(range(len(options)), convert, f"{path}/anyOf"))

    def _enumeration(self, schema: Schema, path: str) -> str:
        kept = allowed(schema["enum"], schema)
        keywords = set(schema) - {"enum", "type", "excluded"}
        if keywords:
            kept = [value for value in kept if self._is_valid(value, schema, keywords)]
        if not kept:
            raise self._impossible(path, "none of its values is valid")
        texts = dict.fromkeys(gbnf.json_text(value) for value in kept)
        return self.graph.add(Literals(tuple(texts), frozenset(map(type_of, kept))))

    def _is_valid(self, value: object, schema: Schema, keywords: set[str]) -> bool:
        kind = type_of(value)
        about = OF_TYPE["number" if kind == "integer" else kind]
        rest = {key: schema[key] for key in keywords & about}
        if not rest:
            return True
        from .check import is_valid

        return is_valid(value, rest, self._definitions)

    # -------------------- strings

    def _string(self, schema: Schema, path: str) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if most is not None and least > most:
            raise self._impossible(f"{path}/minLength", "it is larger than maxLength")
        if most is not None and most > gbnf.MAX_REPEAT:
            self._leave_out(path, "maxLength")
            most = None
        if least > gbnf.MAX_REPEAT:
            self._leave_out(path, "minLength")
            least = gbnf.MAX_REPEAT
        patterns = self._patterns(schema, path)
        if patterns:
            translated = self._matching(patterns, least, most, schema, path)
            if translated is not None:
                return translated
        if not least and most is None:
            return self._rule(gbnf.STRING)
        text = self.graph.rules.repeat(self._rule(gbnf.CHAR), least, most)
        return self.graph.add(Leaf("string", f'"\\"" {text} "\\""'))

    def _patterns(self, schema: Schema, path: str) -> list[str]:
        """Return the regular expressions that a string has to match."""
        given = schema.get("pattern", ())
        patterns = [given] if isinstance(given, str) else list(given)
        found = []
        for pattern in patterns:
            try:
                parse(pattern)
                found.append(pattern)
            except InvalidPatternError as error:
                if not self._tolerant:
                    raise self._fail(f"{path}/pattern", f"{pattern!r:.80} cannot be converted: {error}") from error
                self._leave_out(path, "pattern")
            except UnsupportedPatternError:
                self._leave_out(path, "pattern")
        form = schema.get("format")
        if form == "uri" and schema.get("maxLength") == HTTP_URL_LENGTH:
            form = "http-url"
        return [*found, *([PATTERNS[form]] if form in PATTERNS else [])]

    def _matching(self, patterns: list[str], least: int, most: int | None, schema: Schema, path: str) -> str | None:
        try:
            found = regex.json_string(regex.Strings(tuple(patterns), least, most), self.graph.rules)
        except regex.ImpossiblePatternError as error:
            raise self._impossible(f"{path}/pattern", str(error)) from error
        except UnsupportedPatternError:
            self._leave_out(path, "pattern")
            return None
        if found.patterns_left_out:
            self._leave_out(path, "pattern" if "pattern" in schema else "format")
        if found.lengths_left_out:
            for key in ("minLength", "maxLength"):
                if key in schema:
                    self._leave_out(path, key)
        return self.graph.add(Leaf("string", found.body))

    # -------------------- numbers

    def _number(self, schema: Schema, path: str, *, integer: bool) -> str:
        interval = self._interval(schema, path, integer=integer)
        step = Decimal(str(schema["multipleOf"])) if "multipleOf" in schema else None
        kind = "integer" if integer else "number"
        if step is None and interval.is_open:
            return self._rule(ANY_OF[kind])
        if step is not None and integer:
            step = _whole_step(step)
        if step is not None:
            try:
                body = numbers.multiples(step, interval, self.graph.rules, integer=integer)
            except ValueError as error:
                raise self._impossible(path, str(error)) from error
            if body is not None:
                return self.graph.add(Leaf(kind, body))
            self._leave_out(path, "multipleOf")
        if integer or (step is not None and step == step.to_integral_value()):
            ends = interval.scaled(Decimal(1))
            if ends is None:
                raise self._impossible(path, "there is no integer in its range")
            return self.graph.add(Leaf(kind, numbers.integers(*ends)))
        body = numbers.decimals(interval)
        if body is None:
            raise self._impossible(path, "no number is in its range")
        return self.graph.add(Leaf(kind, body))

    def _interval(self, schema: Schema, path: str, *, integer: bool) -> numbers.Interval:
        values: dict[str, Decimal] = {}
        for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
            if key in schema:
                value = Decimal(str(schema[key]))
                if abs(value) > (numbers.MOST if integer else numbers.HUGE_FROM):
                    self._leave_out(path, key)
                    continue
                if 0 < abs(value) < numbers.TINY_TO:
                    self._leave_out(path, key)
                    outward = (value > 0) == key.lower().endswith("maximum")
                    value = numbers.TINY_TO.copy_sign(value) if outward else Decimal(0)
                values[key] = value
        low, high = values.get("minimum"), values.get("maximum")
        more, less = values.get("exclusiveMinimum"), values.get("exclusiveMaximum")
        above = more is not None and (low is None or more >= low)
        below = less is not None and (high is None or less <= high)
        return numbers.Interval(more if above else low, less if below else high, above, below)

    # -------------------- objects

    def _object(self, schema: Schema, path: str, depth: int) -> str:
        if not schema.keys() & OF_TYPE["object"]:
            return self._rule(gbnf.OBJECT)
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        if most is not None and least > most:
            raise self._impossible(f"{path}/minProperties", "it is larger than maxProperties")
        properties = self._properties(schema, path, depth)
        required = sum(needed for _, needed, _ in properties)
        if most is not None and required > most:
            raise self._impossible(f"{path}/maxProperties", "more properties are required")
        extras = self._extras(schema, path, depth)
        if not extras and len(properties) < least:
            raise self._impossible(f"{path}/minProperties", "there are not that many properties")
        if extras and least > required + 1:
            self._leave_out(path, "minProperties")  # one name may be written twice
        shape = Shape(tuple(properties), tuple(extras), least, most)
        if shape.counts and len(properties) * (max(least, most or 0) + 1) > MAX_COUNTED**2:
            self._leave_out(path, "minProperties" if least > required else "maxProperties")
            shape = Shape(shape.properties, shape.extras)
        return self.graph.add(shape)

    def _properties(self, schema: Schema, path: str, depth: int) -> list[tuple[str, bool, str]]:
        required = set(schema.get("required", ()))
        names = dict.fromkeys(schema.get("properties", ()))
        keys = schema.get("propertyNames")
        key_values = self._peek(keys, path, 0) if isinstance(keys, dict) else None
        if isinstance(key_values, dict) and "enum" in key_values:
            names |= dict.fromkeys(name for name in key_values["enum"] if isinstance(name, str))
        names |= dict.fromkeys(schema.get("required", ()))
        found: list[tuple[str, bool, str]] = []
        for name in names:
            place = f"{path}/properties/{escape(name)}" if name in schema.get("properties", {}) else f"{path}/required"
            value = property_schema(schema, name)
            if keys is False or (keys and not self._is_key(name, keys)):
                value = False
            try:
                if value is False and name not in required:
                    continue
                rule = self._property(value, place, depth, needed=name in required)
            except _ImpossibleError:
                if name in required:
                    raise
                continue
            found.append((gbnf.json_key(name), name in required, rule))
        return found

    def _property(self, value: AnySchema, path: str, depth: int, *, needed: bool) -> str:
        if needed:
            return self._any_if_impossible(value, path, depth + 1)
        return self._convert(value, path, depth + 1)

    def _is_key(self, name: str, keys: Schema) -> bool:
        from .check import is_valid

        return is_valid(name, keys, self._definitions)

    def _extras(self, schema: Schema, path: str, depth: int) -> list[tuple[str, str]]:
        """Return the GBNF of the names of other properties, and the rules of their values."""
        patterns: Schema = schema.get("patternProperties", {})
        named = schema.get("properties") or schema.get("required") or patterns
        additional = schema.get("additionalProperties", False if named else {})
        keys = schema.get("propertyNames", {})
        if keys is False:
            return []
        names = [name for name in schema.get("properties", ()) if additional is not False]
        found: list[tuple[str, str]] = []
        for pattern, value in patterns.items():
            key = both(keys, {"type": ["string"], "pattern": pattern})
            self._extra(found, key, value, f"{path}/patternProperties/{escape(pattern)}", depth)
        if len(found) > 1 or (found and (additional is not False or schema.get("properties"))):
            self._leave_out(path, "patternProperties")  # a name may be of two kinds, or written twice
        if additional is False or (isinstance(keys, dict) and "enum" in keys):
            return found
        if keys or sum(map(len, names)) > _MAX_EXCLUDED:
            if names:
                self._leave_out(path, "additionalProperties")
            key_schema = both({"type": ["string"]}, keys)
            self._extra(found, key_schema, additional, f"{path}/additionalProperties", depth)
            return found
        try:
            rule = self._convert(additional, f"{path}/additionalProperties", depth + 1)
        except _ImpossibleError:
            return found
        key = other_names(names, self.graph.rules) if names else self._rule(gbnf.STRING)
        return [*found, (key, rule)]

    def _extra(self, found: list[tuple[str, str]], keys: AnySchema, value: AnySchema, path: str, depth: int) -> None:
        """Add properties whose names are valid under a schema."""
        try:
            key = self._convert(keys, f"{path}/propertyNames", depth + 1)
            found.append((key, self._convert(value, path, depth + 1)))
        except _ImpossibleError:
            return

    # -------------------- arrays

    def _array(self, schema: Schema, path: str, depth: int) -> str:
        if not schema.keys() & OF_TYPE["array"]:
            return self._rule(gbnf.ARRAY)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and least > most:
            raise self._impossible(f"{path}/minItems", "it is larger than maxItems")
        first: list[str] = []
        for i, item in enumerate(schema.get("prefixItems", [])[:most]):
            try:
                first.append(self._convert(item, f"{path}/prefixItems/{i}", depth + 1))
            except _ImpossibleError:
                if i < least:
                    raise
                most = i
                break
        rest: str | None = None
        if most is None or most > len(first):
            rest = self._rest(schema, path, depth, needed=least > len(first))
        if rest is None and len(first) < least:
            raise self._impossible(f"{path}/minItems", "there are not that many items")
        most = self._unique(schema, rest, least, most, path) if rest is not None else len(first)
        least, most = self._item_limits(least, most, path)
        return self.graph.add(Array(tuple(first), rest, least, most))

    def _rest(self, schema: Schema, path: str, depth: int, *, needed: bool) -> str | None:
        """Return the rule of the items that have no schema of their own; ``None`` if such items are not allowed."""
        if "items" not in schema and schema.get("prefixItems") and not needed:
            return None  # what the schema does not name is not written
        try:
            if needed:
                return self._any_if_impossible(schema.get("items", {}), f"{path}/items", depth + 1)
            return self._convert(schema.get("items", {}), f"{path}/items", depth + 1)
        except _ImpossibleError:
            if needed:
                raise
            return None

    def _unique(self, schema: Schema, rest: str, least: int, most: int | None, path: str) -> int | None:
        """Return how many items there are at most: no more than there are values, where these are listed."""
        if not schema.get("uniqueItems") or most == 1:
            return most
        self._leave_out(path, "uniqueItems")
        node = self.graph.nodes.get(self.graph.resolved(rest))
        if isinstance(node, Literals) and not schema.get("prefixItems"):
            if least > len(node.texts):
                raise self._impossible(f"{path}/minItems", "there are not that many different items")
            return min(len(node.texts), len(node.texts) if most is None else most)
        return most

    def _item_limits(self, least: int, most: int | None, path: str) -> tuple[int, int | None]:
        if most is not None and most > MAX_ITEMS:
            self._leave_out(path, "maxItems")
            most = None
        if least > MAX_ITEMS:
            self._leave_out(path, "minItems")
            least = MAX_ITEMS
        return least, most


def _whole_step(step: Decimal) -> Decimal:
    """Return the least integer that is a multiple of a step."""
    numerator, _ = step.as_integer_ratio()
    return Decimal(numerator)
