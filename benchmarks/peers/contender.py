"""What is measured: engines in processes of their own, all asked in the same way."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kit.models import BUILD
from peers.processes import PeerProcess
from peers.protocol import Answer, Ask, Outcome, Settings
from peers.server import LlamaServer
from peers.tools import TOOLS

BENCHMARKS = Path(__file__).parents[1]
PEERS = BUILD / "peers"
REPLY_SECONDS = 900.0
MOST_CHARACTERS = 160  # of the reason why a contender is missing
OURS = "cyllama"
SERVER = "llama-server"
#: Peers that are Python packages, and the modules of peers/engines that run them.
PACKAGES = {
    "llama-cpp-python": "llama_cpp_python",
    "xllamacpp": "xllamacpp",
    "mistralrs": "mistralrs",
    "cyllama-cython": "cyllama_cython",
}
EVERYONE = (OURS, SERVER, *PACKAGES)


class EngineProcess(PeerProcess):
    """A Python package in an environment of its own; leaving the ``with`` block ends it.

    Raises:
        RuntimeError: It is not installed, or did not start.
    """

    def __init__(self, name: str, settings: Settings, *, environment: dict[str, str] | None = None) -> None:
        module = PACKAGES.get(name, "cyllama")
        command = [python_of(name), "-m", f"peers.engines.{module}", json.dumps(asdict(settings))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": BENCHMARKS, "text": True}
        super().__init__(command, name, **pipes, env={**os.environ, **(environment or {})})
        try:
            ready = self._reply()
        except BaseException:
            self.close()
            raise
        self.version: str = ready["version"]
        self.started = {"import": ready["import"], "load": ready["load"]}

    def ask(self, asks: list[Ask]) -> Outcome:
        """Make requests at once, on threads of the engine's process."""
        reply = self._request({"asks": [asdict(ask) for ask in asks]})
        return Outcome(reply["seconds"], reply["cpu"], [Answer(**answer) for answer in reply["answers"]])

    def embed(self, texts: list[str]) -> float:
        """Embed texts in one call; return the seconds."""
        return self._request({"texts": texts})["seconds"]

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(REPLY_SECONDS):
                raise RuntimeError(f"no reply within {REPLY_SECONDS:.0f} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended: {self.last_words()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply


def python_of(name: str) -> str:
    """Return the Python that has a package.

    Raises:
        RuntimeError: It is not installed.
    """
    if name == OURS:
        return sys.executable
    python = PEERS / name / "bin" / "python"
    record = PEERS / f"{name}.json"
    if record.exists():
        error = json.loads(record.read_text()).get("error")
        if error:
            raise RuntimeError(f"it could not be installed: {error}")
    if not python.exists():
        raise RuntimeError("it is not installed: `make peers` does")
    return str(python)


def open_contender(name: str, settings: Settings) -> EngineProcess | LlamaServer:
    """Start a contender with a model.

    Raises:
        RuntimeError: It is not installed, or did not start.
    """
    if name != SERVER:
        return EngineProcess(name, settings)
    if not (TOOLS / SERVER).exists():
        raise RuntimeError("it is not built: `make bench` does")
    slots = {"n_slots": settings.n_parallel, "slot_cells": settings.n_ctx}
    return LlamaServer(
        Path(settings.model),
        settings.n_threads,
        **slots,
        cache_ram_mib=4096,
        embedding=settings.embedding,
        drafts=settings.drafts,
    )


Contender = EngineProcess | LlamaServer


class Field:
    """The contenders of a scenario: those that start, and why the others do not.

    Args:
        names: Who is to take part.
        settings: How each is opened.
    """

    def __init__(self, names: Iterable[str], settings: Settings) -> None:
        self.running: dict[str, Contender] = {}
        self.failures: dict[str, str] = {}
        self._stack = ExitStack()
        for name in names:
            try:
                self.running[name] = self._stack.enter_context(open_contender(name, settings))
            except Exception as error:  # a peer may fail in any way: the others go on
                self.fail(name, error)

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def fail(self, name: str, error: Exception) -> None:
        """Note why a contender takes no further part.

        Raises:
            Exception: It is cyllama's own error.
        """
        if name == OURS:
            raise error
        self.failures[name] = reason_of(error)
        self.running.pop(name, None)


def reason_of(error: Exception) -> str:
    """Return an error in a line of at most ``MOST_CHARACTERS``."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return reason if len(reason) <= MOST_CHARACTERS else f"{reason[:MOST_CHARACTERS]}..."
