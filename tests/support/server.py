"""A real server: `cyllama serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

import httpx
from typing_extensions import Self

_SECONDS = 120  # after which something hangs


class ServerProcess:
    """`cyllama serve` on a free port; leaving the `with` block ends it.

    Args:
        *arguments: More arguments of the command.
        env: More environment variables.
        verify: Whose certificates its client trusts.

    Attributes:
        url: Where it listens.
        http: A client of it.
    """

    def __init__(
        self, *arguments: str, env: dict[str, str] | None = None, verify: ssl.SSLContext | bool = True
    ) -> None:
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cyllama", "serve", "--port", "0", *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | (env or {}),
        )
        self.url = self._wait_for_url()
        self.http = httpx.Client(base_url=self.url, timeout=_SECONDS, verify=verify)

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if found := re.search(r"running on (https?://\S+)", self.log):
                return found[1]
            time.sleep(0.02)
        self._process.kill()
        raise AssertionError(f"the server does not listen: {self.log}")

    @property
    def log(self) -> str:
        """What it has logged."""
        return Path(self._log.name).read_text(encoding="utf-8")

    @property
    def v1(self) -> str:
        """Where its API is."""
        return f"{self.url}/v1"

    def metric(self, name: str) -> float:
        """Return the sum of a metric."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        return sum(map(float, found))

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        deadline = time.monotonic() + _SECONDS
        while self.metric(name) != value:
            if time.monotonic() > deadline:
                others = "\n".join(line for line in self.log.splitlines() if "GET /metrics" not in line)
                raise AssertionError(f"{name} is {self.metric(name)}, and not {value}: {others}")
            time.sleep(0.01)

    def wait_until_idle(self) -> None:
        """Wait until nothing is decoded, and no request has a place in the queue."""
        self.wait_for("cyllama_running", 0)
        self.wait_for("cyllama_requests_in_progress", 0)

    def stop(self) -> int:
        """Ask it to end, as a service manager does; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_SECONDS)

    def stop_soon(self) -> threading.Thread:
        """Ask it to end, and do not wait for that."""
        thread = threading.Thread(target=self.stop)
        thread.start()
        return thread

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        if self._process.poll() is None:
            self.stop()
        self._log.close()
        Path(self._log.name).unlink()
