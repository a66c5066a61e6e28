"""Sessions in a folder that all machines share, while no replica has them."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cyllama import CyllamaError
from cyllama_server.models import LoadedModel
from cyllama_server.sessions import Asked, KnownSession
from cyllama_server.tenants import Tenant

from .routing import key_of

logger = logging.getLogger("cyllama.ray")

MOST_LOADED = 8
"""How many sessions of one key are taken up, the latest ones. There are several where a conversation branched, or where
many begin alike."""


class SessionStorage:
    """The folder.

    A session is in it from the shutdown of one replica to the next request of its conversation: the replica that
    takes it up removes it. Of two replicas that try, one gets it.

    Files hold the texts of conversations. Load only what you trust: so must the folder be.

    Args:
        folder: The folder. It is made if it does not exist.
        most_bytes: When the sessions of a model take more, those that were saved first are removed. `None`: no limit.
    """

    def __init__(self, folder: Path, most_bytes: int | None = None) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def save(self, model: LoadedModel, sessions: Iterable[KnownSession]) -> int:
        """Write sessions of a model, and return how many. One that cannot be saved is left out.

        Args:
            model: The model.
            sessions: Its sessions, the most important ones first: there may be no time for all.
        """
        n_saved = 0
        for session in sessions:
            asked = session.asked
            key = session.routing_key or key_of(asked.tenant.id, asked.conversation, asked.history)
            folder = self._sessions(model.name, asked.tenant, key)
            stem = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
            said = {"conversation": asked.conversation, "history": asked.history, "options": dict(asked.options)}
            try:
                folder.mkdir(parents=True, exist_ok=True)
                model.llm.session(session.name).save(folder / f"{stem}.session")
                _write(folder / f"{stem}.json", said)  # last: without it, the session is not there
                n_saved += 1
            except (CyllamaError, OSError, TypeError) as error:
                logger.warning("a session was not saved: %s", type(error).__name__)
        self._make_room(model.name)
        return n_saved

    def load(self, model: LoadedModel, tenant: Tenant, key: str) -> list[tuple[str, Asked]]:
        """Give the sessions of a key to a model. They are removed here.

        Args:
            model: The model.
            tenant: Whose sessions.
            key: The key of their conversation.

        Returns:
            The name of each one, and what its latest request said of it.
        """
        folder = self._sessions(model.name, tenant, key)
        found: list[tuple[str, Asked]] = []
        try:
            saved_here = sorted(folder.glob("*.json"), reverse=True)[:MOST_LOADED]
        except OSError as error:
            logger.warning("the shared folder cannot be read: %s", type(error).__name__)
            return found
        for described in saved_here:
            claimed = described.with_suffix(f".{uuid.uuid4().hex}")
            try:
                described.rename(claimed)
            except OSError:  # another replica has it
                continue
            saved = described.with_suffix(".session")
            try:
                said = json.loads(claimed.read_text(encoding="utf-8"))
                asked = Asked(tenant, said["conversation"], said["history"], said["options"])
                if (name := _restore(model, asked, saved)) is not None:
                    found.append((name, asked))
            except (CyllamaError, OSError, ValueError, KeyError) as error:
                logger.warning("a session was not loaded: %s", type(error).__name__)
            for path in (claimed, saved):
                with suppress(OSError):
                    path.unlink()
        with suppress(OSError):  # it has more sessions
            folder.rmdir()
        return found

    def _sessions(self, model: str, tenant: Tenant, key: str) -> Path:
        return self._of_model(model) / (tenant.id or "all") / key

    def _of_model(self, model: str) -> Path:
        return self._folder / "sessions" / hashlib.sha256(model.encode()).hexdigest()[:16]

    def _make_room(self, model: str) -> None:
        """Remove the sessions that were saved first, where all take too much."""
        if self._most_bytes is None:
            return
        found = sorted(self._of_model(model).glob("*/*/*.session"), key=lambda path: path.name, reverse=True)
        n_bytes = 0
        for path in found:
            with suppress(OSError):  # another replica takes it up
                n_bytes += path.stat().st_size
                if n_bytes > self._most_bytes:
                    path.with_suffix(".json").unlink()
                    path.unlink()


def _restore(model: LoadedModel, asked: Asked, path: Path) -> str | None:
    """Load a session into a model, whose pool then knows what it was asked to continue; return its name."""
    with model.pool.lease(asked.history, asked.conversation, tenant=asked.tenant.id, options=asked.options) as lease:
        if lease.name is None or lease.choice == "rewrite":  # a session here knows at least as much
            return None
        model.llm.reset_context(session=lease.name)
        model.llm.load_session(path, lease.name)
        return lease.name


def _write(path: Path, value: Any) -> None:
    """Write JSON to a file, which is there as a whole or not at all."""
    partial = path.with_suffix(f".{uuid.uuid4().hex}")
    partial.write_text(json.dumps(value, ensure_ascii=True), encoding="utf-8")
    partial.replace(path)
