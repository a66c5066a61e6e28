"""Calls of chat models on their way to a model: handed over, cancelled, and many at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config

from cyllama import (
    LLM,
    AsyncChatStream,
    ChatDelta,
    ChatResponse,
    ChatStream,
    ContextSizeError,
    OutputError,
    SessionError,
)
from cyllama.attempts import attempts, is_valid

from .errors import ConversationSizeError
from .sessions import SessionKey, conversations_of

T = TypeVar("T")

_VARIED = ("temperature", "seed")  # options that differ between attempts


@dataclass
class Call:
    """What is known of a call where its config is, and not where it generates.

    Attributes:
        key: The conversation that it belongs to.
        model_name: What the caller calls the model, if it named one.
        running: What it generates.
        cancelled: Whether the caller no longer wants the answer.
    """

    key: SessionKey | None
    model_name: str | None = None
    running: ChatStream | AsyncChatStream | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """End the generation, also one that has yet to begin."""
        self.cancelled = True
        if self.running is not None:
            self.running.cancel()

    def begin(self, stream: ChatStream | AsyncChatStream) -> None:
        """Note what is generated, and end it if another thread has cancelled the call meanwhile."""
        self.running = stream
        if self.cancelled:
            stream.cancel()


@dataclass(frozen=True)
class Prepared:
    """A call that is ready to be handed to the model.

    Attributes:
        llm: The model.
        messages: Messages as it takes them.
        options: Options as it takes them.
        call: What is known of the call.
        fingerprints: What stands for the messages and what comes before them.
        n_opening: How many of these come before the first turn.
        n_messages: How many messages the caller gave.
        exclusive: Whether the model holds one conversation at a time.
        max_attempts: How often it may be answered, until the answer is valid.
    """

    llm: LLM
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    call: Call
    fingerprints: list[int]
    n_opening: int
    n_messages: int
    exclusive: bool
    max_attempts: int = 1

    def attempts(self) -> Iterator[tuple[Prepared, bool]]:
        """Yield the call as it is tried, and whether that is the last time."""
        config = self.llm.config.merge(**{name: self.options[name] for name in _VARIED if name in self.options})
        for n, varied in enumerate(attempts(config, self.max_attempts), 1):
            options = {} if n == 1 else {name: getattr(varied, name) for name in _VARIED}
            yield replace(self, options={**self.options, **options}), n == self.max_attempts


class Answer(NamedTuple):
    """What came of a call.

    Attributes:
        response: The answer.
        refused: Why a call of a strict tool in it is not valid.
    """

    response: ChatResponse
    refused: OutputError | None

    @property
    def is_valid(self) -> bool:
        """Whether another attempt would be of no use."""
        return self.refused is None and is_valid(self.response)


class Reading:
    """The deltas of an answer, to its end also where a call of a strict tool in it is not valid."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._refused: OutputError | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer, once all has been read."""
        return Answer(self._stream.response, self._refused)

    def __iter__(self) -> Iterator[ChatDelta]:
        return self

    def __next__(self) -> ChatDelta:
        try:
            return next(self._stream)
        except OutputError as error:
            self._refused = error
            raise StopIteration from None

    def __aiter__(self) -> AsyncIterator[ChatDelta]:
        return self

    async def __anext__(self) -> ChatDelta:
        try:
            return await anext(self._stream)
        except OutputError as error:
            self._refused = error
            raise StopAsyncIteration from None


def answer(prepared: Prepared) -> Answer:
    """Answer a call, until the answer is valid, or that was tried often enough."""
    for each, last in prepared.attempts():
        with open_call(each) as stream:
            reading = Reading(stream)
            for _ in reading:
                pass
            found = reading.answer
        if last or found.is_valid or prepared.call.cancelled:
            return found
    raise AssertionError("there is one attempt at least")


async def aanswer(prepared: Prepared) -> Answer:
    """Do the same for an event loop."""
    for each, last in prepared.attempts():
        async with AsyncOpening(each) as stream:
            reading = Reading(stream)
            async for _ in reading:
                pass
            found = reading.answer
        if last or found.is_valid or prepared.call.cancelled:
            return found
    raise AssertionError("there is one attempt at least")


@contextmanager
def open_call(prepared: Prepared) -> Iterator[ChatStream]:
    """Hand a call over to the model, and end what it generates on the way out."""
    llm, key, conversations = prepared.llm, prepared.call.key, conversations_of(prepared.llm)
    with _naming_length(prepared.n_messages), ExitStack() as stack:
        with conversations.entry(llm, key, exclusive=prepared.exclusive):
            name = stack.enter_context(conversations.use(llm, key, prepared.fingerprints, prepared.n_opening))
            try:
                stream = llm.chat(prepared.messages, session=name, stream=True, **prepared.options)
            except SessionError:  # all that can be remembered are in use: it is answered all the same
                stream = llm.chat(prepared.messages, stream=True, **prepared.options)
            prepared.call.begin(stack.enter_context(stream))
        yield stream


class AsyncOpening:
    """Hands a call of an event loop over to the model, and ends what it generates on the way out.

    It is not an asynchronous generator: an event loop that ends closes all of those at once, in no order, and one that
    waits for another one fails. Nothing is waited for on the way out.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._stack = ExitStack()

    async def __aenter__(self) -> AsyncChatStream:
        prepared = self._prepared
        llm, key, conversations = prepared.llm, prepared.call.key, conversations_of(prepared.llm)
        with ExitStack() as stack:
            stack.enter_context(_naming_length(prepared.n_messages))
            async with conversations.aentry(llm, key, exclusive=prepared.exclusive):
                name = stack.enter_context(conversations.use(llm, key, prepared.fingerprints, prepared.n_opening))
                try:
                    stream = llm.astream_chat(prepared.messages, session=name, **prepared.options)
                except SessionError:
                    stream = llm.astream_chat(prepared.messages, **prepared.options)
                stack.callback(stream.cancel)
                prepared.call.begin(stream)
            self._stack = stack.pop_all()
        return stream

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


@contextmanager
def _naming_length(n_messages: int) -> Iterator[None]:
    """Say what is too long: the conversation."""
    try:
        yield
    except ContextSizeError as error:
        raise ConversationSizeError(f"the conversation of {n_messages} messages is too long: {error}") from error


# ------------------------------------------------------------------------------------------------------- many at once


@contextmanager
def in_threads(
    config: RunnableConfig, calls: Sequence[Call], answer: Callable[[int], T]
) -> Iterator[list[Future[tuple[int, T]]]]:
    """Answer calls in a thread each, and cancel all that are not answered on the way out.

    LangChain's own batches wait for every call that has begun, also after Ctrl-C.

    Args:
        config: Says how many may run at once.
        calls: The calls.
        answer: Answers the call of an index.
    """
    futures: list[Future[tuple[int, T]]] = []
    with get_executor_for_config(config) as executor:
        try:
            for i in range(len(calls)):
                futures.append(executor.submit(lambda i: (i, answer(i)), i))
            yield futures
        finally:
            for future in futures:
                future.cancel()
            for call in calls:  # also one that a thread has, and the list has not yet
                call.cancel()


def as_completed(futures: Sequence[Future[T]]) -> Iterator[T]:
    """Yield results as they come."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
