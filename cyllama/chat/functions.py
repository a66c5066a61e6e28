"""Python functions as tools: their signature and docstring say what a model is told."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from ..errors import SchemaError, ToolError
from ..grammar import model_schema

_ARGUMENTS = ("Args:", "Arguments:", "Parameters:")
_ENTRY = re.compile(r"(\w+)(?: ?\([^)]*\))?: ?(.*)")


def describe_function(function: Callable[..., Any]) -> tuple[str, str, dict[str, Any]]:
    """Return the name of a function, what it does, and the JSON schema of its arguments.

    >>> def clock(city: str, seconds: bool = False) -> str:
    ...     '''Return the time.
    ...
    ...     Args:
    ...         city: Where.
    ...     '''
    >>> name, description, schema = describe_function(clock)
    >>> name, description, schema["properties"]["city"], schema["required"]
    ('clock', 'Return the time.', {'type': 'string', 'description': 'Where.'}, ['city'])

    Raises:
        ToolError: Its arguments have no names, or an annotation that has no JSON schema.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        schema = model_schema(function)
    except (SchemaError, NameError, TypeError) as error:
        raise ToolError(f"the arguments of the function {name!r} cannot be described: {error}") from error
    if schema.get("type") != "object":
        raise ToolError(f"the function {name!r} takes arguments without names: a model calls it with named ones only")
    description, arguments = _read_docstring(inspect.getdoc(function) or "")
    for argument, of_argument in schema.get("properties", {}).items():
        of_argument.pop("title", None)
        if argument in arguments:
            of_argument.setdefault("description", arguments[argument])
    return name, description, schema


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return what comes before the first section of a docstring in Google style, and what it says of arguments."""
    head, _, body = next((found for start in _ARGUMENTS if (found := text.partition(start))[1]), (text, "", ""))
    description = re.split(r"\n\s*\n(?=\w+:\n)", head, maxsplit=1)[0].strip()
    arguments: dict[str, str] = {}
    name = ""
    indent = None
    for line in body.splitlines()[1:]:
        here = len(line) - len(line.lstrip())
        if line.strip() and not here:  # the next section
            break
        indent = here if indent is None and line.strip() else indent
        if here == indent and (entry := _ENTRY.match(line.strip())):
            name = entry[1]
            arguments[name] = entry[2]
        elif name and line.strip():
            arguments[name] += f" {line.strip()}"
    return description, arguments
