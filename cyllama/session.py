"""One conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from typing_extensions import Self, TypeVar, Unpack

from .calls import Task, text_task
from .errors import SessionError
from .runtime import Runtime
from .submission import start, start_async

if TYPE_CHECKING:
    from .call_types import MessagesLike, OnToken, PathLike, PromptLike, SessionCall, SessionChatCall, SessionStreamCall
    from .chat import ChatResponse
    from .chat_stream import AsyncChatStream, ChatStream
    from .chat_submission import ChatTurn
    from .config import ConfigLike
    from .grammar import ResponseFormatLike
    from .options import ChatOptions, GenerationOptions, TextOptions
    from .response import Response
    from .stream import AsyncStream, Stream

LLMT = TypeVar("LLMT", covariant=True, default=Any)
"""The class of the object that made a session: :class:`LLM`, which is built on sessions, or one derived from it."""


class Session(Generic[LLMT]):
    """A conversation whose KV cache stays in memory: its next turn evaluates only what is new.

    Made by :meth:`LLM.session`; the same name is the same conversation. Any number of threads and tasks may use it:
    calls take effect in the order in which they were made. While it does not generate, a session costs memory and no
    time: its KV cache moves to host memory when others need the room, and is evaluated again if there is no room there
    either. As long as a session object exists, its conversation is not forgotten to make room for others, and the
    :class:`LLM` stays alive.

    >>> ada = llm.session("ada")
    >>> first = ada("My name is Ada.", max_tokens=32)
    >>> second = ada(" What is my name?", max_tokens=32)
    >>> second.usage.cached_tokens >= first.usage.total_tokens - 1
    True
    """

    def __init__(self, llm: LLMT, runtime: Runtime, name: str) -> None:
        self._llm = llm
        self._runtime = runtime
        self._name = name
        self._closed = False
        runtime.hold(name, self)

    @property
    def name(self) -> str:
        """The name that :meth:`LLM.session` finds it by.

        >>> llm.session("ada").name
        'ada'
        """
        return self._name

    @property
    def llm(self) -> LLMT:
        """The model that answers.

        >>> llm.session("ada").llm is llm
        True
        """
        return self._llm

    @property
    def tokens(self) -> int:
        """How many tokens it holds: all prompts and answers so far.

        >>> llm.session("ada").tokens
        0
        """
        return self._runtime.n_tokens(self._name)

    @overload
    def __call__(self, text: PromptLike, config: ConfigLike = None, **options: Unpack[SessionCall]) -> Response: ...

    @overload
    def __call__(
        self,
        text: PromptLike,
        config: ConfigLike = None,
        *,
        stream: Literal[True],
        **options: Unpack[SessionStreamCall],
    ) -> Stream: ...

    @overload
    def __call__(
        self, text: PromptLike, config: ConfigLike = None, *, stream: bool, **options: Unpack[SessionStreamCall]
    ) -> Response | Stream: ...

    def __call__(
        self,
        text: PromptLike,
        config: ConfigLike = None,
        *,
        stream: bool = False,
        on_token: OnToken = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | Stream:
        """Append ``text`` to the conversation, and then the answer.

        The conversation holds both afterwards, with the ids of the tokens that were sampled. A generation that was
        cancelled leaves what it had generated; one that failed, or was cancelled before it began to answer, leaves
        nothing.

        >>> ada = llm.session("ada")
        >>> answer = ada("My name is Ada.", max_tokens=8)
        >>> ada.tokens == answer.usage.total_tokens
        True

        Args:
            text: What to append, as a prompt of :meth:`LLM.__call__`; it starts with a beginning-of-sequence token only
                where the conversation does.
            config: Options for this generation, as for :meth:`LLM.__call__`.
            stream: Return a :class:`Stream` of chunks instead of waiting for the whole text.
            on_token: Called with every chunk of text, on this thread. An exception that it raises ends the generation.
            grammar: GBNF that the answer has to fit.
            response_format: What the answer has to be, as for :meth:`LLM.__call__`.
            **overrides: Options of :class:`GenerationConfig` by name.

        Returns:
            The answer; with ``stream``, its chunks.

        Raises:
            SessionError: The session was closed.
            ContextSizeError: The conversation is longer than the context may become.
            CyllamaError: Everything else that :meth:`LLM.__call__` raises.
        """
        task = self._task(text, config, overrides, grammar, response_format)
        answer = start(self._runtime, task, session=self._name, handle=self, on_token=on_token)
        return answer if stream else answer.read()

    async def agenerate(
        self, text: PromptLike, config: ConfigLike = None, *, on_token: OnToken = None, **options: Unpack[TextOptions]
    ) -> Response:
        """Append ``text`` and the answer without blocking the event loop.

        Arguments, result and errors are those of :meth:`__call__`; ``on_token`` may also return something to await.

        >>> ada = llm.session("ada")
        >>> answer = asyncio.run(ada.agenerate("My name is Ada.", max_tokens=8))
        >>> ada.tokens == answer.usage.total_tokens
        True
        """
        return await self.astream(text, config, on_token=on_token, **options).read()

    def astream(
        self,
        text: PromptLike,
        config: ConfigLike = None,
        *,
        on_token: OnToken = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> AsyncStream:
        """Append ``text``, and return the chunks of the answer for the running event loop.

        Arguments and errors are those of :meth:`__call__`.

        >>> ada = llm.session("ada")
        >>> async def answer():
        ...     return [chunk async for chunk in ada.astream("Once upon a time", max_tokens=8)]
        >>> len("".join(asyncio.run(answer()))) > 0
        True
        """
        task = self._task(text, config, overrides, grammar, response_format)
        return start_async(self._runtime, task, session=self._name, handle=self, on_token=on_token)

    @overload
    def chat(
        self, messages: MessagesLike, config: ConfigLike = None, **options: Unpack[SessionChatCall]
    ) -> ChatResponse: ...

    @overload
    def chat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> ChatStream: ...

    @overload
    def chat(
        self, messages: MessagesLike, config: ConfigLike = None, *, stream: bool, **options: Unpack[ChatOptions]
    ) -> ChatResponse | ChatStream: ...

    def chat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream:
        """Answer a chat, of which only what the session does not hold yet is evaluated.

        >>> ada = llm.session("ada")
        >>> ada.chat([{"role": "user", "content": "What is the capital of France?"}]).text
        'The capital of France is Paris.'

        Args:
            messages: The whole history, as for :meth:`LLM.chat`.
            config: Options for this generation.
            stream: Return a :class:`ChatStream` of deltas instead of waiting for the whole answer.
            **options: Those of :meth:`LLM.chat`.

        Returns:
            The answer; with ``stream``, its deltas.

        Raises:
            SessionError: The session was closed.
            CyllamaError: What :meth:`LLM.chat` raises.
        """
        return self._chat_call(messages, config, options).answer(self._runtime, stream=stream)

    async def achat(
        self, messages: MessagesLike, config: ConfigLike = None, **options: Unpack[ChatOptions]
    ) -> ChatResponse:
        """Answer a chat without blocking the event loop.

        Arguments, result and errors are those of :meth:`chat`.

        >>> ada = llm.session("ada")
        >>> asyncio.run(ada.achat([{"role": "user", "content": "What is the capital of France?"}])).text
        'The capital of France is Paris.'
        """
        return await self._chat_call(messages, config, options).aanswer(self._runtime)

    def astream_chat(
        self, messages: MessagesLike, config: ConfigLike = None, **options: Unpack[ChatOptions]
    ) -> AsyncChatStream:
        """Answer a chat, and return the deltas of the answer for the running event loop.

        Arguments and errors are those of :meth:`chat`.

        >>> ada = llm.session("ada")
        >>> async def answer():
        ...     deltas = ada.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
        ...     return "".join([delta.content async for delta in deltas])
        >>> asyncio.run(answer())
        'The capital of France is Paris.'
        """
        return self._chat_call(messages, config, options).astream(self._runtime)

    def fork(self, name: str | None = None) -> Session[LLMT]:
        """Return another session that holds the same, and continues separately. Nothing is evaluated again.

        >>> ada = llm.session("ada")
        >>> _ = ada("My name is Ada.", max_tokens=8)
        >>> branch = ada.fork("branch")
        >>> branch.tokens == ada.tokens
        True

        Args:
            name: Its name; by default one that is free.

        Returns:
            The new session.

        Raises:
            SessionError: The session was closed, there is one of that name, or there are too many.
            PromptTypeError: The name is not a str.
            ForkedError: The process was forked after the model was loaded.
        """
        self._check_open()
        with self._runtime.lock:
            return Session(self._llm, self._runtime, self._runtime.fork(self._name, name))

    def save(self, path: PathLike) -> None:
        """Write the conversation to a file, as its last finished generation left it, for :meth:`LLM.load_session`.

        The file is replaced as a whole: after an error it is as it was before.

        >>> ada = llm.session("ada")
        >>> _ = ada("My name is Ada.", max_tokens=8)
        >>> ada.save("ada.session")
        >>> llm.load_session("ada.session", "copy of ada").tokens == ada.tokens
        True

        Args:
            path: The file.

        Raises:
            SessionError: The session was closed.
            ForkedError: The process was forked after the model was loaded.
            OSError: The file cannot be written.
        """
        self._check_open()
        self._runtime.save(self._name, path)

    def close(self) -> None:
        """Forget the conversation, at once. Closing twice has no further effect.

        Generations in flight end as "cancelled".

        >>> ada = llm.session("ada")
        >>> ada.close()
        >>> llm.sessions
        []
        """
        if not self._closed:
            self._closed = True
            self._runtime.forget(self._name)

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

    def _task(
        self,
        text: PromptLike,
        config: ConfigLike,
        overrides: GenerationOptions,
        grammar: str | None,
        response_format: ResponseFormatLike,
    ) -> Task:
        """Return what continues the conversation with ``text``; if it was forgotten by its name, from scratch."""
        self._check_open()
        return text_task(
            self._runtime, text, config, overrides, grammar=grammar, response_format=response_format, append=True
        )

    def _chat_call(self, messages: MessagesLike, config: ConfigLike, options: ChatOptions) -> ChatTurn:
        from .chat_submission import ChatTurn  # here, since completions do without

        self._check_open()
        return ChatTurn(messages, config, options, self._name, self)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError(f"session {self._name!r} was closed: llm.session({self._name!r}) begins a new one")
