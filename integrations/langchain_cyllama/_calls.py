"""What calls of chat models and completions have in common: the session, the begin, and the end."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from langchain_core.language_models import LanguageModelInput
from langchain_core.runnables import RunnableConfig

from cyllama import AsyncChatStream, AsyncStream, ChatStream, SessionLease, Stream

from .sessions import SessionKey

CALL = "cyllama_call"
"""The argument that passes a `Call` on, from the methods that get the config to those that generate."""

NOT_OPTIONS = (CALL, "session_id")
"""Arguments of calls that are not options of the model."""

T = TypeVar("T")
S = TypeVar("S", Stream, ChatStream)
AS = TypeVar("AS", AsyncStream, AsyncChatStream)


class Cancellable(Protocol):
    """What can be ended early."""

    def cancel(self) -> None:
        """End it."""


@dataclass
class Call:
    """A call, as far as its config describes it.

    Attributes:
        key: The conversation that it belongs to.
        model_name: The name that the caller gave to the model, if any.
        running: The stream that generates.
        cancelled: Whether the caller no longer waits for the answer.
    """

    key: SessionKey | None
    model_name: str | None = None
    running: Cancellable | None = None
    cancelled: bool = False

    def cancel(self) -> None:
        """End the generation, even if it has not begun yet."""
        self.cancelled = True
        if self.running is not None:
            self.running.cancel()

    def begin(self, stream: Cancellable) -> None:
        """Store the stream that generates. End it if another thread has already cancelled the call."""
        self.running = stream
        if self.cancelled:
            stream.cancel()


def hand_over(stack: ExitStack, lease: SessionLease, call: Call, start: Callable[[str | None], S]) -> S:
    """Hand a call over to the model, and return the stream that generates.

    Args:
        stack: Closing it ends the generation and the lease.
        lease: The session that the call uses.
        call: The call.
        start: Starts the generation in the session of a name.
    """
    stack.enter_context(lease)
    stream: S = stack.enter_context(lease.hand_over(start))
    call.begin(stream)
    return stream


async def ahand_over(stack: ExitStack, lease: SessionLease, call: Call, start: Callable[[str | None], AS]) -> AS:
    """Do what `hand_over` does without blocking the event loop.

    The stack is not an `AsyncExitStack`: an event loop that ends closes all asynchronous generators at once, in any
    order, and a generator that waits for another one then fails. Closing this stack waits for nothing.
    """
    await lease.__aenter__()
    stack.push(lease)
    stream = lease.hand_over(start)
    stack.callback(stream.cancel)
    call.begin(stream)
    return stream


class SessionMethods:
    """The methods of a model that get the config of a call. They read its conversation from there."""

    @abstractmethod
    def _with_calls(
        self,
        kwargs: Mapping[str, Any],
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig | None],
    ) -> dict[str, Any]:
        """Return the arguments of a call with the conversation of each of its inputs, as argument `CALL`."""

    if not TYPE_CHECKING:  # their types are LangChain's

        def invoke(self, input, config=None, *, stop=None, **kwargs):
            """Answer an input: see `Runnable.invoke`. The class says which conversation the call belongs to.

            >>> from langchain_cyllama import ChatCyllama
            >>> ChatCyllama(temperature=0).invoke("What is the capital of France?").text
            'The capital of France is Paris.'
            """
            return super().invoke(input, config, stop=stop, **self._with_calls(kwargs, [input], [config]))

        async def ainvoke(self, input, config=None, *, stop=None, **kwargs):
            """Do what `invoke` does without blocking the event loop. No thread waits for the answer."""
            return await super().ainvoke(input, config, stop=stop, **self._with_calls(kwargs, [input], [config]))

        def stream(self, input, config=None, *, stop=None, **kwargs):
            """Answer an input in chunks: see `Runnable.stream`. Closing the stream ends the generation.

            >>> from langchain_cyllama import ChatCyllama
            >>> stream = ChatCyllama(temperature=0).stream("What is the capital of France?")
            >>> "".join(chunk.text for chunk in stream)
            'The capital of France is Paris.'
            """
            kwargs = self._with_calls(kwargs, [input], [config])
            try:
                yield from super().stream(input, config, stop=stop, **kwargs)
            finally:  # closed early: the generation ends now, even if something still refers to a frame of it
                kwargs[CALL].cancel()

        async def astream(self, input, config=None, *, stop=None, **kwargs):
            """Do what `stream` does for an event loop."""
            kwargs = self._with_calls(kwargs, [input], [config])
            try:
                async for chunk in super().astream(input, config, stop=stop, **kwargs):
                    yield chunk
            finally:  # the event loop closes the inner generator later; the generation ends now
                kwargs[CALL].cancel()
