"""`cyllama serve` in a process of its own, as its users run it."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from peers.processes import PeerProcess

START_SECONDS = 120.0


class CyllamaServer(PeerProcess):
    """A server on a free port of this machine; leaving the ``with`` block ends it.

    Args:
        model: The GGUF file, which is called "model"; ``None`` for the embedded one.
        *arguments: More arguments of the command.
    """

    def __init__(self, model: Path | None, *arguments: str) -> None:
        chosen = () if model is None else ("--model", f"model={model}")
        super().__init__(
            [sys.executable, "-m", "cyllama", "serve", "--port", "0", *chosen, *arguments], f"serve-{os.getpid()}"
        )
        try:
            self.port = self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What it has logged."""
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    @property
    def resident_mib(self) -> float:
        """MiB of memory that it has in use, those of the model's file among them."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if found := re.search(r"running on http://\S+?:(\d+)", self.log):
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"cyllama serve did not start; what it said is in {self._log.name}")
