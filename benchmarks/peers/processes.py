"""Processes of the peers: where they log, and how they end."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from typing_extensions import Self

from kit.models import BUILD


class PeerProcess:
    """A peer in a process of its own, which ends with the ``with`` block or with :meth:`close`.

    Args:
        command: The program and its arguments.
        log_name: Name of its log, which has its stderr.
        **options: Those of ``subprocess.Popen``. Without ``stdout``, that goes to the log as well.
    """

    def __init__(self, command: Sequence[str], log_name: str, **options: Any) -> None:
        self._log = _open_log(log_name)
        try:
            self._process = subprocess.Popen(command, **{"stdout": self._log, "stderr": self._log, **options})
        except BaseException:
            self._log.close()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def last_words(self) -> str:
        """Return the last line of its log."""
        self._log.flush()
        lines = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, by force after 10 seconds."""
        _end(self._process)
        self._log.close()


def _open_log(name: str) -> IO[str]:
    """Open the log of a peer, build/bench/NAME.log, for writing."""
    folder = BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{name}.log").open("w")


def _end(process: subprocess.Popen[Any]) -> None:
    """End a process, by force after 10 seconds."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
