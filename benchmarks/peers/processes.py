"""Processes of the peers: where they log, and how they end."""

from __future__ import annotations

import subprocess
from typing import IO, Any

from kit.models import BUILD


def open_log(name: str) -> IO[str]:
    """Open the log of a peer, build/bench/NAME.log, for writing."""
    folder = BUILD / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{name}.log").open("w")


def end(process: subprocess.Popen[Any]) -> None:
    """End a process, by force after 10 seconds."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
