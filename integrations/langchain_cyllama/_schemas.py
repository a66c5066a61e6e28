"""Schemas and tools in all forms that LangChain takes: their JSON schemas, and the parsers of their answers."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.json_schema import dereference_refs
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from cyllama import SchemaError, ToolError
from cyllama.grammar import ResponseFormat, check_response_format

_WRAPPED = "value"  # the argument that stands for a value that is not an object
_NAME = "answer"  # of a schema without a title
_DEFINITIONS = ("$defs", "definitions")
_VALUES = frozenset(("default", "const", "enum", "examples"))  # keywords whose values are not schemas

JsonSchema = dict[str, Any]


@dataclass
class JsonLoader:
    """Parses JSON text, and validates it against a schema.

    Attributes:
        schema: The schema.
    """

    schema: JsonSchema

    def __call__(self, text: str) -> Any:
        """Return the value of the text.

        Raises:
            OutputError: The text is not valid. It is a `ValueError`.
        """
        return self._format.parse(text)

    @cached_property
    def _format(self) -> ResponseFormat:
        return cast("ResponseFormat", check_response_format({"type": "json_schema", "schema": self.schema}))

    def __getstate__(self) -> dict[str, Any]:
        return {"schema": self.schema}


@dataclass
class TypeLoader:
    """Parses JSON text as an instance of a type that pydantic can validate.

    Attributes:
        type: The type.
    """

    type: Any

    def __call__(self, text: str) -> Any:
        """Return the instance.

        Raises:
            ValidationError: The text is not valid. It is a `ValueError`.
        """
        return self.adapter.validate_json(text)

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The validator of the type."""
        return TypeAdapter(self.type)

    def __getstate__(self) -> dict[str, Any]:
        return {"type": self.type}


@dataclass(frozen=True)
class OutputSchema:
    """The schema of an answer.

    Attributes:
        name: Its name.
        schema: The JSON schema.
        load: Parses JSON text as a value. It raises a `ValueError` if the text is not JSON, or is not valid.
        grows: Whether a partial value has the type of a whole one, as dicts and lists have.
        source: What the user gave.
        tool: The tool whose arguments are the answer.
        wrapped: Whether the answer is a single argument of the tool, because it is not an object.
    """

    name: str
    schema: JsonSchema
    load: Callable[[str], Any]
    grows: bool
    tool: dict[str, Any]
    wrapped: bool
    source: Any

    @property
    def shown(self) -> Any:
        """The schema for LangChain's traces, in a form that LangChain can convert."""
        known = isinstance(self.source, dict) or (
            isinstance(self.source, type) and (is_basemodel_subclass(self.source) or is_typeddict(self.source))
        )
        return self.source if known else self.tool

    @property
    def streams_calls(self) -> bool:
        """Whether partial arguments of the tool are a partial value."""
        return self.grows and not self.wrapped

    def load_arguments(self, text: str) -> Any:
        """Return the value of a tool's arguments."""
        return self.load(json.dumps(json.loads(text)[_WRAPPED]) if self.wrapped else text)

    def tool_of(self, strict: bool | None = None) -> dict[str, Any]:
        """Return the tool, as OpenAI's API has it."""
        function = self.tool["function"]
        return {"type": "function", "function": function if strict is None else {**function, "strict": strict}}

    def response_format(self, strict: bool | None = None) -> dict[str, Any]:
        """Return the schema as OpenAI's API has it."""
        inner = {"name": self.name, "schema": self.schema}
        return {"type": "json_schema", "json_schema": inner if strict is None else {**inner, "strict": strict}}


def read_schema(schema: Any) -> OutputSchema:
    """Return a schema in any form as an `OutputSchema`.

    Args:
        schema: A pydantic class, a `TypedDict`, a dataclass or another type that pydantic can validate, a JSON schema
            with or without a title, OpenAI's `json_schema`, a tool, or a function.

    Raises:
        SchemaError: It has no JSON schema.
    """
    if isinstance(schema, Mapping):
        name, converted = _of_mapping(schema)
        return _finish(schema, name, converted, JsonLoader(converted), grows=True)
    if isinstance(schema, BaseTool) or inspect.isroutine(schema) or is_typeddict(schema):
        name, converted = _of_tool(to_tool(schema))
        return _finish(schema, name, converted, JsonLoader(converted), grows=True)
    if isinstance(schema, type) and is_basemodel_subclass(schema) and not issubclass(schema, BaseModel):
        old = cast("Any", schema)  # a class of pydantic.v1
        return _finish(schema, schema.__name__, old.schema(), old.parse_raw, grows=False)
    loader = TypeLoader(schema)
    try:
        converted = loader.adapter.json_schema()
    except PydanticUserError as error:
        raise SchemaError(f"there is no JSON schema of {schema!r:.80}: {error}") from error
    return _finish(schema, str(converted.get("title") or _name_of(schema)), converted, loader, grows=False)


def _of_mapping(schema: Mapping[str, Any]) -> tuple[str, JsonSchema]:
    inner = schema.get("json_schema") if schema.get("type") == "json_schema" else schema
    if isinstance(inner, Mapping) and isinstance(inner.get("schema"), Mapping) and "name" in inner:
        return str(inner["name"]), dict(inner["schema"])
    if schema.get("type") == "function" or "name" in schema or "toolSpec" in schema:
        return _of_tool(convert_to_openai_tool(schema))
    return str(schema.get("title") or _NAME), dict(schema)


def _of_tool(tool: Mapping[str, Any]) -> tuple[str, JsonSchema]:
    converted = convert_to_json_schema(dict(tool))
    return converted["title"], converted


def _finish(source: Any, name: str, schema: JsonSchema, load: Callable[[str], Any], *, grows: bool) -> OutputSchema:
    wrapped = not _is_object(schema)
    function = {
        "name": re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or _NAME,
        "description": _inline_root(schema).get("description", ""),
        "parameters": _wrap(schema) if wrapped else _parameters(schema),
    }
    return OutputSchema(name, schema, load, grows, {"type": "function", "function": function}, wrapped, source)


# --------------------------------------------------------------------------------------------------------------- tools


def to_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return a tool as OpenAI's API has it, as LangChain does, but also with recursive arguments.

    LangChain replaces references by their targets, and recursive ones by `{}`, which allows anything.

    Args:
        tool: A tool, a function, a pydantic class, a `TypedDict` or a dict.
        strict: As for `convert_to_openai_tool`.
    """
    source = StructuredTool.from_function(tool) if inspect.isroutine(tool) else tool
    schema = _schema_of_arguments(source)
    if schema is None or not _is_recursive(schema):
        return convert_to_openai_tool(tool, strict=strict)
    root = _inline_root(schema)
    function = {
        "name": source.name if isinstance(source, BaseTool) else root.get("title") or _name_of(source),
        "description": source.description if isinstance(source, BaseTool) else root.get("description", ""),
        "parameters": _parameters(schema),
    }
    return {"type": "function", "function": function if strict is None else {**function, "strict": strict}}


def check_tool_choice(choice: dict[str, Any] | str | bool, tools: Sequence[Mapping[str, Any]]) -> Any:
    """Return a choice of tools as cyllama takes it."""
    if choice is True:
        return "required"
    known = [tool["function"]["name"] for tool in tools if "function" in tool]
    if isinstance(choice, str) and choice not in ("auto", "none", "any", "required", *known):
        raise ToolError(f"tool_choice is {choice!r:.80}, but the tools are {', '.join(known) or 'none'}")
    return choice


def _schema_of_arguments(tool: Any) -> JsonSchema | None:
    """Return the JSON schema of a tool's arguments with references, if it comes from a Python type."""
    source = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if isinstance(source, type) and issubclass(source, BaseModel):
        return source.model_json_schema()
    return source if isinstance(source, dict) and isinstance(tool, BaseTool) else None


def _name_of(schema: Any) -> str:
    return getattr(schema, "__name__", _NAME)


def _parameters(schema: JsonSchema) -> JsonSchema:
    """Return the schema of an object as the schema of a tool's arguments."""
    schema = _inline_root(schema)
    if not _is_recursive(schema):
        schema = dereference_refs(schema)
        schema = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    return _without_titles({key: value for key, value in schema.items() if key != "description"})


def _wrap(schema: JsonSchema) -> JsonSchema:
    """Return the schema of an object with a value as its only property."""
    moved = _move(schema, f"#/properties/{_WRAPPED}")
    return {"type": "object", "properties": {_WRAPPED: moved}, "required": [_WRAPPED], "additionalProperties": False}


# -------------------------------------------------------------------------------------------------------- JSON schemas


def _is_object(schema: JsonSchema) -> bool:
    root = _inline_root(schema)
    return root.get("type") == "object" or ("type" not in root and "properties" in root)


def _inline_root(schema: JsonSchema) -> JsonSchema:
    """Return the target of a schema that is a reference, else the schema."""
    seen: set[str] = set()
    while (reference := str(schema.get("$ref"))) not in seen:
        seen.add(reference)
        start, _, name = reference.rpartition("/")
        definitions = schema.get(start.removeprefix("#/"), {}) if start.removeprefix("#/") in _DEFINITIONS else {}
        if name in definitions:
            schema = {**definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _is_recursive(schema: JsonSchema) -> bool:
    """Return whether a schema is recursive."""
    graph = {"#": list(_references({key: value for key, value in schema.items() if key not in _DEFINITIONS}))}
    for key in _DEFINITIONS:
        graph |= {f"#/{key}/{name}": list(_references(part)) for name, part in schema.get(key, {}).items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(reference := node.get("$ref"), str):
            yield reference
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _references(part)


def _move(node: Any, place: str) -> Any:
    """Return a schema whose references are valid at another place of a document."""
    if isinstance(node, list):
        return [_move(part, place) for part in node]
    if not isinstance(node, Mapping):
        return node
    moved = {key: value if key in _VALUES else _move(value, place) for key, value in node.items()}
    reference = node.get("$ref")
    return moved | ({"$ref": place + reference[1:]} if isinstance(reference, str) and reference[:1] == "#" else {})


def _without_titles(node: Any) -> Any:
    """Return a schema without titles, which tell a model nothing. Properties named "title" stay."""
    if isinstance(node, list):
        return [_without_titles(part) for part in node]
    if not isinstance(node, Mapping):
        return node
    return {
        key: value if key in _VALUES else _without_titles(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str))
    }
