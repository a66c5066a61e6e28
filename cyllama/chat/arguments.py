"""Values of arguments that are written as plain text, by their schemas, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .parser import Read
from .tools import Tool

_MAX_STEPS = 30  # through references and combinations
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)("?)', re.DOTALL)
_PYTHON = {"True": "true", "False": "false", "None": "null"}
_KINDS = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}

#: Reads a value that is written in a way of the format's own; ``None`` where it is not.
Decode = Callable[[str, Any, Any], str | None]


def spell(value: Any) -> str:
    """Return a value as templates write it: a text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def typed(read: Read, tools: list[Tool], decode: Decode | None = None) -> Read:
    """Return a reader whose arguments have the types of their schemas.

    Args:
        read: Reads all values of arguments as strings.
        tools: The tools that are called.
        decode: Reads a value that is not plain text.
    """
    by_name = {tool.name: tool for tool in tools}

    def typed_read(text: str, is_partial: bool) -> tuple[str, str, list[tuple[str, str, str]]]:
        content, reasoning, calls = read(text, is_partial)
        return (
            content,
            reasoning,
            [
                (call_id, name, _typed(by_name[name], arguments, is_partial, decode) if name in by_name else arguments)
                for call_id, name, arguments in calls
            ],
        )

    return typed_read


def _typed(tool: Tool, arguments: str, is_partial: bool, decode: Decode | None) -> str:
    """Return arguments, JSON text of an object of strings or its beginning, with the types that the schema has."""
    pairs: list[str] = []
    end = 1
    known = properties(tool.parameters, tool.parameters)
    while (key := _STRING.match(arguments, end + (arguments[end : end + 1] == ","))) and key[2]:
        value = _STRING.match(arguments, key.end() + 1)
        if value is None:
            break
        end = value.end()
        name, text = json.loads(f'"{key[1]}"'), json.loads(f'"{value[1]}"')
        schema = known.get(name, True)
        written = (
            _value(text, schema, tool.parameters, decode) if value[2] else _beginning(text, schema, tool, is_partial)
        )
        if written is not None:
            pairs.append(f"{json.dumps(name, ensure_ascii=False)}: {written}")
    return "{" + ", ".join(pairs) + ("}" if arguments[end:].strip() == "}" else "")


def _value(text: str, schema: Any, root: Any, decode: Decode | None) -> str:
    if decode is not None and (decoded := decode(text, schema, root)) is not None:
        return decoded
    types = value_types(schema, root)
    if types != {"string"}:
        plain = text.strip()
        plain = _PYTHON.get(plain, plain)
        kind = _kind(plain)
        if kind not in (None, "string") and (
            types is None or "string" not in types or kind in types or (kind == "integer" and "number" in types)
        ):
            return plain
    return json.dumps(text, ensure_ascii=False)


def _beginning(text: str, schema: Any, tool: Tool, is_partial: bool) -> str | None:
    """Return the beginning of a value as far as it is certain."""
    types = value_types(schema, tool.parameters)
    if types == {"string"} or (not is_partial and (types is None or "string" in types)):
        return json.dumps(text, ensure_ascii=False)[:-1]
    return None if is_partial else text


def _kind(text: str) -> str | None:
    """Return the type of a JSON text, or ``None`` where it is not JSON."""
    try:
        return _KINDS[type(json.loads(text, parse_constant=_refuse))]
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def nested(text: str, schema: Any, root: Any, mark: str) -> str | None:
    """Return an object or a list whose parts are written in tags, as JSON; ``None`` for other values.

    Args:
        text: The parts, each with its name in a tag before it and behind it.
        schema: What the value is valid under.
        root: What the schema refers to.
        mark: What each tag begins with, such as "<".
    """
    if not text.lstrip().startswith(mark):
        empty = {"object": "{}", "array": "[]"}
        types = value_types(schema, root) or set[str]()
        return next((written for kind, written in empty.items() if not text.strip() and types == {kind}), None)
    parts: list[str] = []
    is_list = "array" in (value_types(schema, root) or ())
    known = properties(schema, root)
    rest = text.strip()
    while rest:
        name, found, rest = rest.removeprefix(mark).partition(">")
        inner, closed, rest = _until_closed(rest, f"{mark}{name}>", f"{mark}/{name}>")
        if not found or not closed:
            return None
        part = items(schema, root) if is_list else known.get(name, True)
        value = nested(inner, part, root, mark) or _value(inner, part, root, None)
        parts.append(value if is_list else f"{json.dumps(name, ensure_ascii=False)}: {value}")
        rest = rest.lstrip()
    return "[" + ", ".join(parts) + "]" if is_list else "{" + ", ".join(parts) + "}"


def _until_closed(text: str, opening: str, closing: str) -> tuple[str, bool, str]:
    """Split a text at the tag that closes one of which the opening tag stands before it."""
    depth, i = 1, 0
    while depth:
        following = min((n for tag in (opening, closing) if (n := text.find(tag, i)) >= 0), default=-1)
        if following < 0:
            return text, False, ""
        is_closing = text.startswith(closing, following)
        depth += -1 if is_closing else 1
        i = following + len(closing if is_closing else opening)
    return text[: i - len(closing)], True, text[i:]


# ------------------------------------------------------------------------------------------------------------- schemas


def properties(schema: Any, root: Any) -> dict[str, Any]:
    """Return the schemas of the properties that a schema names, also in its alternatives."""
    found: dict[str, Any] = {}
    for part in _parts(schema, root):
        named = part.get("properties")
        for name, value in named.items() if isinstance(named, Mapping) else ():
            found.setdefault(name, value)
    return found


def items(schema: Any, root: Any) -> Any:
    """Return the schema of the items of a list."""
    return next((part["items"] for part in _parts(schema, root) if isinstance(part.get("items"), Mapping)), True)


def required(schema: Any, root: Any, steps: int = 0) -> set[str]:
    """Return the names of the properties that every object of a schema has."""
    if not isinstance(schema, Mapping) or steps > _MAX_STEPS:
        return set()
    names = schema.get("required")
    found = {name for name in names if isinstance(name, str)} if isinstance(names, (list, tuple)) else set[str]()
    if "$ref" in schema:
        found |= required(resolve(schema["$ref"], root), root, steps + 1)
    options = schema.get("allOf")
    for option in options if isinstance(options, (list, tuple)) else ():
        found |= required(option, root, steps + 1)
    return found


def _parts(schema: Any, root: Any, steps: int = 0) -> Iterator[Mapping[str, Any]]:
    if not isinstance(schema, Mapping) or steps > _MAX_STEPS:
        return
    yield schema
    if "$ref" in schema:
        yield from _parts(resolve(schema["$ref"], root), root, steps + 1)
    for keyword in ("allOf", "anyOf", "oneOf"):
        options = schema.get(keyword)
        for option in options if isinstance(options, (list, tuple)) else ():
            yield from _parts(option, root, steps + 1)


def resolve(reference: object, root: Any) -> Any:
    """Return what a reference refers to, or an empty schema where it leads nowhere."""
    node = root
    if not isinstance(reference, str) or not reference.startswith("#"):
        return {}
    for part in reference[2:].split("/") if reference[2:] else ():
        node = node.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(node, Mapping) else {}
    return node


def value_types(schema: Any, root: Any, steps: int = 0) -> set[str] | None:
    """Return the types of the values of a schema; ``None`` for any."""
    if not isinstance(schema, Mapping) or steps > _MAX_STEPS:
        return None
    found: list[set[str] | None] = []
    kinds = schema.get("type")
    if isinstance(kinds, (str, list, tuple)):
        found.append({kinds} if isinstance(kinds, str) else {kind for kind in kinds if isinstance(kind, str)})
    if "const" in schema:
        found.append({_KINDS.get(type(schema["const"]), "object")})
    if isinstance(schema.get("enum"), (list, tuple)) and schema["enum"]:
        found.append({_KINDS.get(type(value), "object") for value in schema["enum"]})
    if "$ref" in schema:
        found.append(value_types(resolve(schema["$ref"], root), root, steps + 1))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), (list, tuple)) and schema[keyword]:
            options = [value_types(option, root, steps + 1) for option in schema[keyword]]
            found.append(None if None in options else set().union(*(kinds for kinds in options if kinds)))
    for option in schema["allOf"] if isinstance(schema.get("allOf"), (list, tuple)) else ():
        found.append(value_types(option, root, steps + 1))
    certain = [kinds for kinds in found if kinds is not None and "any" not in kinds]
    return set.intersection(*certain) or None if certain else None
