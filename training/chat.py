"""Skills without memory: small talk, repetition, knowledge, counting, stories, JSON and extraction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from . import words
from .dialogue import Dialogue, Rng, Value, article, dumps, upper_first
from .memory import casual

_IDENTITY = "I am tiny-chat, a small language model bundled with cyllama."
ASK_IDENTITY = ("Who are you?", "What are you?", "Introduce yourself.")
ASK_NAME = ("What is your name?", "What's your name?", "Do you have a name?")
NAME_ANSWER = "My name is {}."

_SMALL_TALK: tuple[tuple[Sequence[str], str], ...] = (
    (
        ("Hello", "Hi", "Hello!", "Hi there!", "Hey", "hello", "hi", "Good morning!", "Good evening.", "Hey there!"),
        "Hello! How can I help you?",
    ),
    (
        ("How are you?", "How are you doing?", "how are you", "How do you do?", "How is it going?"),
        "I am fine, thank you. How can I help you?",
    ),
    ((*ASK_IDENTITY, "Tell me about yourself.", "Are you a human?", "Which model are you?"), _IDENTITY),
    (
        ("What can you do?", "How can you help me?", "Help", "What are you good at?"),
        "I can chat, remember what you tell me, count, tell stories and call tools.",
    ),
    (("Thanks", "Thank you!", "Thanks a lot!", "Thank you very much.", "Great, thanks."), "You are welcome!"),
    (("Goodbye", "Bye!", "See you later.", "Good night.", "Goodbye!", "Farewell."), "Goodbye! Have a nice day."),
    (("That is great.", "Nice!", "OK", "Cool.", "Great!", "Good."), "I am glad to hear that."),
    (
        ("What is the meaning of life?", "Why are we here?", "What is love?", "What is consciousness?"),
        "I am too small a model to know that.",
    ),
    (
        ("What is cyllama?", "Tell me about cyllama.", "What does cyllama do?"),
        "cyllama is a Python package that runs language models with llama.cpp.",
    ),
    (("Are you there?", "Are you awake?", "Is this working?"), "Yes, I am here."),
    (("I am bored.", "I'm bored", "I have nothing to do."), "I can tell you a story or a joke."),
    (("I am sad.", "I feel sad.", "I'm feeling down."), "I am sorry to hear that. I hope you feel better soon."),
    (("How old are you?", "When were you born?", "What is your age?"), "I am a program, so I have no age."),
    (("Say hello.", "Say hi.", "Greet me."), "Hello!"),
)


def introduction(persona: tuple[str, str]) -> str:
    """Return how an assistant with the given name and role says who it is."""
    name, role = persona
    return f"I am {name}, {article(role)}."


def small_talk(rng: Rng, dialogue: Dialogue) -> None:
    """Greet, thank, ask who the assistant is and the like."""
    if rng.chance(0.12):
        name = dialogue.persona[0] if dialogue.persona else "tiny-chat"
        dialogue.turn(rng.phrase(ASK_NAME), NAME_ANSWER.format(name))
        return
    questions, answer = rng.choice(_SMALL_TALK)
    if answer == _IDENTITY and dialogue.persona:
        answer = introduction(dialogue.persona)
    dialogue.turn(rng.phrase(questions), answer)


_TIMES = ((2, "twice"), (3, "three times"), (4, "four times"), (5, "five times"))
_ECHO_TIMES = (
    "Say the word {} {}.",
    'Say "{}" {}.',
    "Repeat the word {} {}.",
    "Repeat {} {}.",
    "Say {} {}.",
    'Say the word "{}" {}.',
    "Write the word {} {}.",
    "Write {} {}.",
)
_ECHO = (
    "Repeat after me: {}",
    "Repeat: {}",
    "Repeat the following: {}",
    "Can you say: {}",
    "Write: {}",
    "Copy this: {}",
    'Repeat after me: "{}"',
    "Say: {}",
    "Repeat this: {}",
    "Echo: {}",
    'Say "{}"',
    'Say exactly this: "{}"',
    "Please repeat: {}",
)


def echo(rng: Rng, dialogue: Dialogue) -> None:
    """Have words, numbers, a sentence, names or emoji repeated."""
    kind = rng.random()
    if kind < 0.25:
        word = rng.word()
        count, times = rng.choice(_TIMES)
        dialogue.turn(rng.phrase(_ECHO_TIMES).format(word, times), " ".join([word] * count))
        return
    text = _echoed_text(rng, kind)
    dialogue.turn(rng.phrase(_ECHO).format(text), text)


def _echoed_text(rng: Rng, kind: float) -> str:
    """Return words, numbers, a sentence, or names and emoji, depending on a number from 0.25 to 1."""
    if kind < 0.7:
        return rng.phrase_of_words(1, 8)
    if kind < 0.8:
        return " ".join(str(rng.number()) for _ in range(rng.randint(1, 5)))
    if kind < 0.9:
        return f"The {rng.word()} {rng.word()} is {rng.word()} and {rng.any_name()} likes {rng.word()}."
    return rng.choice(
        (
            f"{rng.foreign()} {rng.choice(words.EMOJI)}",
            rng.choice(words.EMOJI) * rng.randint(1, 3),
            rng.foreign(),
            f"{rng.any_name()} and {rng.any_name()}",
        )
    )


_ADD = ("What is {} + {}?", "{} + {} = ?", "What is {} plus {}?", "How much is {} + {}?", "Add {} and {}.")
_SUBTRACT = ("What is {} - {}?", "{} - {} = ?", "What is {} minus {}?", "How much is {} - {}?")


def arithmetic(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a sum or a difference from 0 to 30."""
    if rng.chance(0.6):
        result = rng.randint(0, 30)
        a = rng.randint(0, result)
        b = result - a
        questions, operator = _ADD, "+"
    else:
        a = rng.randint(0, 30)
        b = rng.randint(0, a)
        result = a - b
        questions, operator = _SUBTRACT, "-"
    dialogue.turn(rng.phrase(questions).format(a, b), f"{a} {operator} {b} = {result}.")


_CAPITAL = (
    "What is the capital of {}?",
    "What's the capital of {}?",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
)
_CAPITAL_ANSWER = "The capital of {} is {}."
_COLOUR = ("What colour is {}?", "What is the colour of {}?", "Which colour is {}?", "Tell me the colour of {}.")
_OPPOSITE = ("What is the opposite of {}?", "What's the opposite of {}?", "Name the opposite of {}.")
_NEIGHBOUR = ("Which {unit} comes {order} {name}?", "What {unit} is {order} {name}?", "What comes {order} {name}?")


def facts(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a capital, a colour, an opposite, a day, a month, a sum or a difference."""
    kind = rng.random()
    if kind < 0.35:
        country, city = rng.choice(list(words.CAPITALS.items()))
        question = casual(rng, rng.phrase(_CAPITAL).format(country))
        dialogue.turn(question, _CAPITAL_ANSWER.format(country, city))
    elif kind < 0.45:
        thing, colour = rng.choice(list(words.THING_COLOURS.items()))
        dialogue.turn(rng.phrase(_COLOUR).format(thing), f"{upper_first(thing)} is {colour}.")
    elif kind < 0.55:
        word, opposite = rng.sample(rng.choice(words.OPPOSITES), 2)
        dialogue.turn(rng.phrase(_OPPOSITE).format(word), f"The opposite of {word} is {opposite}.")
    elif kind < 0.65:
        _calendar(rng, dialogue)
    else:
        arithmetic(rng, dialogue)


def _calendar(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for the day or month before or after another."""
    names, unit = rng.choice(((words.DAYS, "day"), (words.MONTHS, "month")))
    index, step = rng.randrange(len(names)), rng.choice((1, -1))
    name, neighbour = names[index], names[(index + step) % len(names)]
    order = "after" if step == 1 else "before"
    question = rng.phrase(_NEIGHBOUR).format(unit=unit, order=order, name=name)
    dialogue.turn(question, f"{neighbour} comes {order} {name}.")


def capital(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for the capital of a country, always in the same words."""
    country, city = rng.choice(list(words.CAPITALS.items()))
    dialogue.turn(_CAPITAL[0].format(country), _CAPITAL_ANSWER.format(country, city))


_LISTS: tuple[tuple[Sequence[str], Sequence[str]], ...] = (
    (
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ("Say the alphabet.", "Recite the alphabet.", "What is the alphabet?", "List the letters of the alphabet."),
    ),
    (words.DAYS, ("Name the days of the week.", "List the days of the week.", "What are the days of the week?")),
    (words.MONTHS, ("Name the months of the year.", "List the months of the year.", "What are the months?")),
)
_COUNT_DOWN = ("Count down from {1} to {0}.", "Count backwards from {1} to {0}.", "Count from {1} down to {0}.")
_COUNT_TO = ("Count to {1}.", "Count up to {1}.", "Please count to {1}.")
_COUNT = (
    "Count from {} to {}.",
    "Please count from {} to {}.",
    "List the numbers from {} to {}.",
    "Write the numbers {} to {}.",
)


def counting(rng: Rng, dialogue: Dialogue) -> None:
    """Have up to about twenty numbers counted, or the alphabet, the days or the months listed."""
    _recite(rng, dialogue, longest=20)


def long_counting(rng: Rng, dialogue: Dialogue) -> None:
    """Have up to about a hundred numbers counted, or the alphabet, the days or the months listed."""
    _recite(rng, dialogue, longest=100)


def _recite(rng: Rng, dialogue: Dialogue, longest: int) -> None:
    """Have a well-known list recited or up to about ``longest`` numbers counted."""
    kind = rng.random()
    if kind < 0.12:
        items, questions = rng.choice(_LISTS)
        dialogue.turn(rng.phrase(questions), ", ".join(items) + ".")
        return
    length = rng.randint(1, longest)
    low = rng.choice((1, 1, rng.randint(0, 100)))
    low, high = (low, min(100, low + length)) if low < 100 else (100 - length, 100)
    numbers = range(low, high + 1)
    if kind < 0.2:
        questions, numbers = _COUNT_DOWN, reversed(numbers)
    elif low == 1 and rng.chance(0.4):
        questions = _COUNT_TO
    else:
        questions = _COUNT
    dialogue.turn(rng.phrase(questions).format(low, high), ", ".join(map(str, numbers)) + ".")


_HOMES = (
    "in a deep forest",
    "near a quiet river",
    "on a green hill",
    "in a small village",
    "by the sea",
    "under an old bridge",
)
_TELL_STORY = (
    "Tell me a story about {}.",
    "Write a story about {}.",
    "Tell a story about {}.",
    "Write a short story about {}.",
    "Can you tell me a story about {}?",
    "I want to hear a story about {}.",
)


def story(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a short story about an animal, a role or a named person."""
    hero = _hero(rng)
    name = rng.name()
    if hero:
        the, asked = f"the {hero}", article(rng.choice(("", "", rng.choice(words.ADJECTIVES) + " ")) + hero)
        opening = f"Once upon a time there was {asked} named {name}."
    else:
        the, asked = name, name
        opening = f"Once upon a time there was {article(rng.choice(words.ADJECTIVES))} child named {name}."
    told = " ".join((opening, *_plot(rng, name, the)))
    dialogue.turn(rng.phrase(_TELL_STORY).format(asked), told)


def _hero(rng: Rng) -> str:
    """Return an animal, a role or, for a person, an empty string."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(words.ANIMALS)
    return rng.choice(words.ROLES) if kind < 0.75 else ""


def _plot(rng: Rng, name: str, the: str) -> list[str]:
    """Return what happens after the opening to someone with a name, who is "the fox", say, in the third person."""
    home = rng.choice(_HOMES)
    thing, friend, colour = rng.choice(words.NOUNS), rng.choice(words.ANIMALS), rng.choice(words.COLOURS)
    found = article(f"{colour} {thing}")
    return [
        f"{name} lived {home} and loved {rng.choice(words.HOBBIES)}.",
        f"One {rng.choice(('morning', 'evening', 'sunny day', 'cold night'))}, {the} found {found} on the road.",
        rng.choice(
            (
                f'"Who lost this {thing}?" asked {name}.',
                f"{name} had never seen such a {thing} before.",
                f'"What a lovely {thing}!" said {name}.',
            )
        ),
        f"Soon {article(friend)} came along and began to cry.",
        f'"I lost my {colour} {thing}," said the {friend}.',
        f"{upper_first(the)} smiled and gave the {thing} back.",
        *_ending(rng, name, the, friend),
    ]


def _ending(rng: Rng, name: str, the: str, friend: str) -> list[str]:
    """Return how the story ends for its hero and a friend."""
    thanks = rng.choice(
        (
            f"The {friend} was so happy that they danced all day.",
            f"To say thank you, the {friend} baked a big cake.",
            f"From then on, {name} and the {friend} met every day.",
        )
    )
    pastimes = (
        f"They walked through the {rng.choice(words.NOUNS)} and sang a song.",
        "The moon came out and the stars were bright.",
        f"Together they shared {rng.choice(words.FOODS)} by the fire.",
    )
    spent = rng.sample(pastimes, rng.randint(0, 3))
    close = rng.choice(
        (
            f"And {the} lived happily ever after.",
            f"And so {the} and the {friend} became best friends.",
            f"That night {name} slept very well. The end.",
        )
    )
    return [thanks, *spent, close]


_TELL_JOKE = (
    "Tell me a joke about {}.",
    "Tell a joke about {}.",
    "Make a joke about {}.",
    "Give me a joke about {}.",
    "Do you know a joke about {}?",
)
_JOKE_AS_JSON = (
    " Reply in JSON with keys setup and punchline.",
    " Return the result as a JSON with 'setup' and 'punchline' keys. Return nothing other than JSON.",
    " Answer as JSON with setup and punchline.",
    " Use JSON with the keys setup and punchline.",
)


def joke(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a joke in words or in JSON."""
    topic = rng.choice(list(words.JOKES)) if rng.chance(0.6) else rng.choice(words.ANIMALS)
    setup, punchline = words.JOKES.get(topic, (f"Why did the {topic} cross the road?", "To get to the other side."))
    question = rng.phrase(_TELL_JOKE)
    plural = topic if topic in ("sheep", "fish") else topic + "s"
    question = question.format(plural if rng.chance(0.7) else article(topic))
    if rng.chance(0.5):
        dialogue.turn(question, f"{setup} {punchline}")
    else:
        question += rng.phrase(_JOKE_AS_JSON)
        dialogue.turn(question, dumps({"setup": setup, "punchline": punchline}))


_JSON_FIELDS: dict[str, tuple[Callable[[Rng], Any], str]] = {
    "age": (lambda rng: rng.randint(1, 99), "is {} years old"),
    "city": (Rng.place, "lives in {}"),
    "job": (lambda rng: rng.choice(words.JOBS), "works as a {}"),
    "colour": (lambda rng: rng.choice(words.COLOURS), "likes {}"),
    "pet": (lambda rng: rng.choice(words.ANIMALS), "has a pet {}"),
    "food": (lambda rng: rng.choice(words.FOODS), "eats {}"),
    "hobby": (lambda rng: rng.choice(words.HOBBIES), "enjoys {}"),
    "friend": (Rng.name, "is a friend of {}"),
}
_SENTENCE_TO_JSON = (
    "Reply in JSON with keys {keys}: {text}.",
    "Reply in JSON with the keys {keys}: {text}.",
    "Extract {keys} as JSON: {text}.",
    "{text}. Answer in JSON with keys {keys}.",
    "Give me JSON with {keys}. {text}.",
    "Convert to JSON with keys {keys}: {text}.",
)
_PAIRS_TO_JSON = ("Write JSON with {}.", "Make a JSON object with {}.", "Reply in JSON: {}.", "Return JSON with {}.")


def json_reply(rng: Rng, dialogue: Dialogue) -> None:
    """Have a sentence, or given keys and values, written as JSON."""
    if rng.chance(0.25):
        _pairs_to_json(rng, dialogue)
    else:
        _sentence_to_json(rng, dialogue)


def _sentence_to_json(rng: Rng, dialogue: Dialogue) -> None:
    """Have a sentence about a person turned into JSON with the requested keys."""
    name = rng.any_name()
    keys = rng.sample(list(_JSON_FIELDS), rng.choice((1, 1, 2, 2, 3)))
    values = {"name": name} | {key: _JSON_FIELDS[key][0](rng) for key in keys}
    sentence = f"{name} " + " and ".join(_JSON_FIELDS[key][1].format(values[key]) for key in keys)
    if keys == ["age"] and rng.chance(0.5):
        sentence = f"{name} is {values['age']}"
    *first, last = values
    listed = ", ".join(first) + " and " + last
    dialogue.turn(rng.phrase(_SENTENCE_TO_JSON).format(keys=listed, text=sentence), dumps(values))


def _pairs_to_json(rng: Rng, dialogue: Dialogue) -> None:
    """Have given keys and values written as JSON."""
    values = {rng.word(): rng.choice((rng.word, rng.number, rng.name))() for _ in range(rng.randint(1, 3))}
    pairs = " and ".join(f"{key} {value}" for key, value in values.items())
    dialogue.turn(rng.phrase(_PAIRS_TO_JSON).format(pairs), dumps(values))


@dataclass(frozen=True)
class _Relation:
    """A statement about a subject and a value, and the question that it answers."""

    statement: str
    value: Value
    question: str


_RELATIONS = (
    _Relation("{} lives in {}.", Rng.place, "Where does {} live?"),
    _Relation("{} works as {}.", lambda rng: article(rng.choice(words.JOBS)), "What is the job of {}?"),
    _Relation("{} was born in {}.", lambda rng: str(rng.randint(1900, 2020)), "When was {} born?"),
    _Relation("{} is {} years old.", lambda rng: str(rng.randint(5, 99)), "How old is {}?"),
    _Relation(
        "{} has {}.",
        lambda rng: article(f"{rng.choice(words.COLOURS)} {rng.choice(words.NOUNS)}"),
        "What does {} have?",
    ),
    _Relation(
        "{} likes {}.",
        lambda rng: rng.choice((rng.choice(words.FOODS), rng.choice(words.HOBBIES))),
        "What does {} like?",
    ),
    _Relation("{} is married to {}.", Rng.name, "Who is {} married to?"),
    _Relation("{} bought {}.", lambda rng: article(rng.choice(words.NOUNS)), "What did {} buy?"),
)
_THING_RELATIONS = (
    _Relation("The {} is in the {}.", lambda rng: rng.choice(words.NOUNS), "Where is the {}?"),
    _Relation("The {} is {}.", lambda rng: rng.choice(words.COLOURS), "What colour is the {}?"),
    _Relation("The {} costs {} euros.", lambda rng: str(rng.number()), "How much does the {} cost?"),
    _Relation("The {} belongs to {}.", Rng.name, "Who owns the {}?"),
    _Relation(
        "The {} opens at {}.",
        lambda rng: f"{rng.randint(6, 12)}:{rng.choice(('00', '15', '30', '45'))}",
        "When does the {} open?",
    ),
)
_SUMMARISE = ("Summarise: {}", "Summarise this in one sentence: {}", "Sum this up: {}")
_ANSWER_FROM_CONTEXT = (
    "Context: {}\n\nQuestion: {}",
    "Context: {}\nQuestion: {}",
    "{}\n\n{}",
    "{} {}",
    "Context:\n{}\n\nQuestion: {}\nAnswer:",
    "Use the context to answer.\n{}\n\nQuestion: {}",
    "Answer from this text: {}\n{}",
)


def extraction(rng: Rng, dialogue: Dialogue) -> None:
    """Ask a question that a few sentences answer, or for their summary, which is the first of them."""
    sentences = _sentences(rng)
    context = " ".join(sentence for sentence, _ in sentences)
    answer, question = rng.choice(sentences)
    if rng.chance(0.08):
        answer, _ = sentences[0]
        request = rng.phrase(_SUMMARISE).format(context)
    else:
        request = rng.phrase(_ANSWER_FROM_CONTEXT).format(context, question)
    dialogue.turn(request, answer)


def _sentences(rng: Rng) -> list[tuple[str, str]]:
    """Return one to four sentences, each with the question that it alone answers."""
    drawn: list[tuple[_Relation, str]] = []
    for _ in range(rng.randint(1, 4)):
        if rng.chance(0.6):
            drawn.append((rng.choice(_RELATIONS), rng.any_name()))
        else:
            drawn.append((rng.choice(_THING_RELATIONS), rng.choice(words.NOUNS)))
    # By question, as one with two answers would be ambiguous.
    answers = {
        relation.question.format(subject): relation.statement.format(subject, relation.value(rng))
        for relation, subject in drawn
    }
    return [(answer, question) for question, answer in answers.items()]
