"""Which session of an `LLM` a call continues.

Servers and frameworks get the whole history of messages with every call. This module finds the session that holds the
longest part of it, so that only the rest is evaluated.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from typing_extensions import Self

from .chat import MessageLike
from .errors import ConfigError, ConfigTypeError, SessionError
from .llm import LLM
from .session_choice import (
    TENANT_END,
    ConversationKey,
    PooledCall,
    PooledConversations,
    PooledHistory,
    SessionChoice,
    read_history,
)

T = TypeVar("T")

_POLL_INTERVAL = 0.001  # seconds


class SessionPool:
    """Chooses the session for each call that brings its whole history.

    A call names its conversation, and leases a session for as long as it takes. One conversation may have several
    histories: parallel calls, agents with different system messages, earlier states that are continued again. Each
    history is one session of the model. A lease gets the first of these:

    1. "continue": the session with the longest history that the call's messages extend. Where both are equal (the
       answer is generated again), the choice is called "rewrite".
    2. "rewrite": the session of the same namespace that agrees with the messages for longest, at least up to the first
       message after the system messages. What follows after that is replaced.
    3. "fork": a copy of the session that agrees for longest, also of another namespace or one that is leased.
    4. "new": an empty session.

    Where a call names no conversation, as requests of OpenAI's API do, its messages alone are compared, with all calls
    of its tenant that named none. Equal beginnings may then belong to different users. So nothing is rewritten but the
    last answer: a history that differs earlier is a fork.

    A session that is leased is not leased again before the lease ends: parallel calls get different sessions. Only how
    many tokens are evaluated depends on the choice, never the answer, because a session reuses its cache only as far as
    its tokens agree with the prompt of the call.

    A pool has no resources of its own. All pools of one :class:`LLM` know the same conversations. Any number of threads
    and tasks may use it.

    >>> from cyllama import LLM, SessionPool
    >>> llm = LLM(temperature=0)
    >>> pool = SessionPool(llm)
    >>> messages = [{"role": "user", "content": "My name is Ada."}]
    >>> with pool.lease(messages, "ada") as lease:
    ...     answer = llm.chat(messages, session=lease.name)
    >>> messages += [answer.message, {"role": "user", "content": "What is my name?"}]
    >>> with pool.lease(messages, "ada") as lease:
    ...     answer = llm.chat(messages, session=lease.name)
    >>> lease.choice, answer.text, answer.usage.cached_tokens
    ('continue', 'Your name is Ada.', 24)

    Args:
        llm: The model.
        max_idle: Most idle sessions of one conversation in one namespace. When a lease ends, more than these are
            forgotten: first those that were leased once only, and of these the one unused for longest.
        max_unnamed: The same limit for all calls of one tenant and namespace that name no conversation.
        exclusive: Whether the model holds one conversation at a time, for machines with little memory. A lease of
            another conversation waits until no generation runs, and then drops the context
            (:meth:`LLM.reset_context`), with all sessions.

    Raises:
        ConfigError: A limit is negative.
    """

    def __init__(self, llm: LLM, *, max_idle: int = 8, max_unnamed: int = 64, exclusive: bool = False) -> None:
        for name, limit in (("max_idle", max_idle), ("max_unnamed", max_unnamed)):
            if limit < 0:
                raise ConfigError(f"{name} is 0 or more sessions, not {limit!r}")
        self._llm = llm
        self._max_idle = max_idle
        self._max_unnamed = max_unnamed
        self._exclusive = exclusive
        self._known = _known_of.setdefault(llm, PooledConversations())

    @property
    def llm(self) -> LLM:
        """The model."""
        return self._llm

    def lease(
        self,
        history: str | Sequence[MessageLike],
        conversation: str | None = None,
        *,
        namespace: str = "",
        tenant: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> SessionLease:
        """Return a lease of the session for one call, to be used by `with` or `async with`.

        >>> from cyllama import LLM, SessionPool
        >>> llm = LLM(temperature=0)
        >>> question = [{"role": "user", "content": "What is the capital of France?"}]
        >>> with SessionPool(llm).lease(question, "ada", tenant="acme") as lease:
        ...     answer = llm.chat(question, session=lease.name)
        >>> lease.choice, answer.text
        ('new', 'The capital of France is Paris.')

        Args:
            history: What the call gives to the model: all messages, or a prompt, which is compared by complete lines.
            conversation: What the caller calls the conversation; `None` to find it by the history.
            namespace: Which part of the caller's program calls, such as an agent. Its calls rewrite each other's
                sessions, and fork those of other namespaces.
            tenant: The owner of the conversation. Conversations of different tenants are different, also where their
                names or histories are equal, and share no cached prefix: neither `usage.cached_tokens` nor the time to
                the first token tells one of them what another one said.
            options: Options of the call. Those that change the prompt, such as `tools`, are a part of the history.

        Returns:
            A lease, whose `with` block takes the session and gives it back.

        Raises:
            ConfigTypeError: A name is not a `str`.
            ConfigError: `conversation` is empty, `tenant` contains the character U+001E, or the pool is exclusive
                and there is no `conversation`.
        """
        for name, value in (("namespace", namespace), ("tenant", tenant), ("conversation", conversation)):
            if not isinstance(value, str) and not (name == "conversation" and value is None):
                raise ConfigTypeError(f"{name} is a str, not {type(value).__name__}: {value!r:.80}")
        if conversation == "":
            raise ConfigError("conversation is an empty str: pass a name, or None to find it by the history")
        if TENANT_END in tenant:
            raise ConfigError(f"tenant contains the character U+001E, which separates it from names: {tenant!r:.80}")
        if conversation is None and self._exclusive:
            raise ConfigError("an exclusive pool holds one conversation at a time: pass the name of the conversation")
        key = ConversationKey(tenant, conversation)
        limit = self._max_unnamed if conversation is None else self._max_idle
        call = PooledCall(key, namespace, *read_history(history, options or {}), limit)
        return SessionLease(self._llm, self._known, call, exclusive=self._exclusive)

    def stateless(self) -> SessionLease:
        """Return a lease without a session, for a call that uses no cache and leaves none.

        It is useful only beside exclusive pools: they do not drop the context while this call begins.

        >>> from cyllama import LLM, SessionPool
        >>> llm = LLM(temperature=0)
        >>> with SessionPool(llm, exclusive=True).stateless() as lease:
        ...     answer = llm("Once upon a time", session=lease.name, max_tokens=4)
        >>> lease.name, llm.sessions
        (None, [])
        """
        return SessionLease(self._llm, self._known, None, exclusive=self._exclusive)

    def reset(self, conversation: str | None, *, tenant: str = "") -> None:
        """Forget a conversation with all of its sessions; its generations end with the finish reason "cancelled".

        A conversation that is not known is no error.

        >>> from cyllama import LLM, SessionPool
        >>> llm = LLM(temperature=0)
        >>> pool = SessionPool(llm)
        >>> with pool.lease("Once upon a time", "ada") as lease:
        ...     answer = llm("Once upon a time", session=lease.name, max_tokens=4)
        >>> llm.sessions
        ['ada']
        >>> pool.reset("ada")
        >>> llm.sessions
        []

        Args:
            conversation: The name that its leases had; `None` for all conversations of the tenant without a name.
            tenant: Its owner.
        """
        key = ConversationKey(tenant, conversation)
        names = self._known.forget(key)
        if conversation is not None:
            names |= {key.session_name(1)}
        for name in names:
            self._llm.reset_context(session=name)

    def reset_all(self, *, tenant: str | None = None) -> None:
        """Forget all conversations that had a lease, or all of one tenant. Other sessions of the model stay.

        >>> from cyllama import LLM, SessionPool
        >>> llm = LLM(temperature=0)
        >>> pool = SessionPool(llm)
        >>> for name in ("ada", "ben"):
        ...     with pool.lease("Once upon a time", name) as lease:
        ...         answer = llm("Once upon a time", session=lease.name, max_tokens=4)
        >>> pool.reset_all()
        >>> llm.sessions
        []

        Args:
            tenant: Whose conversations; `None` for those of all tenants.
        """
        for key in self._known.keys:
            if tenant in (None, key.tenant):
                self.reset(key.conversation, tenant=key.tenant)

    def __repr__(self) -> str:
        return f"<SessionPool of {self._llm.model_name!r}, {len(self._known.keys)} conversations>"


class SessionLease:
    """The session that one call may use until the end of its `with` block.

    Made by :meth:`SessionPool.lease`, for one `with` or `async with`. Entering the block waits only in an exclusive
    pool; `async with` does so without blocking the event loop. Leaving it never waits.

    >>> from cyllama import LLM, SessionPool
    >>> llm = LLM(temperature=0)
    >>> question = [{"role": "user", "content": "What is the capital of France?"}]
    >>> with SessionPool(llm).lease(question, "ada") as lease:
    ...     stream = lease.hand_over(lambda session: llm.chat(question, session=session, stream=True))
    ...     answer = stream.read()
    >>> answer.text
    'The capital of France is Paris.'

    Attributes:
        name: The name of the session, for the argument `session` of :class:`LLM`'s methods; `None` if the lease has
            no session, and before its block begins.
        choice: How it was chosen: "continue", "rewrite", "fork", "new", or "none".
    """

    def __init__(self, llm: LLM, known: PooledConversations, call: PooledCall | None, *, exclusive: bool) -> None:
        self.name: str | None = None
        self.choice: SessionChoice = "none"
        self._llm = llm
        self._known = known
        self._call = call
        self._exclusive_key = call.key if call is not None and exclusive else None
        self._history: PooledHistory | None = None
        self._used = False
        self._begins = False

    def hand_over(self, start: Callable[[str | None], T]) -> T:
        """Start the generation of the call.

        It does two things that a call with `session=lease.name` does not: where all `max_sessions` are in use, the call
        is answered without a session; and exclusive pools do not wait for the end of this lease, but for the end of the
        generation only. A call without a session is of no tenant: where `prefix_cache` is on, pass a key of the tenant.

        >>> from cyllama import LLM, SessionPool
        >>> llm = LLM(temperature=0)
        >>> with SessionPool(llm).lease("Once upon a time", "ada") as lease:
        ...     answer = lease.hand_over(lambda session: llm("Once upon a time", session=session, max_tokens=4))
        >>> answer.finish_reason
        'length'

        Args:
            start: Starts the generation. Its argument is the name of the session, or `None`.

        Returns:
            The result of `start`.

        Raises:
            Exception: The error of `start`.
        """
        try:
            try:
                return start(self.name)
            except SessionError:
                if self.name is None:
                    raise
                return start(None)
        finally:
            self._end_beginning()

    def __enter__(self) -> Self:
        with self._taking() as in_line:
            while not self._try_to_begin(in_line):
                time.sleep(_POLL_INTERVAL)
        return self

    def __exit__(self, *error: object) -> None:
        self._end_beginning()
        history, self._history = self._history, None
        if self._call is not None and history is not None:
            for name in self._known.give_back(self._call, history):
                self._llm.reset_context(session=name)

    async def __aenter__(self) -> Self:
        with self._taking() as in_line:
            while not self._try_to_begin(in_line):
                await asyncio.sleep(_POLL_INTERVAL)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def __repr__(self) -> str:
        return f"<SessionLease {self.name!r}, {self.choice}>"

    @contextmanager
    def _taking(self) -> Iterator[bool]:
        """Take a session after the block, in which the caller waits until the call may begin."""
        if self._used:
            raise SessionError("this lease was used before: SessionPool.lease() returns another one")
        self._used = True
        try:
            with self._known.exclusivity.in_line(self._exclusive_key) as in_line:
                yield in_line
            if self._call is not None:
                self._history, self.choice = self._known.take(self._llm, self._call)
                self.name = self._history.session
        except BaseException:
            self._end_beginning()
            raise

    def _try_to_begin(self, in_line: bool) -> bool:
        begin = self._known.exclusivity.try_to_begin
        self._begins = begin(self._llm, self._exclusive_key, in_line, self._known.forget_all)
        return self._begins

    def _end_beginning(self) -> None:
        if self._begins:
            self._begins = False
            self._known.exclusivity.end_beginning()


_known_of: weakref.WeakKeyDictionary[LLM, PooledConversations] = weakref.WeakKeyDictionary()


def _renew_locks() -> None:
    for known in list(_known_of.values()):
        known.renew_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
