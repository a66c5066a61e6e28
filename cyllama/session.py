"""One conversation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import Self, Unpack

from .chat import MessageLike
from .chat_stream import AsyncChatStream, ChatStream
from .config import ConfigLike
from .errors import SessionError
from .grammar import ResponseFormatLike
from .options import ChatOptions, GenerationOptions, TextOptions
from .response import ChatResponse, Response
from .stream import AsyncStream, Stream

if TYPE_CHECKING:
    from .llm import LLM


class Session:
    """A conversation whose KV cache stays warm: its next turn evaluates only what is new.

    Made by :meth:`LLM.session`; the same name is the same conversation. Any number of threads and tasks may use it:
    calls take effect in the order in which they were made. While nobody generates, a session costs memory and no time:
    its KV cache moves to host memory when others need the room, and is evaluated again if there is no room there
    either. As long as a session object exists, its conversation is not forgotten to make room for others, and the
    :class:`LLM` stays alive.

    >>> ada = llm.session("ada")
    >>> ada("My name is Ada.", max_tokens=32)
    >>> ada(" What is my name?", max_tokens=32)
    """

    def __init__(self, llm: LLM, name: str) -> None:
        self._llm = llm
        self._name = name
        self._closed = False
        llm._hold(self)

    @property
    def name(self) -> str:
        """What :meth:`LLM.session` knows it by."""
        return self._name

    @property
    def llm(self) -> LLM:
        """The model that answers."""
        return self._llm

    @property
    def tokens(self) -> int:
        """How many tokens it holds: all prompts and answers so far."""
        return self._llm._session_length(self._name)

    @overload
    def __call__(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        stream: Literal[False] = False,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Response: ...

    @overload
    def __call__(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        stream: Literal[True],
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Stream: ...

    @overload
    def __call__(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        stream: bool,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Response | Stream: ...

    def __call__(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        stream: bool = False,
        on_token: Callable[[str], object] | None = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | Stream:
        """Let the conversation go on with ``text``, and then with the answer.

        It holds both afterwards, with the ids of the tokens that were sampled. A generation that was cancelled leaves
        what it had generated; one that failed, or was cancelled before it began to answer, leaves nothing.

        Args:
            text: What to append, or the token ids of it; it starts with a beginning-of-sequence token only where the
                conversation does.
            config: Options for this generation, as for :meth:`LLM.__call__`.
            stream: Return a :class:`Stream` of chunks instead of waiting for the whole text.
            on_token: Called with every chunk of text, on this thread. What it raises ends the generation.
            grammar: GBNF that the answer has to fit.
            response_format: What the answer has to be, as for :meth:`LLM.__call__`.
            **overrides: Options of :class:`GenerationConfig` by name.

        Returns:
            The answer; with ``stream``, its chunks.

        Raises:
            SessionError: The session was closed.
            ContextSizeError: The conversation is longer than the context may become.
            CyllamaError: As for :meth:`LLM.__call__`.
        """
        self._use()
        task = self._llm._text_task(config, overrides, grammar, response_format)
        answer = self._llm._stream(text, task, session=self._name, append=True, on_token=on_token)
        return answer if stream else answer.read()

    async def agenerate(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Response:
        """Do the same without blocking the event loop."""
        return await self.astream(text, config, on_token=on_token, **options).read()

    def astream(
        self,
        text: str | Sequence[int],
        config: ConfigLike = None,
        *,
        on_token: Callable[[str], object] | None = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> AsyncStream:
        """Return the chunks of the answer for an event loop."""
        self._use()
        task = self._llm._text_task(config, overrides, grammar, response_format)
        return self._llm._astream(text, task, session=self._name, append=True, on_token=on_token)

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse: ...

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> ChatStream: ...

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        stream: bool,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream: ...

    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream:
        """Answer a chat, of which only what the session does not hold yet is evaluated.

        >>> ada.chat([{"role": "user", "content": "My name is Ada."}])

        Args:
            messages: The whole history, as for :meth:`LLM.chat`.
            config: Options for this generation.
            stream: Return a :class:`ChatStream` of deltas instead of waiting for the whole answer.
            **options: Those of :meth:`LLM.chat`.
        """
        self._use()
        return self._llm.chat(messages, config, session=self._name, stream=stream, **options)

    async def achat(
        self, messages: Sequence[MessageLike], config: ConfigLike = None, **options: Unpack[ChatOptions]
    ) -> ChatResponse:
        """Do the same without blocking the event loop."""
        return await self.astream_chat(messages, config, **options).read()

    def astream_chat(
        self, messages: Sequence[MessageLike], config: ConfigLike = None, **options: Unpack[ChatOptions]
    ) -> AsyncChatStream:
        """Return the deltas of the answer for an event loop."""
        self._use()
        return self._llm.astream_chat(messages, config, session=self._name, **options)

    def fork(self, name: str | None = None) -> Session:
        """Return another session that holds the same, and goes its own way from here. Nothing is evaluated again.

        Args:
            name: Its name; by default one that is free.

        Raises:
            SessionError: There is a session of that name, or there are too many.
        """
        self._check_open()
        return self._llm._fork(self, name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation to a file, as its last finished generation left it, for :meth:`LLM.load_session`.

        The file is complete, or as it was before.

        Raises:
            OSError: It cannot be written.
        """
        self._check_open()
        self._llm._save(self, path)

    def close(self) -> None:
        """Forget the conversation, at once; generations in flight end as "cancelled". Closing twice is closing once."""
        if not self._closed:
            self._closed = True
            self._llm.reset_context(session=self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session {self._name!r}, {'closed' if self._closed else f'{self.tokens} tokens'}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            "a Session cannot be pickled or copied: it belongs to a loaded model. Use fork(), or save() and "
            "LLM.load_session()"
        )

    def _use(self) -> None:
        """Begin a turn: a conversation that was forgotten by its name begins anew."""
        self._check_open()
        self._llm._hold(self)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError(f"session {self._name!r} was closed: llm.session({self._name!r}) begins a new one")
