"""The sessions that requests have used, and of which tenant they are."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cyllama import LLM

from .routing_key import ROUTING_KEY
from .tenants import Tenant


class Asked(NamedTuple):
    """What a request says of its session.

    Attributes:
        tenant: Who asks.
        conversation: What the conversation is called, if it is.
        history: All that the model is given: messages, or a prompt.
        options: The options of the call that change the prompt.
    """

    tenant: Tenant
    conversation: str | None
    history: str | Sequence[Mapping[str, Any]]
    options: Mapping[str, Any]


@dataclass(eq=False)
class KnownSession:
    """A session that requests have used.

    Attributes:
        name: What the model calls it.
        asked: What its latest request said of it.
        id: What clients call it: no other session has this id, on any server.
        routing_key: By what that request was routed.
        created: When the first request used it, in seconds since 1970.
        last_used: When the last one did.
        n_requests: How many did.
        saved: The file that it was saved to last, if it was.
    """

    name: str
    asked: Asked
    id: str = field(default_factory=lambda: f"sess_{uuid.uuid4().hex[:16]}")
    routing_key: str = ""
    created: float = field(default_factory=time.time)
    last_used: float = field(default_factory=time.time)
    n_requests: int = 0
    saved: str | None = None

    @property
    def tenant(self) -> Tenant:
        """Its owner."""
        return self.asked.tenant

    @property
    def conversation(self) -> str | None:
        """The name that its requests gave to the conversation."""
        return self.asked.conversation


LEAST_KNOWN = 64
"""Sessions that are known before those are looked for that the model has forgotten."""


class KnownSessions:
    """The sessions of one loaded model. An event loop uses them, and no other thread.

    At most twice as many are known here as the model remembers, and :data:`LEAST_KNOWN`.

    Args:
        llm: The model.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._by_name: dict[str, KnownSession] = {}
        self._most = LEAST_KNOWN

    def note(self, name: str, asked: Asked) -> KnownSession:
        """Remember that a request uses a session."""
        if name not in self._by_name and len(self._by_name) >= self._most:
            self._forget()
        known = self._by_name.setdefault(name, KnownSession(name, asked))
        known.asked, known.routing_key = asked, ROUTING_KEY.get()
        known.last_used = time.time()
        known.n_requests += 1
        return known

    def find(self, name: str) -> KnownSession | None:
        """Return the session that the model calls by this name, if requests have used it."""
        return self._by_name.get(name)

    def of(self, tenant: Tenant) -> list[KnownSession]:
        """Return the sessions of a tenant, the latest first."""
        return [known for known in self.all() if known.tenant == tenant]

    def all(self) -> list[KnownSession]:
        """Return all sessions, the latest first."""
        self._forget()
        return sorted(self._by_name.values(), key=lambda known: known.last_used, reverse=True)

    def _forget(self) -> None:
        """Forget the sessions that the model has forgotten."""
        remembered = set(self._llm.sessions)
        self._by_name = {name: known for name, known in self._by_name.items() if name in remembered}
        self._most = max(LEAST_KNOWN, 2 * len(self._by_name))
