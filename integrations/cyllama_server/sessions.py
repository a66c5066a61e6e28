"""The sessions that requests have used, and of which tenant they are."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from cyllama import LLM

from .tenants import Tenant


@dataclass(eq=False)
class KnownSession:
    """A session that requests have used.

    Attributes:
        name: What the model calls it.
        tenant: Its owner.
        conversation: The name that its requests gave to the conversation.
        created: When the first request used it, in seconds since 1970.
        last_used: When the last one did.
        n_requests: How many did.
    """

    name: str
    tenant: Tenant
    conversation: str | None
    created: float = field(default_factory=time.time)
    last_used: float = field(default_factory=time.time)
    n_requests: int = 0

    @property
    def id(self) -> str:
        """What clients call it."""
        return "sess_" + hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class KnownSessions:
    """The sessions of one loaded model. An event loop uses them, and no other thread."""

    def __init__(self) -> None:
        self._by_name: dict[str, KnownSession] = {}

    def note(self, name: str, tenant: Tenant, conversation: str | None) -> KnownSession:
        """Remember that a request of a tenant uses a session."""
        known = self._by_name.setdefault(name, KnownSession(name, tenant, conversation))
        known.last_used = time.time()
        known.n_requests += 1
        return known

    def of(self, tenant: Tenant, llm: LLM) -> list[KnownSession]:
        """Return the sessions of a tenant, the latest first. Those that the model has forgotten are forgotten here."""
        remembered = set(llm.sessions)
        self._by_name = {name: known for name, known in self._by_name.items() if name in remembered}
        found = [known for known in self._by_name.values() if known.tenant == tenant]
        return sorted(found, key=lambda known: known.last_used, reverse=True)
