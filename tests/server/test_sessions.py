"""What a server knows of the sessions that requests have used."""

from __future__ import annotations

from cyllama import LLM
from cyllama_server.sessions import LEAST_KNOWN, Asked, KnownSessions
from cyllama_server.tenants import Tenant

ADA, BEN = Tenant("ada"), Tenant("ben")


def test_sessions_that_the_model_has_forgotten_are_forgotten_however_many_there_were():
    with LLM(max_sessions=100) as llm:
        known = KnownSessions(llm)
        for i in range(100):
            llm.session(f"kept {i}")
            known.note(f"kept {i}", Asked(BEN, None, [], {}))
        for i in range(2000):
            known.note(f"forgotten {i}", Asked(ADA, None, [], {}))
        left = [i for i in range(2000) if known.find(f"forgotten {i}") is not None]
        assert len(left) <= 100 + LEAST_KNOWN
        assert [session.name for session in known.of(BEN)] == [f"kept {i}" for i in reversed(range(100))]
        assert known.of(ADA) == []
