"""Schemas that llama.cpp gets in place of those that we convert: it needs only the properties and their types.

Formats of tool calls that write each argument in tags use the properties, and write text as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .nodes import Array, Graph, Union
from .normalize import Schema
from .objects import Shape

_MAX_DEPTH = 6
_MAX_WORDS = 5000


def words(graph: Graph, root: str, number: int) -> tuple[Schema, int, dict[str, str]]:
    """Return a schema for llama.cpp, a constant for all of it, and the rules that the constants stand for.

    Args:
        graph: The nodes of the schema.
        root: The name of the node of a value.
        number: Tells the constants from those of other schemas.
    """
    stand_ins: dict[str, str] = {}
    constants: dict[tuple[str, bool], Any] = {}

    def stand_in(name: str, *, text: bool) -> Any:
        """Return the constant of a rule: a text where llama.cpp has to take the value for one."""
        if (name, text) not in constants:
            index = len(constants)
            constant = (
                f"\ue000stand-in:{number}:{index}" if text else 7_205_700_000_000_000 + number * 10_000_000 + index
            )
            constants[name, text] = constant
            stand_ins[f'"\\"{constant}\\""' if text else f'"{constant}"'] = name
        return constants[name, text]

    whole = stand_in(root, text=False)
    return _words(graph, root, stand_in, 0, [_MAX_WORDS]), whole, stand_ins


def _words(graph: Graph, name: str, stand_in: Callable[..., Any], depth: int, budget: list[int]) -> Schema:
    name = graph.resolved(name)
    kinds = graph.kinds(name)
    budget[0] -= 1
    if kinds == {"string"}:
        return {"type": "string", "const": stand_in(name, text=True)}
    options = graph.options(name)
    if "string" in kinds and options != [name]:
        if depth > _MAX_DEPTH or budget[0] < 0:
            return {"const": stand_in(name, text=True)}
        return {"anyOf": [_words(graph, option, stand_in, depth + 1, budget) for option in options]}
    schema: Schema = {"const": stand_in(name, text=False)}
    if len(kinds) == 1:
        schema["type"] = next(iter(kinds))
    if depth > _MAX_DEPTH or budget[0] < 0:
        return schema
    nodes = [graph.nodes.get(option) for option in options]
    shapes = [node for node in nodes if isinstance(node, Shape)]
    node = nodes[0] if len(nodes) == 1 else None
    if shapes and len(shapes) == len(nodes):
        properties, required = _properties(graph, shapes)
        schema["properties"] = {
            json.loads(key[:-1]): _words(graph, rule, stand_in, depth + 1, budget) for key, rule in properties.items()
        }
        schema["required"] = [json.loads(key[:-1]) for key in required]
        schema["additionalProperties"] = False
    elif isinstance(node, Array) and node.rest is not None and not node.first:
        schema["items"] = _words(graph, node.rest, stand_in, depth + 1, budget)
    return schema


def _properties(graph: Graph, shapes: list[Shape]) -> tuple[dict[str, str], list[str]]:
    """Return the names of the properties of several objects, with the rules of their values, and which all require."""
    rules: dict[str, dict[str, None]] = {}
    for shape in shapes:
        for key, _, rule in shape.properties:
            rules.setdefault(key, {})[rule] = None
    needed = [{key for key, required, _ in shape.properties if required} for shape in shapes]
    found = {key: next(iter(each)) if len(each) == 1 else graph.add(Union(tuple(each))) for key, each in rules.items()}
    return found, [key for key in rules if all(key in names for names in needed)]
