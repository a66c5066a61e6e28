"""Answers of chat models: generated, read to the end, and generated again if they are not valid."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cyllama import (
    LLM,
    AsyncChatStream,
    ChatDelta,
    ChatResponse,
    ChatStream,
    ContextSizeError,
    GenerationConfig,
    OutputError,
    SessionLease,
)
from cyllama.attempts import Attempts, is_valid

from ._calls import Call, ahand_over, hand_over
from .errors import ConversationSizeError
from .sessions import lease_session

_VARIED = ("temperature", "seed")  # options that differ between attempts


@dataclass(frozen=True)
class ChatRequest:
    """A call of a chat model that is ready to be handed over.

    Attributes:
        llm: The model.
        messages: The messages, as `LLM.chat` takes them.
        options: The options, as `LLM.chat` takes them.
        call: The call.
        n_messages: Number of messages that the caller passed.
        exclusive: Whether the model holds one conversation at a time.
        max_attempts: Maximum number of answers to generate until one is valid.
    """

    llm: LLM
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    call: Call
    n_messages: int
    exclusive: bool
    max_attempts: int = 1

    @property
    def config(self) -> GenerationConfig:
        """The options of a generation, as far as they differ between attempts."""
        return self.llm.config.merge(**{name: self.options[name] for name in _VARIED if name in self.options})

    def attempts(self) -> Attempts[Answer]:
        """Return its attempts: the configs for `varied`, until an answer is valid or the call is cancelled."""
        return Attempts(self.config, self.max_attempts, Answer.needs_no_other, lambda: self.call.cancelled)

    def varied(self, config: GenerationConfig) -> ChatRequest:
        """Return the request of an attempt with that config."""
        before = self.config
        names = [name for name in _VARIED if getattr(config, name) != getattr(before, name)]
        return replace(self, options={**self.options, **{name: getattr(config, name) for name in names}})

    def lease(self) -> SessionLease:
        """Return a lease of its session."""
        return lease_session(self.llm, self.call.key, self.messages, self.options, exclusive=self.exclusive)

    def start(self, session: str | None) -> ChatStream:
        """Start the generation in a session."""
        return self.llm.chat(self.messages, session=session, stream=True, **self.options)

    def astart(self, session: str | None) -> AsyncChatStream:
        """Start the generation in a session, for an event loop."""
        return self.llm.astream_chat(self.messages, session=session, **self.options)


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        response: The response of the model.
        refused: The error of a call of a strict tool that is not valid.
    """

    response: ChatResponse
    refused: OutputError | None

    def needs_no_other(self) -> bool:
        """Return whether another attempt is of no use."""
        return self.refused is None and is_valid(self.response)


class Reading:
    """Iterates over the deltas of an answer. The error of a strict tool's call ends the iteration, and is stored."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._refused: OutputError | None = None

    @property
    def answer(self) -> Answer:
        """The whole answer, after the iteration."""
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


def answer(request: ChatRequest) -> Answer:
    """Return a valid answer, or the answer of the last attempt."""
    tries = request.attempts()
    for config in tries:
        with tries.attempt(), open_call(request.varied(config)) as stream:
            reading = Reading(stream)
            for _ in reading:
                pass
            tries.answer = reading.answer
    return tries.answer


async def aanswer(request: ChatRequest) -> Answer:
    """Do what `answer` does for an event loop."""
    tries = request.attempts()
    for config in tries:
        with tries.attempt():
            async with AsyncOpening(request.varied(config)) as stream:
                reading = Reading(stream)
                async for _ in reading:
                    pass
                tries.answer = reading.answer
    return tries.answer


@contextmanager
def open_call(request: ChatRequest) -> Iterator[ChatStream]:
    """Hand a request over to the model. The end of the block ends the generation."""
    with _naming_length(request.n_messages), ExitStack() as stack:
        yield hand_over(stack, request.lease(), request.call, request.start)


class AsyncOpening:
    """Does what `open_call` does for an event loop.

    It is a class, not an asynchronous generator: see `ahand_over`.
    """

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._stack = ExitStack()

    async def __aenter__(self) -> AsyncChatStream:
        request = self._request
        with ExitStack() as stack:
            stack.enter_context(_naming_length(request.n_messages))
            stream = await ahand_over(stack, request.lease(), request.call, request.astart)
            self._stack = stack.pop_all()
        return stream

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)


@contextmanager
def _naming_length(n_messages: int) -> Iterator[None]:
    """Raise a `ContextSizeError` as an error that names the conversation."""
    try:
        yield
    except ContextSizeError as error:
        raise ConversationSizeError(f"the conversation of {n_messages} messages is too long: {error}") from error
