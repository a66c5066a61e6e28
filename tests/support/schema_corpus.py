"""Schemas as tools and programs have them: arguments of MCP servers' tools, old drafts, and what is in none."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

Schema = dict[str, Any]


def obj(*required: str, **properties: Any) -> Schema:
    """Return the schema of an object."""
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


STR: Schema = {"type": "string"}
INT: Schema = {"type": "integer"}
NUM: Schema = {"type": "number"}
BOOL: Schema = {"type": "boolean"}


def arr(items: Any, **more: Any) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": items} | more


def opt(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}], "default": None}


#: Arguments of tools as well-known servers describe them: files, version control, search, browsers, data bases, mail.
TOOLS: dict[str, Schema] = {
    "read_file": obj("path", path=STR, head=NUM, tail=NUM) | {"additionalProperties": False},
    "edit_file": obj(
        "path",
        "edits",
        path=STR,
        edits=arr(obj("oldText", "newText", oldText=STR, newText=STR) | {"additionalProperties": False}),
        dryRun=BOOL | {"default": False},
    )
    | {"$schema": "http://json-schema.org/draft-07/schema#"},
    "list_sorted": obj("path", path=STR, sortBy={"type": "string", "enum": ["name", "size"], "default": "name"}),
    "create_issue": obj(
        "owner",
        "repo",
        "title",
        owner=STR,
        repo=STR | {"pattern": r"^[\w.-]+$", "maxLength": 100},
        title=STR | {"minLength": 1, "maxLength": 256},
        assignees=arr(STR, maxItems=10, uniqueItems=True),
        labels=arr(STR | {"maxLength": 50}, uniqueItems=True),
        milestone={"type": ["integer", "null"]},
    ),
    "search": obj(
        "q",
        q=STR,
        page=NUM | {"minimum": 1},
        perPage=NUM | {"minimum": 1, "maximum": 100},
        order={"enum": ["asc", "desc"]},
    ),
    "fetch": obj(
        "url",
        url=STR | {"format": "uri", "minLength": 1},
        max_length=INT | {"default": 5000, "exclusiveMinimum": 0, "exclusiveMaximum": 1000000},
        raw=BOOL | {"default": False},
    ),
    "memory": obj(
        "entities",
        entities=arr(obj("name", "entityType", "observations", name=STR, entityType=STR, observations=arr(STR))),
    ),
    "thinking": obj(
        "thought",
        "nextThoughtNeeded",
        "thoughtNumber",
        "totalThoughts",
        thought=STR,
        nextThoughtNeeded=BOOL,
        thoughtNumber=INT | {"minimum": 1},
        totalThoughts=INT | {"minimum": 1},
        branchId=STR,
    ),
    "screenshot": obj(
        "name", name=STR, selector=STR, width=NUM | {"default": 800}, height=NUM | {"default": 600}, encoded=BOOL
    ),
    "query": obj("sql", sql=STR, params=arr({"anyOf": [STR, NUM, BOOL, {"type": "null"}]}), timeout=opt(INT)),
    "weather": obj(latitude=NUM | {"minimum": -90, "maximum": 90}, longitude=NUM | {"minimum": -180, "maximum": 180}),
    "send_mail": obj(
        "to",
        "subject",
        to={"oneOf": [STR | {"format": "email"}, arr(STR | {"format": "email"}, minItems=1)]},
        subject=STR,
        body=STR,
        attachments=arr({"oneOf": [obj("url", url=STR | {"format": "uri"}), obj("base64", base64=STR)]}),
    ),
    "calendar": obj(
        "start",
        "end",
        start=STR | {"format": "date-time"},
        end={"anyOf": [STR | {"format": "date-time"}, STR | {"format": "date"}]},
        recurrence={"type": "object", "properties": {"freq": {"enum": ["DAILY", "WEEKLY"]}}, "dependentRequired": {}},
        reminders=arr(obj("minutes", minutes=INT | {"multipleOf": 5, "minimum": 0, "maximum": 40320}), maxItems=5),
    ),
    "update_page": obj(
        "page_id",
        page_id=STR | {"format": "uuid"},
        properties={"type": "object", "additionalProperties": {"anyOf": [STR, NUM, BOOL, arr(STR)]}},
        archived=BOOL,
    ),
    "filters": obj(filter={"$ref": "#/$defs/filter"})
    | {
        "$defs": {
            "filter": {
                "anyOf": [
                    obj("and", **{"and": arr({"$ref": "#/$defs/filter"})}),
                    obj("or", **{"or": arr({"$ref": "#/$defs/filter"})}),
                    obj("property", "equals", property=STR, equals={"type": ["string", "number", "boolean"]}),
                ]
            }
        }
    },
    "chart": obj(
        "type",
        type={"const": "bar"},
        data=arr(obj("x", "y", x={"type": ["string", "number"]}, y=NUM)),
        color=STR | {"pattern": "^#(?:[0-9a-fA-F]{3}){1,2}$"},
    )
    | {"markdownDescription": "A *chart*", "x-order": 3},
    "no_arguments": {"type": "object", "properties": {}},
    "nothing_at_all": {},
    "any_object": {"type": "object", "additionalProperties": True},
    "top_any_of": {
        "anyOf": [obj("url", url=STR), obj("path", path=STR)],
        "properties": {"depth": INT},
    },
    "top_one_of": obj(id=STR, name=STR) | {"oneOf": [{"required": ["id"]}, {"required": ["name"]}]},
    "top_all_of": {"allOf": [obj("a", a=STR), obj(b=INT)]},
    "conditions": obj("kind", kind={"enum": ["card", "iban"]}, number=STR, iban=STR)
    | {
        "if": {"properties": {"kind": {"const": "card"}}},
        "then": {"required": ["number"]},
        "else": {"required": ["iban"]},
    },
    "many_conditions": obj("k", k={"enum": ["a", "b", "c"]}, x=INT, y=INT)
    | {
        "allOf": [
            {"if": {"properties": {"k": {"const": k}}, "required": ["k"]}, "then": {"required": [need]}}
            for k, need in (("a", "x"), ("b", "y"))
        ]
    },
}

#: Schemas of values: what each kind of keyword does.
KEYWORDS: list[Schema] = [
    STR | {"not": {"enum": ["a", "b"]}},
    {"enum": ["a", "b", "c"], "not": {"const": "b"}},
    {"not": {"type": "null"}},
    {"not": {"type": ["string", "array"]}, "type": ["string", "integer"]},
    obj(a=STR, b=STR) | {"not": {"required": ["a", "b"]}},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,8}$"}, "additionalProperties": INT},
    {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INT},
    {"type": "object", "patternProperties": {"^x-": STR}, "additionalProperties": False},
    {"type": "object", "patternProperties": {"^x-": STR, "^n-": NUM}},
    obj(a=INT) | {"unevaluatedProperties": False},
    {"allOf": [obj(a=INT), obj(b=INT)], "unevaluatedProperties": False},
    obj(a=STR, b=STR) | {"dependentRequired": {"a": ["b"]}},
    obj(a=STR) | {"dependentSchemas": {"a": obj("b", b=INT)}},
    arr({"type": ["string", "integer"]}, contains=INT),
    arr(INT, contains={"minimum": 5}, minContains=2),
    arr({"enum": [1, 2, 3, 4, 5, 6, 7, 8]}, uniqueItems=True, minItems=2, maxItems=3),
    INT | {"multipleOf": 7},
    INT | {"multipleOf": 100, "minimum": 0},
    NUM | {"multipleOf": 0.01, "minimum": 0},
    NUM | {"multipleOf": 0.25, "minimum": 0, "maximum": 5},
    {"type": "object", "minProperties": 2, "maxProperties": 3, "additionalProperties": INT},
    obj(a=INT, b=INT, c=INT) | {"minProperties": 2},
    {"oneOf": [NUM, INT]},
    {"oneOf": [STR | {"maxLength": 5}, STR | {"minLength": 3}]},
    {"$ref": "#/$defs/x", "$defs": {"x": INT | {"minimum": 1}}, "maximum": 9},
    {"$id": "https://example.com/s", "$ref": "item", "$defs": {"i": {"$id": "item", "type": "integer"}}},
    {"$ref": "#here", "$defs": {"h": {"$anchor": "here", "type": "string", "maxLength": 3}}},
    {"prefixItems": [INT, STR], "items": False, "minItems": 2, "type": "array"},
    {"type": "array", "prefixItems": [INT], "items": BOOL, "maxItems": 4},
    arr(INT, maxItems=100_000),
    STR | {"maxLength": 10_000_000},
    NUM | {"minimum": -1e300, "maximum": 1e300},
    {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    obj(**{f"p{i}": INT for i in range(100)}),
    {"const": {"a": [1, None, "x"]}},
    {"enum": [1, "1", None, True, [1], {"a": 1}]},
    {"type": ["string", "null"], "enum": ["a", None]},
    {"anyOf": [{"type": "string", "minLength": 2}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
    {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": STR}},
    obj(enumerated={"enum": ["x"], "enumNames": ["X"], "enumDescriptions": ["the x"], "propertyOrdering": ["x"]}),
    obj(a=STR | {"errorMessage": "no", "unit": "m", "optional": True, "$anchor": "a", "examples": [5]}),
]

PATTERNS = (
    *(r"^(?=.*\d)(?=.*[a-z]).{6,12}$", r"^(?!admin$)[a-z]+$", r"^\p{L}{2,5}$", "^(?i:yes|no)$", r"\bcat\b"),
    *(r"^(?<year>\d{4})$", r"^(a|b)\1$", r"^[^\W\d_]+$", r"^https?://\S+$", r"^[A-Z]{2}\d{2}(?: ?[0-9A-Z]{4}){3}$"),
    *(r"^\d+(\.\d+)?$", r"^[a-z0-9]+(?:-[a-z0-9]+)*$", r"^\S+@\S+\.\S+$", r"^\/[a-z\/]*$", r"^[\w\-]+$", r"^$|^x$"),
    *(r"^(?:(?!ab).)*$", r"^\u{61}+$", r"[\s\S]", r"^v?\d+\.\d+\.\d+(-[a-z]+)?$"),
)

#: What is not a schema in any draft, or one of an old one, and what is meant.
SLOPPY: list[tuple[Schema, list[Any]]] = [
    (INT | {"minimum": 0, "exclusiveMinimum": True, "maximum": 2}, [1, 2]),
    (INT | {"min": 1, "max": 2}, [1, 2]),
    (INT | {"minimum": "0", "maximum": "1"}, [0, 1]),
    (STR | {"maxLength": -1}, ["", "abc"]),
    (STR | {"minLength": "2", "maxLength": 2.0}, ["ab"]),
    ({"type": "any"}, [1, "x", None, {}]),
    ({"type": None}, [1, []]),
    ({"type": "String"}, ["x"]),
    ({"type": "INTEGER"}, [5]),
    ({"type": "float"}, [1.5]),
    ({"type": "bool"}, [True]),
    ({"type": "string", "enum": []}, ["x"]),
    ({"type": "string", "enum": [1, 2]}, [1, "2"]),
    ({"type": "integer", "enum": ["1", "2"]}, [1, "2"]),
    ({"enum": {"a": 1, "b": 2}}, ["a", "b"]),
    (STR | {"nullable": True}, [None, "x"]),
    (STR | {"required": True}, ["x"]),
    (STR | {"pattern": "("}, ["x"]),
    (STR | {"pattern": None, "format": None, "minLength": None}, ["x"]),
    ({"type": "array", "items": [INT, STR]}, [[1, "x"], []]),
    ({"type": "array", "items": [INT], "additionalItems": STR}, [[1, "x", "y"]]),
    ({"type": "array", "items": None}, [[1, "x"]]),
    ({"type": ["string", {"type": "integer"}]}, ["x", 5]),
    ({"type": "colour"}, ["x", 5]),
    ({"$ref": "https://example.com/unknown.json"}, [1, {"a": 2}]),
    ({"$ref": "#/nowhere"}, [1]),
    ({"anyOf": []}, [1]),
    ({"anyOf": {"type": "integer"}}, [1]),
    ({"divisibleBy": 5, "type": "integer", "minimum": 0, "maximum": 20}, [10]),
    ({"extends": {"type": "integer"}}, [3]),
    ({"properties": {"a": 5}, "type": "object"}, [{"a": 1}]),
    ({"type": "object", "properties": {"a": {"type": "string", "required": True}, "b": INT}}, [{"a": "x", "b": 1}]),
    ({"type": "object", "properties": {"a": STR}, "required": None}, [{}, {"a": "x"}]),
    ({"type": "object", "properties": {"a": STR}, "required": "a"}, [{"a": "x"}]),
    ({"type": "object", "properties": {"a": STR}, "additionalProperties": "false"}, [{"a": "x"}]),
    (
        {"type": "object", "properties": {"a": STR, "b": STR}, "dependencies": {"a": ["b"]}},
        [{"a": "x", "b": "y"}, {"b": "y"}],
    ),
]

FORMATS = (
    *("date", "time", "date-time", "duration", "uuid", "uuid4", "ipv4", "ipv6", "ipv4network", "ipv6network", "uri"),
    *("email", "hostname", "base64", "json-pointer", "ipvanyaddress", "binary", "password", "int64", "iri", "color"),
)


def values() -> Iterator[Schema]:
    """Yield schemas of values."""
    yield from deepcopy(KEYWORDS)
    yield from (STR | {"pattern": pattern} for pattern in PATTERNS)
    yield from (STR | {"pattern": pattern, "maxLength": 24} for pattern in PATTERNS)
    yield from (STR | {"format": form} for form in FORMATS)
    yield from (STR | {"format": form, "minLength": 3, "maxLength": 60} for form in FORMATS)
    yield from (schema for schema, _ in deepcopy(SLOPPY))


def tools() -> Iterator[Schema]:
    """Yield schemas of arguments: at least 300."""
    yield from deepcopy(list(TOOLS.values()))
    for schema in values():
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        yield obj("value", value=schema, note=STR) | definitions
    for schema in values():
        definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
        yield obj(values=arr(schema), more=opt(deepcopy(schema))) | definitions
