"""Calls of chat models on their way to a model: handed over, cancelled, and many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_executor_for_config

from cyllama import LLM, AsyncChatStream, ChatStream, ContextSizeError, SessionError

from .errors import ConversationSizeError
from .sessions import SessionKey, conversations_of

T = TypeVar("T")


@dataclass
class Call:
    """What is known of a call where its config is, and not where it generates.

    Attributes:
        key: The conversation that it belongs to.
        model_name: What the caller calls the model, if it named one.
        running: What it generates.
        cancelled: Whether nobody wants the answer any more.
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
    """

    llm: LLM
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    call: Call
    fingerprints: list[int]
    n_opening: int
    n_messages: int
    exclusive: bool


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
