"""From the arguments of a call that answers a chat to the answer, or to a stream of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .attempts import check_attempts
from .calls import Task, chat_task
from .chat import ChatResponse, MessageLike
from .chat_stream import AsyncChatStream, ChatStream
from .config import ConfigLike
from .options import ChatOptions
from .runtime import Runtime
from .submission import first_valid, first_valid_async, start, start_async


class ChatTurn(NamedTuple):
    """A call that answers a chat, and adds a turn to its conversation if it belongs to one.

    Attributes:
        messages: The whole history.
        config: Options of the call.
        options: Options by name: those of generations and those of chats.
        session: Name of the conversation that it belongs to.
        handle: The session object that asks, if there is one.
    """

    messages: Sequence[MessageLike]
    config: ConfigLike
    options: ChatOptions
    session: str | None = None
    handle: object | None = None

    def _options(self) -> tuple[dict[str, Any], Any]:
        """Return the options without ``max_attempts``, and that."""
        options = dict(self.options)
        return options, options.pop("max_attempts", 1)

    def answer(self, runtime: Runtime, *, stream: bool) -> ChatResponse | ChatStream:
        """Return the first valid answer, or the last one; with ``stream``, the deltas of the only one.

        Raises:
            CyllamaError: What :meth:`LLM.chat` raises.
        """
        options, given = self._options()
        max_attempts = check_attempts(given, stream=stream)
        plan, task = chat_task(runtime, self.messages, self.config, options)

        def begin(attempt: Task) -> ChatStream:
            return ChatStream(start(runtime, attempt, session=self.session, handle=self.handle), plan)

        return begin(task) if stream else first_valid(task, max_attempts, begin)

    async def aanswer(self, runtime: Runtime) -> ChatResponse:
        """Do the same for an event loop, without a stream."""
        options, given = self._options()
        max_attempts = check_attempts(given)
        plan, task = chat_task(runtime, self.messages, self.config, options)

        def begin(attempt: Task) -> AsyncChatStream:
            return AsyncChatStream(start_async(runtime, attempt, session=self.session, handle=self.handle), plan)

        return await first_valid_async(task, max_attempts, begin)

    def astream(self, runtime: Runtime) -> AsyncChatStream:
        """Return the deltas of an answer for the running event loop."""
        options, given = self._options()
        check_attempts(given, stream=True)
        plan, task = chat_task(runtime, self.messages, self.config, options)
        return AsyncChatStream(start_async(runtime, task, session=self.session, handle=self.handle), plan)
