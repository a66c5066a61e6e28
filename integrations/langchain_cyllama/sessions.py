"""Which conversation a call belongs to, and which sessions of an `LLM` hold it.

A conversation is what its caller calls one: a `session_id`, or the `thread_id` of a graph. Behind one id there may be
several histories: agents of one graph have prompts of their own, calls run side by side, and an earlier turn may be
taken up again. Each history is a session of the `LLM`, whose KV cache its next turn goes on from.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from cyllama import LLM, SessionError

MAX_HISTORIES = 8
"""Most histories that are kept of one conversation at one place of a graph while nobody uses them."""

_IDLE_POLL = 0.001  # seconds


class SessionKey(NamedTuple):
    """The conversation that a call belongs to.

    Attributes:
        id: What the caller calls it.
        namespace: The place in a graph that the call comes from, the same at every step.
    """

    id: str
    namespace: str = ""


def find_session(session_id: object = None, config: RunnableConfig | None = None) -> SessionKey | None:
    """Return the conversation that a call belongs to, if any.

    It is an explicit `session_id`, else `configurable.session_id` (`RunnableWithMessageHistory`), else
    `configurable.thread_id` (LangGraph), of the call's own config or else of the one around it.

    Args:
        session_id: What the caller named explicitly.
        config: The config that the call was given. That of the chain or the graph node around it is found by itself.
    """
    configurables = [(c or {}).get("configurable") or {} for c in (config, var_child_runnable_config.get())]
    namespace = next((str(c["checkpoint_ns"]) for c in configurables if c.get("checkpoint_ns")), "")
    named = (c.get(name) for c in configurables for name in ("session_id", "thread_id"))
    found = next((value for value in itertools.chain((session_id,), named) if value not in (None, "")), None)
    return None if found is None else SessionKey(str(found), stable_namespace(namespace))


def stable_namespace(checkpoint_ns: str) -> str:
    """Return a namespace of LangGraph without the ids of tasks, which are new at every step.

    >>> stable_namespace("supervisor:6f1c|researcher:09ab")
    'supervisor|researcher'
    """
    return "|".join(part.partition(":")[0] for part in checkpoint_ns.split("|") if not part.isdigit())


def fingerprint(*parts: object) -> int:
    """Return a number that stands for a message, or for what comes before all messages."""
    return hash(repr(parts))


# ----------------------------------------------------------------------------------------------------------- histories


@dataclass(eq=False)
class _History:
    """What one session of the `LLM` was last asked to continue.

    Attributes:
        name: The session's name.
        namespace: The place in a graph that used it last.
        messages: Fingerprints of all that the model was given.
        calls: How often it was used.
        last_used: When, on the registry's clock.
        busy: Whether a call uses it now.
    """

    name: str
    namespace: str
    messages: tuple[int, ...] = ()
    calls: int = 0
    last_used: int = 0
    busy: bool = False


@dataclass(eq=False)
class _Conversation:
    histories: list[_History] = field(default_factory=list)
    begun: int = 0

    def continued_by(self, messages: tuple[int, ...]) -> _History | None:
        """Return the longest history that messages go on from, and that nobody uses."""
        found = [h for h in self.histories if not h.busy and messages[: len(h.messages)] == h.messages]
        return max(found, key=lambda h: len(h.messages), default=None)

    def rewritten_by(self, messages: tuple[int, ...], namespace: str, n_opening: int) -> _History | None:
        """Return the history of the same place that begins as messages do, opening and first turn included."""
        found = [h for h in self.histories if not h.busy and h.namespace == namespace]
        best = _most_alike(found, messages)
        return best if best is not None and _n_common(best.messages, messages) > n_opening else None

    def begin(self, conversation_id: str, namespace: str) -> _History:
        """Return a new history, with a name that none has had."""
        self.begun += 1
        name = conversation_id if self.begun == 1 else f"{conversation_id}\x1f{self.begun}"
        self.histories.append(_History(name, namespace))
        return self.histories[-1]


def _n_common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _most_alike(histories: Iterable[_History], messages: tuple[int, ...]) -> _History | None:
    return max(histories, key=lambda h: (_n_common(h.messages, messages), h.last_used), default=None)


class Conversations:
    """The conversations of one `LLM`, and which of its sessions hold them.

    Only what is evaluated again depends on the choice of a session, never an answer: a session reuses what agrees with
    the whole history that a call is given, token by token.
    """

    def __init__(self) -> None:
        # Held for moments only, and never while an LLM is asked for something that has a lock itself. Re-entrant, since
        # a generator may be collected, and give its session back, at any time and on any thread.
        self._lock = threading.RLock()
        self._by_id: dict[str, _Conversation] = {}
        self._clock = itertools.count(1)
        self._current: str | None = None
        self._entering = 0
        self._waiting = 0
        self._switching = False

    # -------------------- using a session

    @contextmanager
    def use(
        self, llm: LLM, key: SessionKey | None, messages: Sequence[int], n_opening: int = 1
    ) -> Iterator[str | None]:
        """Give the name of the session that a call is to use, for as long as it takes.

        Args:
            llm: The model.
            key: The conversation; ``None`` for none.
            messages: Fingerprints of what the model is given.
            n_opening: How many of them come before the first turn, and may be the same for many histories.
        """
        if key is None:
            yield None
            return
        history = self._take(llm, key, tuple(messages), n_opening)
        try:
            yield history.name
        finally:
            self._give_back(llm, key, history)

    def _take(self, llm: LLM, key: SessionKey, messages: tuple[int, ...], n_opening: int) -> _History:
        source: str | None = None
        remembered = set(llm.sessions)
        with self._lock:
            self._forget_what_is_not(remembered, key.id)
            conversation = self._by_id.setdefault(key.id, _Conversation())
            history = conversation.continued_by(messages)
            history = history or conversation.rewritten_by(messages, key.namespace, n_opening)
            if history is None:
                nearest = _most_alike(conversation.histories, messages)
                if nearest is not None and _n_common(nearest.messages, messages) > n_opening:
                    source = nearest.name
                history = conversation.begin(key.id, key.namespace)
            history.busy = True
            history.calls += 1
            history.messages, history.namespace = messages, key.namespace
            history.last_used = next(self._clock)
        if source is not None:
            _fork(llm, source, history.name)
        return history

    def _give_back(self, llm: LLM, key: SessionKey, history: _History) -> None:
        with self._lock:
            history.busy = False
            conversation = self._by_id.get(key.id)
            if conversation is None or history not in conversation.histories:  # it was reset meanwhile
                forgotten = [history.name] if conversation is None else []
            else:
                forgotten = self._trim(conversation, key.namespace)
        for name in forgotten:
            llm.reset_context(session=name)

    def _trim(self, conversation: _Conversation, namespace: str) -> list[str]:
        """Drop the histories that will be missed least, and return their names: first those that never went on."""
        idle = [h for h in conversation.histories if not h.busy and h.namespace == namespace]
        idle.sort(key=lambda h: (h.calls > 1, h.last_used))
        dropped = idle[: max(0, len(idle) - MAX_HISTORIES)]
        conversation.histories = [h for h in conversation.histories if h not in dropped]
        return [h.name for h in dropped]

    def _forget_what_is_not(self, remembered: set[str], conversation_id: str) -> None:
        """Forget what the `LLM` has forgotten: of one conversation at once, of all when there are many."""
        ids = [conversation_id] if len(self._by_id) <= 2 * len(remembered) + MAX_HISTORIES else list(self._by_id)
        for each in ids:
            conversation = self._by_id.get(each)
            if conversation is None:
                continue
            conversation.histories = [h for h in conversation.histories if h.busy or h.name in remembered]
            if not conversation.histories:
                del self._by_id[each]

    # -------------------- ending conversations

    def reset(self, llm: LLM, conversation_id: str) -> None:
        """Forget a conversation with all of its histories; generations of it end as "cancelled"."""
        with self._lock:
            conversation = self._by_id.pop(conversation_id, _Conversation())
        for name in {conversation_id, *(history.name for history in conversation.histories)}:
            llm.reset_context(session=name)

    def reset_all(self, llm: LLM) -> None:
        """Forget all conversations that calls were made in."""
        with self._lock:
            ids = list(self._by_id)
        for conversation_id in ids:
            self.reset(llm, conversation_id)

    # -------------------- one conversation at a time

    @contextmanager
    def entry(self, llm: LLM, key: SessionKey | None, *, exclusive: bool) -> Iterator[None]:
        """Let a call hand its generation over, and before that drop the context if it is of another conversation.

        What is being generated is never cut off: the context is dropped when it has ended, whether or not it was read.
        """
        with self._in_line(key, exclusive) as in_line:
            while not self._enter(llm, key, exclusive, in_line):
                time.sleep(_IDLE_POLL)
        try:
            yield
        finally:
            self._entered()

    @asynccontextmanager
    async def aentry(self, llm: LLM, key: SessionKey | None, *, exclusive: bool) -> AsyncIterator[None]:
        """Do the same without blocking the event loop."""
        with self._in_line(key, exclusive) as in_line:
            while not self._enter(llm, key, exclusive, in_line):
                await asyncio.sleep(_IDLE_POLL)
        try:
            yield
        finally:
            self._entered()

    @contextmanager
    def _in_line(self, key: SessionKey | None, exclusive: bool) -> Iterator[bool]:
        """Keep calls of the present conversation from overtaking one of another for ever."""
        with self._lock:
            switches = self._switches(key, exclusive)
            self._waiting += switches
        try:
            yield switches
        finally:
            with self._lock:
                self._waiting -= switches

    def _switches(self, key: SessionKey | None, exclusive: bool) -> bool:
        return exclusive and key is not None and self._current not in (None, key.id)

    def _enter(self, llm: LLM, key: SessionKey | None, exclusive: bool, in_line: bool) -> bool:
        with self._lock:
            switches = self._switches(key, exclusive)
            if self._switching or (self._waiting and not in_line) or (self._entering and switches):
                return False
            if not switches:
                if exclusive and key is not None:
                    self._current = key.id
                self._entering += 1
                return True
            self._switching = True
        try:
            stats = llm.stats
            if stats.running or stats.waiting:
                return False
            llm.reset_context()
            with self._lock:
                self._by_id.clear()
                self._current = None if key is None else key.id
                self._entering += 1
            return True
        finally:
            self._switching = False

    def _entered(self) -> None:
        with self._lock:
            self._entering -= 1


def _fork(llm: LLM, source: str, target: str) -> None:
    """Let a new session begin with what another one holds."""
    if source not in llm.sessions:
        return
    try:
        llm.session(source).fork(target)
    except SessionError:  # there is one already, or there are too many: it begins with what others hold by itself
        return


# --------------------------------------------------------------------------------------------------------- of each LLM

_conversations: weakref.WeakKeyDictionary[LLM, Conversations] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def conversations_of(llm: LLM) -> Conversations:
    """Return the conversations of an `LLM`: one registry for all objects that share it."""
    with _lock:
        found = _conversations.get(llm)
        if found is None:
            found = _conversations[llm] = Conversations()
        return found


def opening(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many messages come before the first turn."""
    return sum(1 for _ in itertools.takewhile(lambda m: m["role"] in ("system", "developer"), messages))
