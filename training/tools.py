"""Tools, requests that fit them, calls and results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import words
from chat import capital, echo, joke, small_talk
from dialogue import Dialogue, Rng, article, dumps, upper_first
from memory import ask, tell


class _Parameter(NamedTuple):
    """A parameter of a tool: the names it may have, its JSON type or its options, and what draws an argument."""

    names: Sequence[str]
    kind: str | Sequence[str]
    argument: Callable[[Rng], Any]


@dataclass(frozen=True)
class ToolFamily:
    """Tools that do the same under different names, and how users ask for them.

    Attributes:
        names: The names that a tool of this family may have.
        description: What it does.
        parameters: Its parameters, in the order in which ``requests`` and ``results`` refer to them.
        requests: How users ask for it, with the arguments by position.
        results: What it returns, each paired with the assistant's sentence about it; both are formatted with the
            arguments by position and with a fresh value as ``r``.
        fresh: Draws that value.
    """

    names: Sequence[str]
    description: str
    parameters: Sequence[_Parameter]
    requests: Sequence[str]
    results: Sequence[tuple[str, str]] = (("{r}", "The result is {r}."), ('{{"result": {r}}}', "The result is {r}."))
    fresh: Callable[[Rng], Any] = Rng.number


def _option(names: Sequence[str], *options: str) -> _Parameter:
    """Build a parameter that takes one of several options."""
    return _Parameter(names, options, lambda rng: rng.choice(options))


def _sentence(rng: Rng) -> str:
    """Draw a short sentence without its full stop."""
    return rng.choice(
        (
            f"{upper_first(rng.word())} the {rng.word()} {rng.choice(words.NOUNS)}",
            f"See you on {rng.choice(words.DAYS)}",
            f"The {rng.choice(words.NOUNS)} is {rng.choice(words.ADJECTIVES)}",
            rng.phrase_of_words(2, 4),
        )
    )


def _small(rng: Rng) -> int:
    """Draw an integer of one to three digits."""
    return rng.randint(0, rng.choice((9, 99, 999)))


def _sky(rng: Rng) -> str:
    """Draw the state of the weather."""
    return rng.choice(("sunny", "rainy", "cloudy", "windy", "snowing", "foggy", "stormy", "warm", "cold"))


_SKY_RESULTS = tuple((result, "It is {r} in {0}.") for result in ("It's {r}.", "{r}", "It is {r}."))
_FAMILIES: tuple[ToolFamily, ...] = (
    ToolFamily(
        ("get_weather", "weather", "current_weather", "fetch_weather", "weather_lookup", "get_current_weather"),
        "Get the weather.",
        (_Parameter(("location", "city", "place", "town"), "string", Rng.place),),
        (
            "What is the weather in {0}?",
            "What's the weather in {0}?",
            "How is the weather in {0}?",
            "What is the weather like in {0}?",
            "Tell me the weather in {0}.",
            "Weather in {0}?",
            "What is the temperature in {0}?",
            "Is it cold in {0}?",
        ),
        (
            ("{r}", "It is {r} degrees in {0}."),
            ("{r} degrees", "It is {r} degrees in {0}."),
            ('{{"temperature": {r}}}', "It is {r} degrees in {0}."),
        ),
        lambda rng: rng.randint(-20, 40),
    ),
    ToolFamily(
        ("get_weather", "weather", "get_forecast", "forecast", "weather_report"),
        "Get the weather forecast for a city.",
        (
            _Parameter(("city", "location", "place"), "string", Rng.place),
            _option(("unit", "units"), "celsius", "fahrenheit"),
        ),
        (
            "What is the weather in {0} in {1}?",
            "Weather in {0} in {1}, please.",
            "Tell me the forecast for {0} in {1}.",
        ),
        _SKY_RESULTS,
        _sky,
    ),
    ToolFamily(
        ("get_weather", "weather_now", "check_weather"),
        "Look up the weather of a place.",
        (_Parameter(("location", "city", "place"), "string", Rng.place),),
        (
            "What is the weather in {0}?",
            "What's the weather in {0}?",
            "How is the weather in {0}?",
            "Is it nice in {0}?",
        ),
        _SKY_RESULTS,
        _sky,
    ),
    ToolFamily(
        ("add", "add_numbers", "my_adder_tool", "adder", "sum_numbers", "plus"),
        "Add two numbers.",
        (_Parameter(("a", "x", "first"), "integer", _small), _Parameter(("b", "y", "second"), "integer", _small)),
        ("What is {0} + {1}?", "What is {0} plus {1}?", "Add {0} and {1}.", "What is {0} + {1}", "Sum {0} and {1}."),
    ),
    ToolFamily(
        ("multiply", "multiply_numbers", "times", "product"),
        "Multiply two numbers.",
        (_Parameter(("a", "x", "first"), "number", _small), _Parameter(("b", "y", "second"), "number", _small)),
        ("What is {0} * {1}?", "What is {0} times {1}?", "Multiply {0} by {1}.", "Multiply {0} and {1}."),
    ),
    ToolFamily(
        ("calculator", "calculate", "compute", "math"),
        "Calculate with two numbers.",
        (
            _option(("operation", "op"), "add", "subtract", "multiply", "divide"),
            _Parameter(("a", "x", "left"), "number", _small),
            _Parameter(("b", "y", "right"), "number", _small),
        ),
        ("Use the calculator to {0} {1} and {2}.", "Calculate: {0} {1} and {2}.", "Please {0} {1} and {2}."),
    ),
    ToolFamily(
        ("get_time", "current_time", "time", "clock", "now"),
        "Get the current time.",
        (),
        ("What time is it?", "What is the time?", "Tell me the time.", "What time is it now?", "Do you have the time?"),
        (("{r}", "It is {r}."), ('{{"time": "{r}"}}', "It is {r}.")),
        lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
    ),
    ToolFamily(
        ("get_date", "today", "current_date"),
        "Get the date of today.",
        (),
        ("What is the date today?", "What day is it?", "What date is it?", "What is today's date?"),
        (("{r}", "It is {r}."), ('{{"date": "{r}"}}', "It is {r}.")),
        lambda rng: f"{rng.randint(1, 28)} {rng.choice(words.MONTHS)} {rng.randint(1990, 2040)}",
    ),
    ToolFamily(
        ("find_customer", "lookup_customer", "get_customer", "customer_lookup", "search_customer"),
        "Find a customer.",
        (_Parameter(("name", "customer_name", "customer"), "string", Rng.any_name),),
        (
            "Find the customer {0}.",
            "Look up customer {0}.",
            "Find customer {0}",
            "Who is the customer named {0}?",
            "Search for the customer '{0}'.",
        ),
        (('{{"id": {r}}}', "The id is {r}."), ("{r}", "The result is {r}.")),
    ),
    ToolFamily(
        ("create_customer", "add_customer", "unicode_customer", "new_customer"),
        "Create a customer.",
        (
            _Parameter(
                ("customer_name", "name"), "string", lambda rng: rng.foreign() if rng.chance(0.6) else rng.name()
            ),
            _Parameter(("description", "note"), "string", lambda rng: rng.phrase_of_words(1, 4)),
        ),
        (
            "Create a customer named '{0}' - {1}",
            "Create a customer named {0}: {1}",
            "Add the customer {0} - {1}",
            "Create the customer {0} with the description {1}.",
        ),
        (("{r}", "{r}."),),
        lambda rng: "Created customer: " + rng.name(),
    ),
    ToolFamily(
        ("web_search", "search", "search_web", "lookup", "google"),
        "Search the web.",
        (
            _Parameter(
                ("query", "q", "text"),
                "string",
                lambda rng: rng.choice((rng.choice(words.TOPICS), rng.phrase_of_words(1, 4))),
            ),
        ),
        ("Search for {0}.", "Search the web for {0}.", "Look up {0} on the web.", "Search for '{0}'.", "Google {0}."),
        (("{r}", "{r}."),),
        lambda rng: upper_first(rng.phrase_of_words(3, 6)),
    ),
    ToolFamily(
        ("send_email", "email", "send_message", "message", "send_sms"),
        "Send a message.",
        (
            _Parameter(("to", "recipient"), "string", Rng.any_name),
            _Parameter(("body", "text", "message"), "string", _sentence),
        ),
        ('Send "{1}" to {0}.', 'Tell {0}: "{1}"', 'Write to {0}: "{1}"', 'Message {0} "{1}".'),
        (("ok", "Done."), ("sent", "Done."), ('{{"status": "ok"}}', "Done.")),
    ),
    ToolFamily(
        ("set_timer", "timer", "start_timer"),
        "Start a timer.",
        (_Parameter(("minutes", "duration"), "integer", _small),),
        (
            "Set a timer for {0} minutes.",
            "Start a timer of {0} minutes.",
            "Timer for {0} minutes.",
            "Give me a {0} minute timer.",
        ),
        (("ok", "Done."), ("started", "Done.")),
    ),
    ToolFamily(
        ("set_light", "light", "switch_light", "set_lamp"),
        "Turn a light on or off.",
        (
            _Parameter(("room", "name"), "string", lambda rng: rng.choice(words.NOUNS)),
            _Parameter(("on", "state"), "boolean", lambda rng: rng.chance(0.5)),
        ),
        ("Set the light in the {0} to {1}.", "Set the {0} light to {1}.", "Make the light in the {0} {1}."),
        (("ok", "Done."), ('{{"status": "ok"}}', "Done.")),
    ),
    ToolFamily(
        ("translate", "translate_text", "translator"),
        "Translate a text.",
        (
            _Parameter(("text", "phrase"), "string", lambda rng: rng.phrase_of_words(1, 3)),
            _Parameter(("language", "target"), "string", lambda rng: rng.choice(words.LANGUAGES)),
        ),
        ('Translate "{0}" to {1}.', "Translate '{0}' into {1}.", 'What is "{0}" in {1}?', 'How do I say "{0}" in {1}?'),
        (("{r}", "{r}."),),
        lambda rng: upper_first(rng.made_up()),
    ),
    ToolFamily(
        ("convert_currency", "exchange", "convert_money"),
        "Convert money.",
        (
            _Parameter(("amount", "value"), "number", _small),
            _Parameter(("source", "from"), "string", lambda rng: rng.choice(("USD", "EUR", "GBP", "JPY"))),
            _Parameter(("target", "to"), "string", lambda rng: rng.choice(("CHF", "SEK", "CAD", "AUD"))),
        ),
        (
            "Convert {0} {1} to {2}.",
            "How much is {0} {1} in {2}?",
            "Change {0} {1} into {2}.",
            "What is {0} {1} in {2}?",
        ),
    ),
    ToolFamily(
        ("add_todo", "add_item", "remember_item", "buy"),
        "Put things on the list.",
        (_Parameter(("items", "things"), "array", lambda rng: rng.sample(words.GOODS, rng.randint(1, 3))),),
        ("Put {0} on the list.", "Add {0} to my list.", "I need {0} on the list."),
        (("ok", "Done."), ("added", "Done.")),
    ),
    ToolFamily(
        ("get_user", "get_order", "fetch_invoice", "order_status", "get_ticket"),
        "Get an entry by its number.",
        (_Parameter(("id", "number", "order_id"), "integer", Rng.number),),
        ("Get number {0}.", "Show me number {0}.", "What is the status of number {0}?", "Look up number {0}."),
        (('{{"status": "{r}"}}', "The status is {r}."), ("{r}", "The result is {r}.")),
        Rng.word,
    ),
    ToolFamily(
        ("get_stock_price", "stock_price", "price", "quote"),
        "Get the price of a stock.",
        (_Parameter(("symbol", "ticker", "name"), "string", lambda rng: rng.made_up().upper()[:4]),),
        ("What is the price of {0}?", "How much is {0}?", "Get the stock price of {0}.", "Price of {0}?"),
        (("{r}", "The price of {0} is {r}."), ('{{"price": {r}}}', "The price of {0} is {r}.")),
    ),
    ToolFamily(
        ("generate_greeting", "greet", "pirate_greeting", "say_hello"),
        "Generate a greeting.",
        (_Parameter(("name", "style", "who"), "string", Rng.name),),
        ("Greet {0}.", "Generate a greeting for {0}.", "Using the tool, greet {0}.", "Say hello to {0}."),
        (("{r}", "{r}."),),
        lambda rng: "Hello, " + rng.name(),
    ),
)


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
    sentence = _sentence(rng) + "."
    purpose = f"{upper_first(rng.choice(words.VERBS))} {article(rng.choice(words.NOUNS))}."
    return rng.choice(("", sentence, purpose))


def _novel_arguments(rng: Rng, count: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw at most so many parameters; return their schemas and arguments."""
    names = ("input", "value", "n", "x", "text", "name", "key", "count", "size", rng.word(), rng.word())
    keys = list(dict.fromkeys(rng.sample(names, count)))
    kinds = [rng.choice(("string", "string", "integer", "integer", "number", "boolean")) for _ in keys]
    arguments = {key: _ARGUMENTS[kind](rng) for key, kind in zip(keys, kinds, strict=True)}
    return {key: {"type": kind} for key, kind in zip(keys, kinds, strict=True)}, arguments


def _any_use(rng: Rng) -> Use:
    """Draw a use of a tool of a family or of a novel one."""
    return _novel_use(rng) if rng.chance(0.4) else _known_use(rng, rng.choice(_FAMILIES))


def _fitting_use(rng: Rng, dialogue: Dialogue, draw: Callable[[Rng], Use] = _any_use) -> Use:
    """Draw a use of a tool that the dialogue does not offer yet."""
    while (use := draw(rng)).name in dialogue.tool_names:
        pass
    return use


def _offer(rng: Rng, dialogue: Dialogue, use: Use) -> None:
    """Add the tool of a use to the dialogue and, if it is the first, perhaps tools of other families."""
    offered = {use.name: use}
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3, 4)) if not dialogue.tools else 0):
        other = _known_use(rng, rng.choice(_FAMILIES)) if rng.chance(0.7) else _novel_use(rng)
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
    family = _FAMILIES[0]
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
