"""Seeded generator of the synthetic chat corpus on which tiny-chat is trained and evaluated.

Every skill is a function that draws turns from a random source and appends them to a dialogue; the last message that it
appends is always the assistant's reference answer.  Training mixes skills into dialogues; evaluation asks for one skill
at a time, with made-up names and, if wanted, phrasings that training never draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .chat import (
    ASK_IDENTITY,
    ASK_NAME,
    NAME_ANSWER,
    arithmetic,
    counting,
    echo,
    extraction,
    facts,
    introduction,
    joke,
    json_reply,
    long_counting,
    small_talk,
    story,
)
from .customers import create_customer
from .dialogue import Dialogue, Rng
from .memory import (
    NAME,
    NICE_TO_MEET,
    about_me,
    ask,
    ask_known,
    ask_unknown,
    casual,
    informed_system,
    plain_system,
    tell,
)
from .tools import no_tool, tool_call, tool_result, two_tool_calls

Skill = Callable[[Rng, Dialogue], None]
"""Appends turns to a dialogue, the last message being the assistant's."""

# Repeated entries are that much more frequent.
_DISTRACTORS: tuple[Skill, ...] = (small_talk, echo, facts, small_talk, echo, facts, counting, joke, tell)
_IMPERSONAL_DISTRACTORS: tuple[Skill, ...] = (small_talk, echo, facts, counting, joke)


def recall(rng: Rng, dialogue: Dialogue) -> None:
    """Tell facts, talk about other things, then ask for one of them."""
    tell(rng, dialogue)
    for _ in range(rng.randint(0, 6) if rng.held_out else rng.choice((0, 0, 1, 1, 2, 3))):
        rng.choice(_DISTRACTORS)(rng, dialogue)
    ask_known(rng, dialogue)


def recall_name(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a name that was told up to six turns ago."""
    _recall_name(rng, dialogue, 0, 6)


def recall_far(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a name that was told ten to twenty turns ago."""
    _recall_name(rng, dialogue, 10, 20)


def _recall_name(rng: Rng, dialogue: Dialogue, low: int, high: int) -> None:
    """Tell a name, talk about other things for some turns, then ask for the name."""
    name = rng.name()
    dialogue.turn(rng.phrase(NAME.statements).format(name), NICE_TO_MEET.format(name))
    for _ in range(rng.randint(low, high)):
        rng.choice(_IMPERSONAL_DISTRACTORS)(rng, dialogue)
    dialogue.turn(rng.phrase(NAME.questions), NAME.answer.format(name))


def recall_unknown(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for a fact that was not told, after other turns."""
    for _ in range(rng.randint(0, 3)):
        rng.choice((*_DISTRACTORS, tell))(rng, dialogue)
    ask_unknown(rng, dialogue)


def system_prompt(rng: Rng, dialogue: Dialogue) -> None:
    """Ask for something that only the system message says."""
    if dialogue.messages:
        ask(rng, dialogue)
        return
    informed_system(rng, dialogue)
    for _ in range(rng.choice((0, 0, 1, 2))):
        rng.choice(_DISTRACTORS)(rng, dialogue)
    if dialogue.persona and (not dialogue.facts or rng.chance(0.5)):
        identity = (ASK_IDENTITY, introduction(dialogue.persona))
        questions, answer = rng.choice((identity, (ASK_NAME, NAME_ANSWER.format(dialogue.persona[0]))))
        dialogue.turn(casual(rng, rng.phrase(questions)), answer)
    else:
        ask_known(rng, dialogue)


SKILLS: dict[str, Skill] = {
    skill.__name__: skill
    for skill in (
        recall_name,
        recall_far,
        recall,
        recall_unknown,
        small_talk,
        echo,
        facts,
        arithmetic,
        long_counting,
        story,
        joke,
        system_prompt,
        json_reply,
        extraction,
        tool_call,
        tool_result,
        two_tool_calls,
        no_tool,
        create_customer,
    )
}
"""The skills that are evaluated, by name."""

MIX: dict[Skill, float] = {
    recall: 20,
    recall_unknown: 6,
    tell: 4,
    ask: 6,
    about_me: 1,
    small_talk: 8,
    echo: 12,
    facts: 10,
    arithmetic: 15,
    counting: 8,
    long_counting: 3,
    story: 2,
    joke: 2,
    system_prompt: 6,
    json_reply: 7,
    extraction: 8,
    tool_call: 5,
    tool_result: 8,
    two_tool_calls: 0.8,
    no_tool: 3,
}
"""Shares of the skills among the parts of a training dialogue; :func:`create_customer` is trained by finetune.py."""

_AMERICAN_SPELLINGS = {"avourite": "avorite", "olour": "olor", "Summarise": "Summarize"}


def _localise(rng: Rng, dialogue: Dialogue) -> None:
    """Turn half of the dialogues into American spelling."""
    if rng.chance(0.5):
        for message in dialogue.messages:
            for british, american in _AMERICAN_SPELLINGS.items():
                message["content"] = message["content"].replace(british, american)


def _compose(rng: Rng, parts: int) -> Dialogue:
    """Return a training dialogue of a number of parts."""
    dialogue = Dialogue()
    skills = rng.choices(list(MIX), weights=list(MIX.values()), k=parts)
    if system_prompt in skills:
        # It writes the system message, and hence has to come first.
        skills.sort(key=lambda skill: skill is not system_prompt)
    elif rng.chance(0.3):
        plain_system(rng, dialogue)
    for skill in skills:
        skill(rng, dialogue)
    _localise(rng, dialogue)
    return dialogue


def dialogues(seed: int, count: int, longest: int) -> Iterator[Dialogue]:
    """Generate training dialogues.

    Args:
        seed: Determines all of them.
        count: How many to generate.
        longest: The most parts that a dialogue has; short ones are more frequent.

    Yields:
        One dialogue after the other.
    """
    rng = Rng(seed)
    for _ in range(count):
        yield _compose(rng, min(rng.randint(1, longest), rng.randint(1, longest)))


def evaluation_case(skill: str, seed: int, *, new_phrasing: bool = False) -> Dialogue:
    """Generate a dialogue that ends with the reference answer of a skill.

    Args:
        skill: A key of :data:`SKILLS`.
        seed: Determines the dialogue.
        new_phrasing: Word all of it as training never does, where the corpus knows three phrasings or more.

    Returns:
        A dialogue whose made-up names and words training never makes up.
    """
    rng = Rng(seed, held_out=True, new_phrasing=new_phrasing)
    dialogue = Dialogue()
    if skill != "system_prompt" and rng.chance(0.3):
        plain_system(rng, dialogue)
    SKILLS[skill](rng, dialogue)
    _localise(rng, dialogue)
    return dialogue
