"""Tools of many kinds: their names and parameters, how users ask for them, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import words
from .dialogue import Rng, upper_first


class Parameter(NamedTuple):
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
    parameters: Sequence[Parameter]
    requests: Sequence[str]
    results: Sequence[tuple[str, str]] = (("{r}", "The result is {r}."), ('{{"result": {r}}}', "The result is {r}."))
    fresh: Callable[[Rng], Any] = Rng.number


def _option(names: Sequence[str], *options: str) -> Parameter:
    """Build a parameter that takes one of several options."""
    return Parameter(names, options, lambda rng: rng.choice(options))


def sentence(rng: Rng) -> str:
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
FAMILIES: tuple[ToolFamily, ...] = (
    ToolFamily(
        ("get_weather", "weather", "current_weather", "fetch_weather", "weather_lookup", "get_current_weather"),
        "Get the weather.",
        (Parameter(("location", "city", "place", "town"), "string", Rng.place),),
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
            Parameter(("city", "location", "place"), "string", Rng.place),
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
        (Parameter(("location", "city", "place"), "string", Rng.place),),
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
        (Parameter(("a", "x", "first"), "integer", _small), Parameter(("b", "y", "second"), "integer", _small)),
        ("What is {0} + {1}?", "What is {0} plus {1}?", "Add {0} and {1}.", "What is {0} + {1}", "Sum {0} and {1}."),
    ),
    ToolFamily(
        ("multiply", "multiply_numbers", "times", "product"),
        "Multiply two numbers.",
        (Parameter(("a", "x", "first"), "number", _small), Parameter(("b", "y", "second"), "number", _small)),
        ("What is {0} * {1}?", "What is {0} times {1}?", "Multiply {0} by {1}.", "Multiply {0} and {1}."),
    ),
    ToolFamily(
        ("calculator", "calculate", "compute", "math"),
        "Calculate with two numbers.",
        (
            _option(("operation", "op"), "add", "subtract", "multiply", "divide"),
            Parameter(("a", "x", "left"), "number", _small),
            Parameter(("b", "y", "right"), "number", _small),
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
        (Parameter(("name", "customer_name", "customer"), "string", Rng.any_name),),
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
            Parameter(
                ("customer_name", "name"), "string", lambda rng: rng.foreign() if rng.chance(0.6) else rng.name()
            ),
            Parameter(("description", "note"), "string", lambda rng: rng.phrase_of_words(1, 4)),
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
            Parameter(
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
            Parameter(("to", "recipient"), "string", Rng.any_name),
            Parameter(("body", "text", "message"), "string", sentence),
        ),
        ('Send "{1}" to {0}.', 'Tell {0}: "{1}"', 'Write to {0}: "{1}"', 'Message {0} "{1}".'),
        (("ok", "Done."), ("sent", "Done."), ('{{"status": "ok"}}', "Done.")),
    ),
    ToolFamily(
        ("set_timer", "timer", "start_timer"),
        "Start a timer.",
        (Parameter(("minutes", "duration"), "integer", _small),),
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
            Parameter(("room", "name"), "string", lambda rng: rng.choice(words.NOUNS)),
            Parameter(("on", "state"), "boolean", lambda rng: rng.chance(0.5)),
        ),
        ("Set the light in the {0} to {1}.", "Set the {0} light to {1}.", "Make the light in the {0} {1}."),
        (("ok", "Done."), ('{{"status": "ok"}}', "Done.")),
    ),
    ToolFamily(
        ("translate", "translate_text", "translator"),
        "Translate a text.",
        (
            Parameter(("text", "phrase"), "string", lambda rng: rng.phrase_of_words(1, 3)),
            Parameter(("language", "target"), "string", lambda rng: rng.choice(words.LANGUAGES)),
        ),
        ('Translate "{0}" to {1}.', "Translate '{0}' into {1}.", 'What is "{0}" in {1}?', 'How do I say "{0}" in {1}?'),
        (("{r}", "{r}."),),
        lambda rng: upper_first(rng.made_up()),
    ),
    ToolFamily(
        ("convert_currency", "exchange", "convert_money"),
        "Convert money.",
        (
            Parameter(("amount", "value"), "number", _small),
            Parameter(("source", "from"), "string", lambda rng: rng.choice(("USD", "EUR", "GBP", "JPY"))),
            Parameter(("target", "to"), "string", lambda rng: rng.choice(("CHF", "SEK", "CAD", "AUD"))),
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
        (Parameter(("items", "things"), "array", lambda rng: rng.sample(words.GOODS, rng.randint(1, 3))),),
        ("Put {0} on the list.", "Add {0} to my list.", "I need {0} on the list."),
        (("ok", "Done."), ("added", "Done.")),
    ),
    ToolFamily(
        ("get_user", "get_order", "fetch_invoice", "order_status", "get_ticket"),
        "Get an entry by its number.",
        (Parameter(("id", "number", "order_id"), "integer", Rng.number),),
        ("Get number {0}.", "Show me number {0}.", "What is the status of number {0}?", "Look up number {0}."),
        (('{{"status": "{r}"}}', "The status is {r}."), ("{r}", "The result is {r}.")),
        Rng.word,
    ),
    ToolFamily(
        ("get_stock_price", "stock_price", "price", "quote"),
        "Get the price of a stock.",
        (Parameter(("symbol", "ticker", "name"), "string", lambda rng: rng.made_up().upper()[:4]),),
        ("What is the price of {0}?", "How much is {0}?", "Get the stock price of {0}.", "Price of {0}?"),
        (("{r}", "The price of {0} is {r}."), ('{{"price": {r}}}', "The price of {0} is {r}.")),
    ),
    ToolFamily(
        ("generate_greeting", "greet", "pirate_greeting", "say_hello"),
        "Generate a greeting.",
        (Parameter(("name", "style", "who"), "string", Rng.name),),
        ("Greet {0}.", "Generate a greeting for {0}.", "Using the tool, greet {0}.", "Say hello to {0}."),
        (("{r}", "{r}."),),
        lambda rng: "Hello, " + rng.name(),
    ),
)
