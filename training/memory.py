"""What users tell about themselves, in their turns or the system message, and how they ask for it."""

from __future__ import annotations

from collections.abc import Sequence

from . import words
from .dialogue import Dialogue, Fact, Rng, Value, article, lower_first, upper_first


def _owned(label: str, value: Value, statements: Sequence[str] = (), questions: Sequence[str] = ()) -> Fact:
    """Build a fact of the form "my <label> is <value>"."""
    return Fact(
        label,
        value,
        (f"My {label} is {{}}.", *statements, f"My {label} is {{}}.", f"Remember that my {label} is {{}}."),
        (
            f"What is my {label}?",
            *questions,
            f"What's my {label}?",
            f"What is my {label}?",
            f"Tell me my {label}.",
            f"Do you remember my {label}?",
            f"Can you tell me what my {label} is?",
        ),
        f"Your {label} is {{}}.",
        f"You have not told me your {label}.",
    )


def _thing(label: str, value: Value) -> Fact:
    """Build a fact of the form "the <label> is <value>"."""
    return Fact(
        label,
        value,
        (f"The {label} is {{}}.", f"Remember this: the {label} is {{}}.", f"Please note that the {label} is {{}}."),
        (
            f"What is the {label}?",
            f"What's the {label}?",
            f"Do you remember the {label}?",
            f"Tell me the {label}.",
            f"What did I say the {label} is?",
        ),
        f"The {label} is {{}}.",
        f"You have not told me the {label}.",
    )


NAME = Fact(
    "name",
    Rng.any_name,
    (
        "My name is {}.",
        "I'm {}.",
        "I am {}.",
        "I'm called {}.",
        "Call me {}.",
        "Hello, my name is {}.",
        "Hi, I'm {}!",
        "Hi! My name is {}.",
        "You can call me {}.",
        "My name is {}. Remember it.",
        "People call me {}.",
    ),
    (
        "What is my name?",
        "What's my name?",
        "Who am I?",
        "What is my name?",
        "Do you remember my name?",
        "Tell me my name.",
        "Do you know my name?",
        "What am I called?",
        "Say my name.",
        "Can you tell me my name?",
    ),
    "Your name is {}.",
    "You have not told me your name.",
)
NICE_TO_MEET = "Nice to meet you, {}."
_RELATIVES = ("sister", "brother", "friend", "teacher", "boss", "mother", "father", "son", "daughter", "neighbour")
_PETS = ("dog", "cat", "horse", "pet")

_PERSONAL = (
    NAME,
    Fact(
        "city",
        Rng.place,
        ("I live in {}.", "I'm living in {}.", "My home is in {}.", "I moved to {}."),
        ("Where do I live?", "Which city do I live in?", "Do you know where I live?", "In what city do I live?"),
        "You live in {}.",
        "You have not told me where you live.",
    ),
    Fact(
        "job",
        lambda rng: article(rng.choice(words.JOBS)),
        ("I am {}.", "I work as {}.", "I'm {} by trade."),
        ("What is my job?", "What do I do for a living?", "What's my job?", "What do I work as?"),
        "You work as {}.",
        "You have not told me your job.",
    ),
    Fact(
        "age",
        lambda rng: str(rng.randint(5, 99)),
        ("I am {} years old.", "I'm {} years old.", "I just turned {}."),
        ("How old am I?", "What is my age?", "Do you know how old I am?", "What's my age?"),
        "You are {} years old.",
        "You have not told me your age.",
    ),
    Fact(
        "pet",
        lambda rng: article(rng.choice(words.ANIMALS)),
        ("I have {}.", "I have {} at home.", "My pet is {}."),
        ("What pet do I have?", "What is my pet?", "Which pet do I have?", "What animal do I have?"),
        "You have {}.",
        "You have not told me about a pet.",
    ),
    Fact(
        "hobby",
        lambda rng: rng.choice(words.HOBBIES),
        ("My hobby is {}.", "I like {}.", "I enjoy {}."),
        ("What is my hobby?", "What's my hobby?", "What do I like to do?", "What do I enjoy?"),
        "Your hobby is {}.",
        "You have not told me your hobby.",
    ),
    _owned("lucky number", lambda rng: str(rng.number())),
    _owned(
        "favourite colour",
        lambda rng: rng.choice(words.COLOURS) if rng.chance(0.7) else rng.word(),
        ("I like the colour {} best.",),
        ("Which colour do I like best?",),
    ),
    *(_owned(f"favourite {kind}", Rng.word) for kind in words.FAVOURITES),
    _owned(
        "favourite food",
        lambda rng: rng.choice(words.FOODS) if rng.chance(0.7) else rng.word(),
        ("My favourite thing to eat is {}.",),
        ("What do I like to eat?",),
    ),
    *(
        _owned(
            f"{who}'s name",
            Rng.any_name,
            (f"My {who} is called {{}}.", f"I have a {who} named {{}}."),
            (f"What is my {who} called?", f"What is the name of my {who}?"),
        )
        for who in (*_RELATIVES, *_PETS)
    ),
)
_THINGS = (
    *(_thing(label, Rng.word) for label in ("secret word", "password", "magic word", "secret", "word")),
    *(
        _thing(label, lambda rng: str(rng.number()))
        for label in ("code", "number", "secret number", "room number", "PIN")
    ),
)
FACTS: dict[str, Fact] = {fact.key: fact for fact in (*_PERSONAL, *_THINGS)}
_COMMON = ("name", "city", "favourite colour", "pet's name", "lucky number", "job", "age", "favourite food")

_OPENERS = (
    "By the way, ",
    "Quick question: ",
    "Hey, ",
    "OK, ",
    "So, ",
    "Now tell me: ",
    "Please, ",
    "One more thing: ",
)
_CORRECTIONS = ("Actually, ", "Sorry, I was wrong: ", "No, ")
_ASK_EVERYTHING = ("What do you know about me?", "What have I told you?", "Tell me what you know about me.")
_PLAIN_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "Be concise.",
    "Answer briefly.",
    "You are a friendly chatbot.",
    "You are an assistant. Be polite.",
    "Answer the user's questions.",
    "You are a helpful bot.",
)
_PERSONAS = ("You are {} named {}.", "You are {} called {}.", "Act as {} named {}.", "Pretend to be {} named {}.")
_USER_NAMES = (
    "The user's name is {}.",
    "The user is called {}.",
    "The name of the user is {}.",
    "You are talking to {}.",
)


def _some_fact(rng: Rng) -> Fact:
    """Draw a fact, the name and the common ones being more frequent."""
    kind = rng.random()
    if kind < 0.35:
        return NAME
    if kind < 0.65:
        return FACTS[rng.choice(_COMMON)]
    return FACTS[rng.choice(list(FACTS))] if rng.chance(0.8) else _thing(rng.choice(words.NOUNS), Rng.word)


def casual(rng: Rng, question: str) -> str:
    """Return a question, now and then with an opener, in lower case or without its punctuation."""
    if rng.chance(0.12):
        return rng.phrase(_OPENERS) + lower_first(question)
    if rng.chance(0.08):
        question = lower_first(question)
    return question.rstrip("?.") if rng.chance(0.08) else question


def tell(rng: Rng, dialogue: Dialogue) -> None:
    """Tell one to three facts, or correct an earlier one."""
    count = rng.choice((1, 1, 1, 1, 2, 3))
    chosen = {fact.key: fact for fact in (_some_fact(rng) for _ in range(count))}
    said: list[str] = []
    heard: list[str] = []
    for fact in chosen.values():
        value = fact.value(rng)
        statement = rng.phrase(fact.statements).format(value)
        if fact.key in dialogue.facts and not said:
            statement = rng.choice(_CORRECTIONS) + lower_first(statement)
        dialogue.facts[fact.key] = (fact, value)
        said.append(statement)
        heard.append(lower_first(fact.answer.format(value).rstrip(".")))
    if list(chosen) == [NAME.key]:
        answer = NICE_TO_MEET.format(dialogue.facts[NAME.key][1])
    else:
        answer = "Got it, " + " and ".join(heard) + "."
    dialogue.turn(_join_statements(rng, said), answer)


def _join_statements(rng: Rng, statements: Sequence[str]) -> str:
    """Return statements as one sentence or as several."""
    if rng.chance(0.3) and len(statements) > 1:
        return " and ".join([*(statement.rstrip(".") for statement in statements[:-1]), lower_first(statements[-1])])
    return " ".join(statements)


def ask(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a fact, which may never have been told."""
    if rng.chance(0.75):
        ask_known(rng, dialogue)
    else:
        ask_unknown(rng, dialogue)


def ask_known(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a fact that was told, if any was."""
    if not dialogue.facts:
        ask_unknown(rng, dialogue)
        return
    # A name is what tests and demonstrations ask for most.
    key = NAME.key if NAME.key in dialogue.facts and rng.chance(0.4) else rng.choice(list(dialogue.facts))
    fact, value = dialogue.facts[key]
    dialogue.turn(casual(rng, rng.phrase(fact.questions)), fact.answer.format(value))


def ask_unknown(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a fact that was not told."""
    while (fact := _some_fact(rng)).key in dialogue.facts:
        pass
    dialogue.turn(casual(rng, rng.phrase(fact.questions)), fact.unknown)


def about_me(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for everything told so far, or for one fact if that is much."""
    known = [lower_first(fact.answer.format(value)).rstrip(".") for fact, value in dialogue.facts.values()]
    if len(known) > 4:
        ask(rng, dialogue)
        return
    answer = upper_first(" and ".join(known)) + "." if known else "You have not told me anything yet."
    dialogue.turn(rng.phrase(_ASK_EVERYTHING), answer)


def plain_system(rng: Rng, dialogue: Dialogue) -> None:
    """Add a system message that changes nothing."""
    dialogue.system(rng.choice(_PLAIN_SYSTEMS))


def informed_system(rng: Rng, dialogue: Dialogue) -> None:
    """Add a system message that holds facts or a persona."""
    if rng.chance(0.5):
        name, role = rng.name(), rng.choice(words.ROLES)
        dialogue.persona = (name, role)
        dialogue.system(rng.phrase(_PERSONAS).format(article(role), name))
    elif rng.chance(0.3):
        plain_system(rng, dialogue)
    for _ in range(rng.choice((0, 1, 1, 2)) if dialogue.persona else rng.choice((1, 1, 2))):
        _system_fact(rng, dialogue)


def _system_fact(rng: Rng, dialogue: Dialogue) -> None:
    """Add the user's name or a fact about a thing to the system message."""
    if rng.chance(0.5):
        fact, value = NAME, rng.any_name()
        dialogue.system(rng.phrase(_USER_NAMES).format(value))
    else:
        fact = rng.choice(_THINGS)
        value = fact.value(rng)
        dialogue.system(fact.answer.format(value))
    dialogue.facts[fact.key] = (fact, value)
