"""Which session of a conversation a call continues, of those that an `LLM` holds."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from .chat import MessageLike, as_mapping, comparable
from .engine.conversation import TENANT_END
from .errors import SessionError
from .exclusivity import Exclusivity
from .llm import LLM

#: How a session was chosen; "none" without a session.
SessionChoice: TypeAlias = Literal["continue", "rewrite", "fork", "new", "none"]

_HISTORY_NUMBER = "\x1f"
_PROMPT_OPTIONS = ("tools", "chat_template", "chat_template_kwargs", "enable_thinking", "reasoning_effort")
_MESSAGE_PARTS = ("role", "name", "reasoning_content")  # what a prompt has of a message, besides its content and calls


class ConversationKey(NamedTuple):
    """The conversation of a call."""

    tenant: str
    conversation: str | None

    def session_name(self, number: int) -> str:
        """Return the name of its first, second, ... session. Keys of different tenants have different names."""
        name = self.conversation or ""
        if self.tenant or self.conversation is None or TENANT_END in name:
            name = f"{self.tenant}{TENANT_END}{name}"
        return name if number == 1 and self.conversation is not None else f"{name}{_HISTORY_NUMBER}{number}"


class PooledCall(NamedTuple):
    """A call, as far as the choice of its session depends on it.

    Attributes:
        key: The conversation that it belongs to.
        namespace: Which part of the caller's program calls.
        messages: Fingerprints of what the model is given.
        n_opening: How many of them come before the first message that is not the system's. They may be equal in
            histories that have nothing to do with each other.
        max_idle: Most idle sessions of the conversation and namespace.
    """

    key: ConversationKey
    namespace: str
    messages: tuple[int, ...]
    n_opening: int
    max_idle: int


def read_history(history: str | Sequence[MessageLike], options: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    """Return fingerprints of a history, and how many of them come before its first message."""
    if isinstance(history, str):  # without the last line: the answer may continue it
        return tuple(_fingerprint(line) for line in history.splitlines(keepends=True)[:-1]), 0
    messages = [as_mapping(message) for message in history]
    opening = itertools.takewhile(
        lambda m: isinstance(m, Mapping) and m.get("role") in ("system", "developer"), messages
    )
    n_opening = 1 + sum(1 for _ in opening)
    before = _fingerprint([options.get(name) for name in _PROMPT_OPTIONS])
    return (before, *map(_fingerprint_of_message, messages)), n_opening


def _fingerprint_of_message(message: object) -> int:
    """Return a fingerprint of all that a prompt has of a message, and so not of the ids of calls."""
    if not isinstance(message, Mapping):  # the model refuses it
        return _fingerprint(message)
    calls = message.get("tool_calls") or ()
    calls = calls if isinstance(calls, (list, tuple)) else [calls]
    functions = [call.get("function") if isinstance(call, Mapping) else call for call in calls]
    content = comparable(message.get("content") or None)
    return _fingerprint([*(message.get(name) or None for name in _MESSAGE_PARTS), content, functions])


def _fingerprint(value: object) -> int:
    return hash(repr(value))


@dataclass(eq=False)
class PooledHistory:
    """What one session was last asked to continue.

    Attributes:
        session: The name of the session.
        namespace: The namespace of its last lease.
        messages: Fingerprints of what the model was given.
        n_leases: How often it was leased.
        last_used: When, on the clock of its registry.
        leased: Whether a call has it now.
    """

    session: str
    namespace: str
    messages: tuple[int, ...] = ()
    n_leases: int = 0
    last_used: int = 0
    leased: bool = False

    def n_common(self, messages: tuple[int, ...]) -> int:
        """Return how many messages it begins with that others begin with too."""
        pairs = zip(self.messages, messages, strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


class _Conversation:
    """The histories of one conversation."""

    def __init__(self, key: ConversationKey) -> None:
        self.histories: list[PooledHistory] = []
        self._key = key
        self._n_sessions = 0

    def choose(self, call: PooledCall) -> tuple[PooledHistory, SessionChoice, PooledHistory | None]:
        """Return the history for a call, how it was chosen, and which history it has to become a copy of, if any."""
        extended = self._extended_by(call)
        if extended is not None:
            return extended, "rewrite" if extended.messages == call.messages else "continue", None
        alike = [history for history in self.histories if history.n_common(call.messages) > call.n_opening]
        idle = [history for history in alike if not history.leased and history.namespace == call.namespace]
        if idle and self._key.conversation is not None:
            return _most_alike(idle, call), "rewrite", None
        source = _most_alike(alike, call) if alike else None
        return self._begin(call), "new" if source is None else "fork", source

    def _extended_by(self, call: PooledCall) -> PooledHistory | None:
        """Return the longest history that a call's messages begin with, and that no call has."""
        found = [h for h in self.histories if not h.leased and call.messages[: len(h.messages)] == h.messages]
        if self._key.conversation is None:  # only a system message in common may be another conversation
            found = [h for h in found if len(h.messages) > call.n_opening]
        return max(found, key=lambda h: len(h.messages), default=None)

    def _begin(self, call: PooledCall) -> PooledHistory:
        self._n_sessions += 1
        self.histories.append(PooledHistory(self._key.session_name(self._n_sessions), call.namespace))
        return self.histories[-1]

    def trim(self, call: PooledCall) -> set[str]:
        """Drop idle histories beyond the limit, and return the names of their sessions."""
        idle = [h for h in self.histories if not h.leased and h.namespace == call.namespace]
        idle.sort(key=lambda h: (h.n_leases > 1, h.last_used))
        dropped = idle[: max(0, len(idle) - call.max_idle)]
        self.histories = [h for h in self.histories if h not in dropped]
        return {h.session for h in dropped}


def _most_alike(histories: Iterable[PooledHistory], call: PooledCall) -> PooledHistory:
    return max(histories, key=lambda h: (h.n_common(call.messages), h.last_used))


class PooledConversations:
    """The conversations of one `LLM`.

    Attributes:
        exclusivity: Which calls may begin, where one conversation is held at a time.
    """

    def __init__(self) -> None:
        # Held briefly, and never while an LLM is called that has a lock itself. Re-entrant, since a generator may be
        # collected, and give its session back, at any time and on any thread.
        self._lock = threading.RLock()
        self._conversations: dict[ConversationKey, _Conversation] = {}
        self._clock = itertools.count(1)
        self.exclusivity = Exclusivity()

    @property
    def keys(self) -> list[ConversationKey]:
        """The keys of all."""
        with self._lock:
            return list(self._conversations)

    def take(self, llm: LLM, call: PooledCall) -> tuple[PooledHistory, SessionChoice]:
        """Choose the history that a call uses, and mark it as leased."""
        sessions = set(llm.sessions)
        with self._lock:
            self._forget_what_llm_forgot(sessions, call.key)
            conversation = self._conversations.setdefault(call.key, _Conversation(call.key))
            history, choice, source = conversation.choose(call)
            history.leased = True
            history.n_leases += 1
            history.messages, history.namespace = call.messages, call.namespace
            history.last_used = next(self._clock)
        if source is not None and not _fork(llm, source.session, history.session):
            choice = "new"
        return history, choice

    def give_back(self, call: PooledCall, history: PooledHistory) -> set[str]:
        """Mark a history as idle, and return the sessions to forget."""
        with self._lock:
            history.leased = False
            conversation = self._conversations.get(call.key)
            if conversation is None:  # it was reset, and the call may have begun afterwards
                return {history.session}
            return conversation.trim(call) if history in conversation.histories else set()

    def forget(self, key: ConversationKey) -> set[str]:
        """Forget a conversation, and return the names of its sessions."""
        with self._lock:
            conversation = self._conversations.pop(key, None)
            return set() if conversation is None else {history.session for history in conversation.histories}

    def forget_all(self) -> None:
        """Forget all conversations: the context was dropped, with all sessions."""
        with self._lock:
            self._conversations.clear()

    def renew_locks(self) -> None:
        """Replace the locks in a forked child, where the threads that held them do not exist."""
        self._lock = threading.RLock()
        self.exclusivity.renew_lock()

    def _forget_what_llm_forgot(self, sessions: set[str], key: ConversationKey) -> None:
        """Drop histories whose sessions the `LLM` has forgotten: those of one conversation, or of all if many are."""
        few = len(self._conversations) <= 2 * len(sessions) + 8
        for each in [key] if few else list(self._conversations):
            conversation = self._conversations.get(each)
            if conversation is None:
                continue
            conversation.histories = [h for h in conversation.histories if h.leased or h.session in sessions]
            if not conversation.histories:
                del self._conversations[each]


def _fork(llm: LLM, source: str, target: str) -> bool:
    """Let a new session begin with what another one holds, and return whether it does."""
    if source not in llm.sessions:
        return False
    try:
        llm.session(source).fork(target)
    except SessionError:  # it exists already, or there are too many
        return False
    return True
