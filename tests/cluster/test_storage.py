"""Sessions that one replica saves and another one takes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama import LLM, SessionPool
from cyllama_server.activity import Activity
from cyllama_server.models import LoadedModel
from cyllama_server.sessions import Asked, KnownSessions
from cyllama_server.tenants import Tenant
from ray_cyllama.routing import key_of
from ray_cyllama.storage import SessionStorage

ADA, BEN = Tenant("ada"), Tenant("ben")


@pytest.fixture
def replicas():
    """Two replicas of one model."""
    with LLM(temperature=0, n_threads=1) as one, LLM(temperature=0, n_threads=1) as other:
        yield [
            LoadedModel("tiny-chat", llm, SessionPool(llm), KnownSessions(llm), Activity(), 0) for llm in (one, other)
        ]


def say(model: LoadedModel, text: str, history: list, tenant: Tenant = ADA, name: str | None = None) -> int:
    """Say something in a conversation, as the server does; return how many tokens were known."""
    history.append({"role": "user", "content": text})
    asked = Asked(tenant, name, list(history), {})
    with model.pool.lease(history, name, tenant=tenant.id) as lease:
        answer = model.llm.chat(history, session=lease.name, max_tokens=16)
        model.sessions.note(str(lease.name), asked)
    history.append(answer.message.to_dict())
    return answer.usage.cached_tokens


def take_up(storage: SessionStorage, model: LoadedModel, tenant: Tenant, key: str) -> int:
    found = storage.load(model, tenant, key)
    for name, asked in found:
        model.sessions.note(name, asked)
    return len(found)


@pytest.mark.parametrize("name", [None, "the conversation"])
def test_another_replica_continues_with_the_tokens_of_the_first(replicas, tmp_path: Path, name: str | None):
    storage, (one, other) = SessionStorage(tmp_path), replicas
    history: list = []
    say(one, "My name is Ada.", history, name=name)
    assert storage.save(one, one.sessions.all()) == 1
    key = key_of(ADA.id, name, history)
    assert take_up(storage, other, BEN, key) == 0, "another tenant gets nothing"
    assert take_up(storage, other, ADA, key) == 1
    assert take_up(storage, one, ADA, key) == 0, "one replica has it"
    tokens = one.llm.session(one.sessions.all()[0].name).tokens
    assert say(other, "What is my name?", history, name=name) >= tokens - 1
    assert history[-1]["content"] == "Your name is Ada."
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_replica_has_is_not_replaced_by_what_was_saved_before(replicas, tmp_path: Path):
    storage, (one, other) = SessionStorage(tmp_path), replicas
    history: list = []
    say(one, "My name is Ada.", history, name="it")
    storage.save(one, one.sessions.all())
    say(other, "What is my name?", history, name="it")
    n_tokens = other.llm.session(other.sessions.all()[0].name).tokens
    assert take_up(storage, other, ADA, key_of(ADA.id, "it")) <= 1
    assert max(other.llm.session(name).tokens for name in other.llm.sessions) == n_tokens
    assert say(other, "Thank you.", history, name="it") >= n_tokens - 1


def test_a_damaged_file_is_as_good_as_none(replicas, tmp_path: Path):
    storage, (one, other) = SessionStorage(tmp_path), replicas
    history: list = []
    say(one, "My name is Ada.", history)
    storage.save(one, one.sessions.all())
    [path] = tmp_path.rglob("*.session")
    path.write_bytes(path.read_bytes()[:-40])
    assert take_up(storage, other, ADA, key_of(ADA.id, None, history)) == 0
    assert say(other, "What is my name?", history) == 0
    assert history[-1]["content"] == "Your name is Ada."


def test_the_sessions_that_were_saved_first_leave_when_the_folder_is_full(replicas, tmp_path: Path):
    one, other = replicas
    for i in range(4):
        say(one, f"My number is {i}.", [], name=f"number {i}")
    sessions = one.sessions.all()
    SessionStorage(tmp_path / "all").save(one, sessions)
    [size, *_] = [path.stat().st_size for path in (tmp_path / "all").rglob("*.session")]
    limited = SessionStorage(tmp_path / "limited", most_bytes=2 * size + size // 2)
    for session in sessions:
        limited.save(one, [session])
    assert len(list((tmp_path / "limited").rglob("*.session"))) == 2
    kept = [session for session in sessions if limited.load(other, ADA, key_of(ADA.id, session.conversation))]
    assert kept == sessions[-2:]
