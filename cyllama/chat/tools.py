"""The tools that a model may call."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from ..errors import ToolError
from ..grammar import Conversion, convert, model_schema
from .functions import describe_function

MAX_TOOLS = 128
MAX_TOOLS_SIZE = 16 * 2**20

#: What is accepted as a tool: OpenAI's dict, the part of it below "function", a pydantic model of the arguments, or a
#: function whose arguments have annotations.
ToolLike: TypeAlias = Mapping[str, Any] | type[BaseModel] | Callable[..., Any]
ToolChoiceLike: TypeAlias = str | Mapping[str, Any] | None

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}", re.ASCII)


@dataclass(frozen=True)
class Tool:
    """A function that the model may call.

    >>> clock = Tool("clock", "Return the time in a city.", {"properties": {"city": {"type": "string"}}})
    >>> clock.to_dict()["function"]["name"]
    'clock'

    Attributes:
        name: Its name.
        description: What it does.
        parameters: JSON schema of its arguments, an object.
        strict: Whether a call has to be valid under it, also where no grammar can say how.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    strict: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the tool as a dict in OpenAI's format.

        >>> Tool("clock", "Return the time.", {}).to_dict()["type"]
        'function'
        """
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}

    def convert(self, index: int) -> Conversion:
        """Return the grammar of the arguments: all that are valid under the schema.

        >>> Tool("clock", "Return the time.", {}).convert(0).left_out
        ()

        Args:
            index: A number that no other tool of the same grammar has.
        """
        parameters = self.parameters
        if not any(parameters.get(key) for key in ("properties", *_MORE_THAN_PROPERTIES)):
            parameters = {"type": "object", "additionalProperties": False}  # a function without arguments
        return _convert(self.name, json.dumps(parameters | {"type": "object"}), index)


@lru_cache(maxsize=4 * MAX_TOOLS)
def _convert(name: str, parameters: str, index: int) -> Conversion:
    # Every turn of a conversation offers the same tools; converting many takes a second, in which others wait.
    return convert(json.loads(parameters), name=f"parameters of the tool {name!r}", number=index, tolerant=True)


_PARAMETERS = ("parameters", "inputSchema", "input_schema")  # OpenAI, MCP, Anthropic
_OTHER_TYPES = ("string", "number", "integer", "boolean", "array")
_MORE_THAN_PROPERTIES = frozenset(
    ("additionalProperties", "$ref", "anyOf", "oneOf", "allOf", "required", "enum", "const")
)


@dataclass(frozen=True)
class ToolChoice:
    """Whether and what the model has to call.

    Attributes:
        mode: "none" is no tool, "auto" as the model likes, "required" at least one.
        names: The only ones that may be called; ``None`` for all.
    """

    mode: Literal["none", "auto", "required"]
    names: frozenset[str] | None = None

    def allowed(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return the tools that may be called."""
        return [tool for tool in tools if self.names is None or tool.name in self.names]


def check_tools(tools: Sequence[ToolLike] | None) -> list[Tool]:
    """Return the definitions of tools.

    Raises:
        ToolError: One of them is not a valid tool, or two have the same name.
    """
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise ToolError(f"expected a list of tools, not {type(tools).__name__}: {tools!r:.80}")
    if len(tools) > MAX_TOOLS:
        raise ToolError(f"there are {len(tools)} tools, but at most {MAX_TOOLS} can be offered")
    result: list[Tool] = []
    for i, tool in enumerate(tools):
        definition = _check_tool(tool, f"tool {i}")
        if any(definition.name == other.name for other in result):
            raise ToolError(f"two tools have the name {definition.name!r}")
        result.append(definition)
    try:
        size = len(dump_tools(result).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise ToolError(f"the tools cannot be written as JSON: {error}") from error
    if size > MAX_TOOLS_SIZE:
        raise ToolError(f"the tools have {size} bytes of JSON, but {MAX_TOOLS_SIZE} are the limit")
    return result


def dump_tools(tools: Sequence[Tool]) -> str:
    """Return tools as JSON text in OpenAI's format."""
    return json.dumps([tool.to_dict() for tool in tools], ensure_ascii=False, allow_nan=False) if tools else ""


def _check_tool(tool: object, where: str) -> Tool:
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, type) and issubclass(tool, BaseModel):
        schema = model_schema(tool)
        return Tool(tool.__name__, schema.pop("description", ""), schema)
    if inspect.isroutine(tool):
        function_name, text, schema = describe_function(tool)
        return _check_tool({"name": function_name, "description": text, "parameters": schema}, where)
    if not isinstance(tool, Mapping):
        raise ToolError(f"{where} has to be a dict with 'type' and 'function', not {type(tool).__name__}: {tool!r:.80}")
    function = tool
    if "function" in tool:
        if tool.get("type", "function") != "function":
            raise ToolError(f"{where} is of type {tool.get('type')!r:.80}: there is only 'function'")
        function = tool["function"]
    if not isinstance(function, Mapping):
        raise ToolError(f"the function of {where} has to be a dict, not {type(function).__name__}: {function!r:.80}")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ToolError(
            f"the name of {where} has to be 1 to 128 letters, digits, or any of _ . : / -, not {name!r:.80}"
        )
    description = function.get("description")
    if description is None:
        description = ""
    if not isinstance(description, str):
        raise ToolError(f"the description of the tool {name!r} is a str, not {type(description).__name__}")
    parameters = next((function[key] for key in _PARAMETERS if function.get(key) is not None), None)
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping) or parameters.get("type") in _OTHER_TYPES:
        raise ToolError(f"the parameters of the tool {name!r} are no JSON schema of an object: {parameters!r:.80}")
    return Tool(name, description, dict(parameters), (function.get("strict") or tool.get("strict")) is True)


def check_tool_choice(choice: ToolChoiceLike, tools: Sequence[Tool]) -> ToolChoice:
    """Return what a choice of tools means: "none", "auto", "required", "any", a name, or a dict of OpenAI's.

    Raises:
        ToolError: It is none of these, or there is no such tool.
    """
    if choice is None:
        return ToolChoice("auto" if tools else "none")
    known = [tool.name for tool in tools]
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        return _check_allowed(choice.get("allowed_tools", choice), known)  # of chats, and of the Responses API
    name: object = choice
    if isinstance(choice, Mapping):
        kind = choice.get("type")
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        if kind in ("none", "auto", "required", "any") and name is None:
            name, choice = kind, kind
        elif kind not in ("function", "tool") or not isinstance(name, str):
            raise ToolError(
                'tool_choice as a dict is {"type": "function", "function": {"name": ...}}, '
                f"not {dict(choice)!r:.80}"
            )
    if not isinstance(name, str):
        raise ToolError(f"tool_choice is a str or a dict, not {type(choice).__name__}: {choice!r:.80}")
    if isinstance(choice, Mapping) or name not in ("none", "auto", "required", "any"):
        if name not in known:
            raise ToolError(f"tool_choice is {name!r:.80}, but the tools are {', '.join(known) or 'none'}")
        return ToolChoice("required", frozenset((name,)))
    if name in ("required", "any"):
        if not tools:
            raise ToolError(f"tool_choice is {name!r}, but there are no tools")
        return ToolChoice("required")
    return ToolChoice("none" if name == "none" or not tools else "auto")


def _check_allowed(given: object, known: Sequence[str]) -> ToolChoice:
    """Return the choice of some of the tools, which all stay in the prompt."""
    mode, tools = (given.get("mode"), given.get("tools")) if isinstance(given, Mapping) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, Sequence) or not tools or isinstance(tools, str):
        raise ToolError(f'allowed_tools are a mode, "auto" or "required", and a list of tools, not {given!r:.80}')
    names: list[object] = []
    for tool in tools:
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else tool
        names.append(inner.get("name") if isinstance(inner, Mapping) else inner)
    for name in names:
        if not isinstance(name, str) or name not in known:
            raise ToolError(f"allowed_tools has {name!r:.80}, but the tools are {', '.join(known) or 'none'}")
    return ToolChoice(mode, frozenset(map(str, names)))


# ------------------------------------------------------------------------------- templates that know nothing of tools

#: The format that models learn who are told of no other. llama.cpp makes the grammar and the parser from it.
OWN_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content }}
    {%- if message.tool_calls %}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if tools %}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_INSTRUCTION = """\
You can call these tools:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments, and nothing else:
<tool_call>
{{"name": <name>, "arguments": {{<arguments as JSON>}}}}
</tool_call>
You are then told what it returns."""


def describe_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return messages in which text says what templates without tools leave out: tools, calls and results."""
    lines = "\n".join(json.dumps(tool.to_dict()["function"], ensure_ascii=False) for tool in tools)
    result: list[dict[str, Any]] = []
    if tools:
        result.append({"role": "system", "content": _INSTRUCTION.format(tools=lines)})
    for i, message in enumerate(messages):
        text = _as_text(message["content"])
        if message["role"] in ("system", "developer") and i == 0 and tools:
            result[0] = {"role": "system", "content": f"{text}\n\n{result[0]['content']}"}
        elif message["role"] == "tool":
            response = f"<tool_response>\n{text}\n</tool_response>"
            if result and result[-1].get("tool_response"):
                result[-1]["content"] += f"\n{response}"
            else:
                result.append({"role": "user", "content": response, "tool_response": True})
        elif message.get("tool_calls"):
            calls = (call["function"] for call in message["tool_calls"])
            texts = [
                f'<tool_call>\n{{"name": {json.dumps(call["name"])}, "arguments": {call["arguments"]}}}\n</tool_call>'
                for call in calls
            ]
            result.append({"role": "assistant", "content": "\n".join([text, *texts] if text else texts)})
        else:
            result.append(dict(message))
    return [{key: value for key, value in message.items() if key != "tool_response"} for message in result]


_NATIVE_INSTRUCTION = """\
You can call these tools:
{tools}
To call one, answer in this form:
{example}
You are then told what it returns."""

#: Writes calls, names and arguments as JSON, in a format.
WriteCalls = Callable[[Sequence[tuple[str, str]]], str]


def describe_native_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], write: WriteCalls
) -> list[dict[str, Any]]:
    """Return messages with a description of the tools, for a template that writes calls and does not describe tools."""
    result = [dict(message) for message in messages]
    if not tools:
        return result
    lines = "\n".join(json.dumps(tool.to_dict()["function"], ensure_ascii=False) for tool in tools)
    example = write([("<name of the tool>", '{"<name of an argument>": "<value>"}')])
    text = _NATIVE_INSTRUCTION.format(tools=lines, example=example)
    if result[0]["role"] in ("system", "developer"):
        result[0]["content"] = f"{_as_text(result[0]['content'])}\n\n{text}"
        return result
    return [{"role": "system", "content": text}, *result]


def write_calls(messages: Sequence[Mapping[str, Any]], write: WriteCalls) -> list[dict[str, Any]]:
    """Return messages with past calls as text of the format, for a template that leaves them out."""
    result: list[dict[str, Any]] = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
            kept = {key: value for key, value in message.items() if key != "tool_calls"}
            message = kept | {"content": _as_text(message["content"]) + write(calls)}
        result.append(dict(message))
    return result


def _as_text(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
