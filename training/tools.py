"""Requests that fit tools, calls of them and their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import words
from .chat import capital, echo, joke, small_talk
from .dialogue import Dialogue, Rng, article, dumps, upper_first
from .memory import ask, tell
from .tool_families import FAMILIES, ToolFamily, sentence


@dataclass(frozen=True)
class Use:
    """One tool with a request that fits it, the arguments, a result and the sentence about it."""

    signature: dict[str, Any]
    request: str
    arguments: dict[str, Any]
    result: str
    report: str
    family: str

    @property
    def name(self) -> str:
        """Name of the tool."""
        return self.signature["function"]["name"]


def signature(name: str, description: str, properties: dict[str, Any]) -> dict[str, Any]:
    """Return a tool in the OpenAI format.

    Args:
        name: Name of the tool.
        description: What it does; left out if empty.
        properties: JSON schemas of its parameters, all of them required.
    """
    function: dict[str, Any] = {"name": name}
    if description:
        function["description"] = description
    function["parameters"] = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": function}


def _shown(argument: Any) -> str:
    """Write an argument as a user would."""
    if isinstance(argument, bool):
        return str(argument).lower()
    return " and ".join(argument) if isinstance(argument, list) else str(argument)


def _schema(kind: str | Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a parameter of a type or with options."""
    if not isinstance(kind, str):
        return {"type": "string", "enum": list(kind)}
    return {"type": kind} | ({"items": {"type": "string"}} if kind == "array" else {})


def _known_use(rng: Rng, family: ToolFamily) -> Use:
    """Draw a use of a tool of the given family."""
    properties: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for parameter in family.parameters:
        key = rng.choice(parameter.names)
        properties[key] = _schema(parameter.kind)
        arguments[key] = parameter.argument(rng)
    shown = [_shown(argument) for argument in arguments.values()]
    request = rng.phrase(family.requests).format(*shown)
    if rng.chance(0.1):
        request += " Use the tool."
    result, report = rng.choice(family.results)
    fresh = family.fresh(rng)
    name = rng.choice(family.names) if rng.chance(0.85) else f"{rng.choice(family.names)}_{rng.word()}"
    description = family.description if rng.chance(0.9) else ""
    return Use(
        signature(name, description, properties),
        request,
        arguments,
        result.format(*shown, r=fresh),
        report.format(*shown, r=fresh),
        family.names[0],
    )


_NO_ARGUMENTS = "_no_args"
_CALL_LIKE_CODE = (
    "What is the value of {name}({values})? Use the tool.",
    "What is the value of {name}({values})?",
    "Call {name}({values}).",
    "Please run {name}({values}).",
    "What is {name}({values})?",
    "Compute {name}({values}) with the tool.",
)
_CALL_WITH = (
    "Call {name} with {pairs}.",
    "Use {name} with {pairs}.",
    "Run {name} with {pairs}.",
    "Use the tool {name} with {pairs}.",
    "Please call the tool {name} with {pairs}.",
)
_CALL = ("Call {name}.", "Use {name}.", "Run {name}.", "Use the tool {name}.", "Please call the tool {name}.")
_ARGUMENTS: dict[str, Callable[[Rng], Any]] = {
    "string": lambda rng: rng.choice((rng.word, rng.name, rng.place))(),
    "integer": Rng.number,
    "number": lambda rng: rng.choice((rng.number(), round(rng.random() * 100, 1))),
    "boolean": lambda rng: rng.chance(0.5),
}


def _novel_use(rng: Rng) -> Use:
    """Draw a use of a tool with an arbitrary name and parameters, asked for by its name."""
    name = _novel_name(rng)
    count = 0 if name.endswith(_NO_ARGUMENTS) else rng.choice((0, 1, 1, 1, 2, 2, 3))
    properties, arguments = _novel_arguments(rng, count)
    pairs = " and ".join(f"{key} {_shown(argument)}" for key, argument in arguments.items())
    by_name = _CALL_WITH if pairs else _CALL
    requests = _CALL_LIKE_CODE if rng.chance(0.5) else by_name
    result = rng.choice((rng.number, rng.word, rng.name))()
    text = rng.choice((str(result), dumps({"result": result})))
    description = _novel_description(rng)
    values = ", ".join(_shown(argument) for argument in arguments.values())
    return Use(
        signature(name, description, properties),
        rng.phrase(requests).format(name=name, values=values, pairs=pairs),
        arguments,
        text,
        f"The result is {result}.",
        name,
    )


def _novel_name(rng: Rng) -> str:
    """Draw the name of a tool that is in no family."""
    return rng.choice(
        (
            f"{rng.choice(words.VERBS)}_{rng.word()}",
            f"{rng.word()}_function",
            f"{rng.word()}_tool",
            "magic_function",
            rng.word(),
            f"{rng.choice(words.VERBS)}_{rng.choice(words.ADJECTIVES)}_{rng.choice(words.NOUNS)}",
            rng.choice(words.VERBS) + rng.choice(words.NOUNS).capitalize(),
            f"{rng.word()}{_NO_ARGUMENTS}",
        )
    )


def _novel_description(rng: Rng) -> str:
    """Draw a description that says nothing about its tool."""
    described = sentence(rng) + "."
    purpose = f"{upper_first(rng.choice(words.VERBS))} {article(rng.choice(words.NOUNS))}."
    return rng.choice(("", described, purpose))


def _novel_arguments(rng: Rng, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw at most so many parameters; return their schemas and arguments."""
    names = ("input", "value", "n", "x", "text", "name", "key", "count", "size", rng.word(), rng.word())
    keys = list(dict.fromkeys(rng.sample(names, count)))
    kinds = [rng.choice(("string", "string", "integer", "integer", "number", "boolean")) for _ in keys]
    arguments = {key: _ARGUMENTS[kind](rng) for key, kind in zip(keys, kinds, strict=True)}
    return {key: {"type": kind} for key, kind in zip(keys, kinds, strict=True)}, arguments


def _any_use(rng: Rng) -> Use:
    """Draw a use of a tool of a family or of a novel one."""
    return _novel_use(rng) if rng.chance(0.4) else _known_use(rng, rng.choice(FAMILIES))


def _fitting_use(rng: Rng, dialogue: Dialogue, draw: Callable[[Rng], Use] = _any_use) -> Use:
    """Draw a use of a tool that the dialogue does not offer yet."""
    while (use := draw(rng)).name in dialogue.tool_names:
        pass
    return use


def _offer(rng: Rng, dialogue: Dialogue, use: Use) -> None:
    """Add the tool of a use to the dialogue and, if it is the first, perhaps tools of other families."""
    offered = {use.name: use}
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 4)) if not dialogue.tools else 0):
        other = _known_use(rng, rng.choice(FAMILIES)) if rng.chance(0.7) else _novel_use(rng)
        if other.family not in {known.family for known in offered.values()}:
            offered.setdefault(other.name, other)
    dialogue.tools.extend(known.signature for known in offered.values())
    rng.shuffle(dialogue.tools)


def _call(dialogue: Dialogue, *uses: Use) -> None:
    """Append an assistant message that calls tools."""
    calls = [
        {
            "id": f"call_{len(dialogue.messages)}_{index}",
            "type": "function",
            "function": {"name": use.name, "arguments": use.arguments},
        }
        for index, use in enumerate(uses)
    ]
    dialogue.messages.append({"role": "assistant", "content": "", "tool_calls": calls})


def _respond(dialogue: Dialogue, *results: str) -> None:
    """Append the results of the calls of the last message, in their order."""
    calls = dialogue.messages[-1]["tool_calls"]
    dialogue.messages.extend(
        {"role": "tool", "tool_call_id": call["id"], "content": result}
        for call, result in zip(calls, results, strict=True)
    )


def requested_call(rng: Rng, dialogue: Dialogue, draw: Callable[[Rng], Use] = _any_use) -> Use:
    """Append a request and the call of a newly offered tool that fits it, as drawn; return that use."""
    use = _fitting_use(rng, dialogue, draw)
    _offer(rng, dialogue, use)
    dialogue.user(use.request)
    _call(dialogue, use)
    return use


def tool_call(rng: Rng, dialogue: Dialogue) -> None:
    """Request what one of the offered tools does, and call it."""
    requested_call(rng, dialogue)


def tool_result(rng: Rng, dialogue: Dialogue) -> None:
    """Request what a tool does, call it and answer in words after its result or error."""
    if rng.chance(0.1):
        two_tool_calls(rng, dialogue)
        return
    use = requested_call(rng, dialogue)
    if rng.chance(0.15):
        problem = _problem(rng)
        _respond(dialogue, f"Error: {problem}" + rng.choice((".", "")))
        dialogue.assistant(f"Sorry, the tool failed: {problem}.")
    else:
        _respond(dialogue, use.result)
        dialogue.assistant(use.report)


def _problem(rng: Rng) -> str:
    """Draw the reason why a tool failed."""
    return rng.choice(
        (
            f"{rng.word()} not found",
            "timeout",
            f"Missing required argument '{rng.word()}'",
            f"unknown {rng.word()} {rng.word()}",
            "connection refused",
            f"{rng.number()} is out of range",
        )
    )


_WEATHER_TWICE = (
    "What is the weather in {} and in {}?",
    "What is the weather in {} and {}?",
    "Compare the weather in {} and {}.",
)


def two_tool_calls(rng: Rng, dialogue: Dialogue) -> None:
    """Request the weather in two places, call a tool twice and answer after both results."""
    family = FAMILIES[0]
    while True:
        use, other = _known_use(rng, family), rng.place()
        [(key, place)] = use.arguments.items()
        if place != other and use.name not in dialogue.tool_names:
            break
    _offer(rng, dialogue, use)
    dialogue.user(rng.phrase(_WEATHER_TWICE).format(place, other))
    _call(dialogue, use, replace(use, arguments={key: other}))
    degrees = [str(family.fresh(rng)) for _ in range(2)]
    _respond(dialogue, *degrees)
    dialogue.assistant(f"It is {degrees[0]} degrees in {place} and {degrees[1]} degrees in {other}.")


def no_tool(rng: Rng, dialogue: Dialogue) -> None:
    """Offer tools, but request something that needs none."""
    if not dialogue.tools:
        _offer(rng, dialogue, _any_use(rng))
    rng.choice((small_talk, small_talk, tell, ask, echo, capital, joke))(rng, dialogue)
