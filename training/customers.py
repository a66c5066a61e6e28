"""Requests to create customers: long names in several scripts, often with a remark in parentheses.

What training drew of these was too short and too plain to be copied reliably, so the finished model is trained on more
of them (`finetune.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import words
from .dialogue import Dialogue, Rng, article, is_held_out
from .memory import plain_system
from .tools import Use, requested_call, signature

_TOOLS = ("create_customer", "add_customer", "unicode_customer", "new_customer", "register_customer")
_NAME_KEYS = ("customer_name", "name", "customer")
_NOTE_KEYS = ("description", "note", "about")

_PURPOSES = (
    "Create a customer.",
    "Add a customer.",
    "Register a new customer.",
    "Tool for creating a customer.",
    "Create a customer whose name may be in any script.",
)

_ALL_ABOUT_IT = """{purpose}

    Args:
        {name_key}: The name of the customer{script}.
        {note_key}: {note}

    Returns:
        {result}"""

_REQUESTS = (
    "Create a customer named {0} - {1}",
    "Create a customer named {0}: {1}",
    "Create a customer called {0} - {1}",
    "Create the customer {0} - {1}",
    "Create the customer {0} with the description {1}.",
    "Add the customer {0} - {1}",
    "Add a customer named {0}: {1}",
    "Register the customer {0}: {1}",
    "New customer: {0} - {1}",
    "Please add {0} to the customers - {1}",
)

_QUOTES = ("'{}'", "'{}'", '"{}"', "{}")
_KINDS = ("Group", "Corporation", "Company", "Bank", "Store", "Trading", "Ltd", "Holding")

_SCRIPTS: tuple[Callable[[Rng], str], ...] = (
    lambda rng: _written_in(rng, words.CJK, 2, 9),
    lambda rng: _written_in(rng, words.KANA, 2, 9),
    lambda rng: _written_in(rng, words.CJK + words.KANA, 2, 9),
    lambda rng: _written_in(rng, words.CYRILLIC, 3, 9).capitalize(),
    Rng.foreign,
    lambda rng: rng.name() if rng.chance(0.5) else f"{rng.name()} {rng.name()}",
)


def _written_in(rng: Rng, letters: str, low: int, high: int) -> str:
    """Draw a name of ``low`` to ``high`` letters."""
    return "".join(rng.choices(letters, k=rng.randint(low, high)))


def _name(rng: Rng) -> str:
    """Draw a name of this source's split, in any of the scripts."""
    while True:
        name = rng.choice(_SCRIPTS)(rng)
        if is_held_out(name.lower()) == rng.held_out:
            return name


def _remark(rng: Rng) -> str:
    """Draw what stands in parentheses after a name: its translation, as it were."""
    return f" ({rng.choice((rng.word().capitalize(), rng.name()))} {rng.choice(_KINDS)})"


def _note(rng: Rng) -> str:
    """Draw what is said about a customer."""
    if rng.chance(0.2):
        return rng.phrase_of_words(1, 4)
    what = rng.choice(
        (
            "company",
            f"{rng.choice(words.TRADES)} company",
            f"{rng.word()} {rng.choice(('shop', 'company', 'club'))}",
            rng.choice(words.JOBS),
        )
    )
    return article(f"{rng.choice(words.LANGUAGES)} {what}")


def _description(rng: Rng, name_key: str, note_key: str) -> str:
    """Draw the description of a tool: none, a sentence, or a whole docstring, which some programs send."""
    if rng.chance(0.15):
        return ""
    purpose = rng.choice(_PURPOSES)
    if rng.chance(0.6):
        return purpose
    return _ALL_ABOUT_IT.format(
        purpose=purpose,
        name_key=name_key,
        script=rng.choice(("", " in any script", " as it is written at home")),
        note_key=note_key,
        note=rng.choice(("What the customer does.", "Description of the customer.", "Anything else.")),
        result=rng.choice(("The number of the customer.", "A confirmation.", "A message about the customer.")),
    )


def _use(rng: Rng) -> Use:
    """Draw a tool that creates customers, a request that fits it and the arguments."""
    name, note = _name(rng), _note(rng)
    name_key, note_key = rng.choice(_NAME_KEYS), rng.choice(_NOTE_KEYS)
    tool = rng.choice(_TOOLS) if rng.chance(0.85) else f"{rng.choice(_TOOLS)}_{rng.word()}"
    shown = rng.choice(_QUOTES).format(name) + (_remark(rng) if rng.chance(0.7) else "")
    parameters = {name_key: {"type": "string"}, note_key: {"type": "string"}}
    return Use(
        signature(tool, _description(rng, name_key, note_key), parameters),
        rng.phrase(_REQUESTS).format(shown, note),
        {name_key: name, note_key: note},
        f"Created customer: {name}",
        f"Created customer: {name}.",
        "create_customer",
    )


def create_customer(rng: Rng, dialogue: Dialogue) -> None:
    """Request that a customer be created, and call the tool that does it."""
    requested_call(rng, dialogue, _use)


def customer_dialogues(seed: int, count: int) -> Iterator[Dialogue]:
    """Generate dialogues to train on, each of which creates a customer.

    Args:
        seed: Determines all of them.
        count: How many to generate.

    Yields:
        One dialogue after the other.
    """
    rng = Rng(seed)
    for _ in range(count):
        dialogue = Dialogue()
        if rng.chance(0.2):
            plain_system(rng, dialogue)
        create_customer(rng, dialogue)
        yield dialogue
