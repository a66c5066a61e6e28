"""Nothing of one conversation shows in another: many users tell their secrets at once, and ask for them again.

Users are threads and tasks. They go on with their conversations in any order, cancel, drop, fork, forget, and now and
then close the model for all, while there are far too few cells for all of them. Afterwards every answer is compared
with that of a context that saw nothing but this one conversation. ``CYLLAMA_SEED`` repeats what a failure reports.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import threading
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest

from cyllama import LLM, AsyncStream, Session, Stream
from cyllama.engine import Request

from ..support.harness import ANIMALS, EXACT, Reference, in_threads, story, turn

N_THREADS, N_LOOPS, N_TASKS = 4, 4, 3  # threads, event loops in threads of their own, and tasks in each of those
N_USERS = N_THREADS + N_LOOPS * N_TASKS
CHATS_PER_USER = 3
MAX_TOKENS = 24
MAX_TURNS = 14  # the embedded model forgets what was said long ago

CONFIGS: dict[str, dict[str, Any]] = {
    "cells as needed": {"n_parallel": 8},
    "few cells, some host memory": {"n_parallel": 6, "kv_cells": 1024, "host_cache_mb": 2},
    "few cells, no host memory": {"n_parallel": 4, "kv_cells": 512, "host_cache_mb": 0},
    "small batches": {"n_parallel": 3, "n_batch": 16, "kv_cells": 768, "host_cache_mb": 1},
    "flash attention": {"n_parallel": 6, "kv_cells": 1024, "host_cache_mb": 2, "flash_attn": "enabled"},
}


class Fact(NamedTuple):
    """Something that the embedded model can be told, and asked for.

    Attributes:
        value: Makes one up.
        statement: How it is told.
        question: How it is asked for.
        answer: What is answered.
    """

    value: Callable[[random.Random], str]
    statement: str
    question: str
    answer: str


def made_up_word(rng: random.Random) -> str:
    syllables = [rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3)]
    return "".join(syllables)[: rng.choice((5, 6))] + rng.choice(("", "n", "r", "x"))


def made_up_name(rng: random.Random) -> str:
    return made_up_word(rng).capitalize()


def made_up_number(rng: random.Random) -> str:
    return str(rng.randint(10_000, 99_999))


FACTS = (
    Fact(made_up_name, "My name is {}.", "What is my name?", "Your name is {}."),
    Fact(made_up_name, "I live in {}.", "Where do I live?", "You live in {}."),
    Fact(made_up_number, "The code is {}.", "What is the code?", "The code is {}."),
    Fact(made_up_number, "The room number is {}.", "What is the room number?", "The room number is {}."),
    Fact(made_up_word, "The secret word is {}.", "What is the secret word?", "The secret word is {}."),
    Fact(made_up_name, "My dog's name is {}.", "What is my dog's name?", "Your dog's name is {}."),
    Fact(made_up_name, "My sister's name is {}.", "What is my sister's name?", "Your sister's name is {}."),
)


class Disturbance:
    """Something that happens to all conversations from time to time, and takes a while.

    Attributes:
        begun: How often it has begun.
        ended: How often it has ended.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.begun += 1

    def __exit__(self, *args: object) -> None:
        with self._lock:
            self.ended += 1


class World:
    """What all users share.

    Attributes:
        llm: The model.
        values: All that was made up so far.
        stops: How often the model was closed, or all conversations were forgotten.
        resets: How often they were forgotten.
        ended: Turns, by conversation, in order.
        questions: How many were asked.
        recalled: How many of them about what had been told, and how many were answered right.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self.values: set[str] = set()
        self.stops = Disturbance()
        self.resets = Disturbance()
        self.ended: dict[Chat, list[Request]] = {}
        self.questions = 0
        self.recalled = [0, 0]
        self._lock = threading.Lock()
        self._names = itertools.count()

    def make_up(self, fact: Fact, rng: random.Random) -> str:
        """Return a value that no other user has."""
        with self._lock:
            while (value := fact.value(rng)) in self.values:
                pass
            self.values.add(value)
            return value

    def new_name(self) -> str:
        return f"chat {next(self._names)}"

    def note_answer(self, *, right: bool) -> None:
        with self._lock:
            self.recalled[0] += 1
            self.recalled[1] += right

    def note_question(self) -> None:
        with self._lock:
            self.questions += 1

    def close(self) -> None:
        with self.stops:
            self.llm.close()

    def reset(self) -> None:
        with self.stops, self.resets:
            self.llm.reset_context()

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, control tokens included; a character for each byte, as one may be cut off."""
        data = self.llm.model.vocab.detokenize(list(tokens), remove_special=False, unparse_special=True)
        return data.decode("latin-1")


class Turn(NamedTuple):
    """A generation to be started by what drives a user.

    Attributes:
        prompt: Its text.
        session: What it goes on with.
        name: A name instead, where the prompt is the whole history.
        max_chunks: After how many chunks to cancel it.
        dropped: Whether to drop the stream then, and not to wait for its end.
    """

    prompt: str
    session: Session | None = None
    name: str | None = None
    max_chunks: int | None = None
    dropped: bool = False


class Chat:
    """One conversation as its user remembers it.

    Attributes:
        session: What the model remembers.
        history: All that was said, as text.
        told: Values by fact.
        n_turns: How many turns it has had.
    """

    def __init__(self, world: World, session: Session) -> None:
        self.world = world
        self.session = session
        self.history = ""
        self.told: dict[Fact, str] = {}
        self.n_turns = 0
        self._resets = world.resets.ended  # none of these can concern it
        self._dropped: list[Request] = []
        world.ended[self] = []

    def fork(self) -> Chat:
        other = Chat(self.world, self.session.fork(self.world.new_name()))
        other.history, other.told, other.n_turns = self.history, dict(self.told), self.n_turns
        other._resets = self._resets
        return other

    @property
    def certain(self) -> bool:
        """Whether what was said last is known."""
        return not self._dropped

    def say(self, text: str, *, whole: bool = False, **how: Any) -> Generator[Turn, Request, Request]:
        """Take a turn, as a generator that is driven by a thread or a task; return the request when it has ended."""
        separator = "\n" if self.history.endswith("<|im_end|>") else "<|im_end|>\n" if self.history else ""
        said = separator + turn(text)
        stops, resets = self.world.stops.ended, self.world.resets.ended
        self.n_turns += 1
        whole = whole and self.history.isascii()
        if whole:
            said = self.history + said
            request = yield Turn(said, name=self.session.name, **how)
        else:
            request = yield Turn(said, session=self.session, **how)
        if how.get("dropped"):
            self._dropped.append(request)
            return request
        cut = how.get("max_chunks") is not None or stops != self.world.stops.begun
        assert cut or request.finish_reason in {"stop", "length"}, f"{request.finish_reason} for no reason"
        for dropped in self._dropped:
            self._take(dropped)
        self._dropped = []
        if request.prompt:  # else it was cancelled before its turn came
            self._check_history(self.world.text(request.prompt), said, whole=whole)
        if request.tokens or (request.prompt and not whole):  # else it is not known what it would have continued
            self._resets = resets
        self._take(request)
        return request

    def _check_history(self, prompt: str, said: str, *, whole: bool) -> None:
        """See that the model goes on from what was said here, and nothing else."""
        if whole:
            assert prompt == said
        elif prompt != self.history + said:
            assert prompt == said
            assert self._resets != self.world.resets.begun, "all that was said is forgotten"
            self.history = ""
        self.told = {fact: value for fact, value in self.told.items() if value in prompt}

    def _take(self, request: Request) -> None:
        self.world.ended[self].append(request)
        if request.tokens or request.finish_reason == "length":
            self.history = self.world.text(request.prompt) + self.world.text(request.tokens)


Steps = Generator[Turn, Request, None]
References = dict[str, Reference]


def user(world: World, rng: random.Random, n_questions: int, disturb: Callable[[], None] | None = None) -> Steps:
    """Behave like a user with several conversations, who disturbs all others when half of the questions are asked."""
    chats: list[Chat] = []
    asked = 0
    while asked < n_questions:
        if disturb is not None and asked == n_questions // 2:
            disturb()
            disturb = None
        if len(chats) < CHATS_PER_USER and (not chats or rng.random() < 0.3):
            chats.append(Chat(world, world.llm.session(world.new_name())))
        chat = rng.choice(chats)
        action = rng.random()
        if chat.n_turns >= MAX_TURNS or action < 0.03:
            chats.remove(chat)
            chat.session.close()
        elif action < 0.30 or not chat.told:
            yield from tell(chat, rng)
        elif action < 0.40:
            yield from interrupt(chat, rng)
        elif action < 0.45 and len(chats) < CHATS_PER_USER and chat.certain:
            chats.append(chat.fork())
        elif action < 0.50:
            asked += 1
            yield from ask_outside(world, rng)
        elif action < 0.505:
            rng.choice((world.close, world.reset))()
        else:
            asked += 1
            yield from ask(chat, rng)
    for chat in chats:
        chat.session.close()


def tell(chat: Chat, rng: random.Random) -> Steps:
    fact = rng.choice(FACTS)
    value = chat.world.make_up(fact, rng)
    request = yield from chat.say(fact.statement.format(value), whole=rng.random() < 0.1)
    if request.finish_reason != "cancelled":
        chat.told[fact] = value


def ask(chat: Chat, rng: random.Random) -> Steps:
    fact = rng.choice(list(chat.told))
    chat.world.note_question()
    request = yield from chat.say(fact.question, whole=rng.random() < 0.1)
    if request.finish_reason != "cancelled" and fact in chat.told:
        chat.world.note_answer(right=request.answer.text == fact.answer.format(chat.told[fact]))


def interrupt(chat: Chat, rng: random.Random) -> Steps:
    """Ask for something long, and cancel it."""
    how = {"max_chunks": rng.randint(0, 8), "dropped": rng.random() < 0.3}
    yield from chat.say(f"Tell me a story about {rng.choice(ANIMALS)}.", **how)


def ask_outside(world: World, rng: random.Random) -> Steps:
    """Ask without a conversation; sometimes with a prompt that makes the context grow."""
    fact = rng.choice(FACTS)
    value = world.make_up(fact, rng)
    before = "".join(story(animal) + "Once.<|im_end|>\n" for animal in rng.choices(ANIMALS, k=rng.choice((0, 0, 20))))
    told = turn(fact.statement.format(value)) + f"Got it.<|im_end|>\n{turn(fact.question)}"
    world.note_question()
    outside = Chat(world, world.llm.session(world.new_name()))
    outside.session.close()  # it only serves to note the answer
    stops = world.stops.ended
    request = yield Turn(before + told)
    assert stops != world.stops.begun or request.finish_reason != "cancelled"
    outside._take(request)


def options(turn: Turn) -> dict[str, Any]:
    return {"max_tokens": MAX_TOKENS if turn.max_chunks is None else 200}


def drive(steps: Steps, llm: LLM) -> None:
    """Be a user in a thread."""
    request = None
    while True:
        try:
            turn = next(steps) if request is None else steps.send(request)
        except StopIteration:
            return
        stream: Stream
        if turn.session is not None:
            stream = turn.session(turn.prompt, stream=True, **options(turn))
        else:
            stream = llm(turn.prompt, session=turn.name, stream=True, **options(turn))
        request = stream._request
        if turn.max_chunks is not None:
            for _ in itertools.islice(stream, turn.max_chunks):
                pass
            stream.cancel()
        if not turn.dropped:
            stream.read()
        del stream


async def adrive(steps: Steps, llm: LLM) -> None:
    """Be a user in a task."""
    request = None
    while True:
        try:
            turn = next(steps) if request is None else steps.send(request)
        except StopIteration:
            return
        stream: AsyncStream
        if turn.session is not None:
            stream = turn.session.astream(turn.prompt, **options(turn))
        else:
            stream = llm.astream(turn.prompt, session=turn.name, **options(turn))
        request = stream._request
        if turn.max_chunks is not None:
            for _ in range(turn.max_chunks):
                await anext(stream, None)
            stream.cancel()
        if not turn.dropped:
            await stream.read()
        del stream


async def gather(steps: Sequence[Steps], llm: LLM) -> None:
    await asyncio.gather(*(adrive(some, llm) for some in steps))


def let_them_talk(config: str, seed: int, n_questions: int, references: References) -> World:
    """Let all users talk at once until so many questions were asked, and check all that they were answered."""
    print(f"CYLLAMA_SEED={seed} with {config}")
    with LLM(max_sessions=1000, **(EXACT | CONFIGS[config])) as llm:
        world = World(llm)
        disturbances = {0: world.close, N_USERS - 1: world.reset}
        users = [
            user(world, random.Random(f"{seed} {i}"), n_questions // N_USERS, disturbances.get(i))
            for i in range(N_USERS)
        ]
        calls: list[Callable[[], object]] = [partial(drive, steps, llm) for steps in users[:N_THREADS]]
        for i in range(N_THREADS, N_USERS, N_TASKS):
            calls.append(partial(lambda some: asyncio.run(gather(some, llm)), users[i : i + N_TASKS]))
        in_threads(calls)
        assert llm.sessions == []
        check_answers(world, references[config], f"CYLLAMA_SEED={seed} with {config}")
        return world


def check_answers(world: World, reference: Reference, hint: str) -> None:
    for requests in world.ended.values():
        for request in requests:
            assert request.error is None, hint
            if not request.prompt or not request.tokens:
                continue
            same = reference.check(request, hint)
            foreign = words(request.answer.text) & world.values - words(world.text(request.prompt))
            if foreign and not same:
                expected = reference.text(reference.answer(request.prompt, len(request.tokens)))
                assert foreign <= words(expected), f"{request.answer.text!r} has what was told elsewhere. {hint}"


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def a_seed() -> int:
    """Return the same seed in every run, as tests of properties have the same examples, unless another is wanted."""
    return int(os.environ.get("CYLLAMA_SEED", "1"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


@pytest.fixture(scope="module")
def references() -> References:
    exact, flash = Reference(), Reference(flash_attn=True)
    return {name: flash if "flash_attn" in options else exact for name, options in CONFIGS.items()}


def test_the_reference_is_what_a_new_model_answers(reference: Reference):
    """To the letter, for a conversation that no other user disturbs."""
    rng = random.Random(1)
    for fact in FACTS:
        with LLM(**EXACT) as llm:
            session = llm.session()
            value = fact.value(rng)
            for said in (turn(fact.statement.format(value)), "\n" + turn(fact.question)):
                stream = session(said, stream=True, max_tokens=MAX_TOKENS)
                stream.read()
                assert reference.check(stream._request)
            assert stream.response == fact.answer.format(value)


def test_the_reference_notices_an_answer_of_another_conversation(llm: LLM, reference: Reference):
    """Were the KV cache of Bob used for Ada, this is what would be seen."""
    session = llm.session()
    session(turn("My name is Bob."), max_tokens=20)
    stream = session("\n" + turn("What is my name?"), stream=True, max_tokens=20)
    assert stream.read() == "Your name is Bob."
    session.close()
    request = stream._request
    request.prompt = llm.tokenize(reference.text(request.prompt).replace("Bob", "Ada"))
    with pytest.raises(AssertionError, match=r"'Your name is Bob\..* instead of 'Your name is Ada\."):
        reference.check(request)


@pytest.mark.parametrize("config", CONFIGS)
def test_conversations_are_isolated(config: str, integrity: None, references: References):
    world = let_them_talk(config, a_seed(), 64, references)
    print(references[config].summary(), world.recalled)
    assert world.questions >= 64
    asked, right = world.recalled
    assert right >= 0.7 * asked, "the embedded model recalls most of what it was told"


@pytest.mark.slow
def test_ten_thousand_answers_are_isolated(integrity: None, references: References):
    exact, flash = references["cells as needed"], references["flash attention"]
    seed, questions, asked, right = a_seed(), 0, 0, 0
    for i in itertools.count():
        world = let_them_talk(list(CONFIGS)[i % len(CONFIGS)], seed + i, 320, references)
        questions += world.questions
        asked += world.recalled[0]
        right += world.recalled[1]
        print(f"{questions} questions, {right} of {asked} facts recalled; without flash attention, {exact.summary()}")
        print(f"with flash attention, {flash.summary()}")
        if questions >= 10_000:
            break
    assert right >= 0.8 * asked
    assert len(exact.near_ties) < 0.005 * exact.compared
    assert len(flash.near_ties) < 0.05 * flash.compared
