"""Examples and other programs, run as a user would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def one_core() -> Iterator[None]:
    """Let processes that are started meanwhile use one core, and so one thread.

    Threads that wait for each other after every operation are slower by orders of magnitude where other processes keep
    the cores busy.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def run(name: str, folder: Path) -> list[str]:
    """Run an example as a user would, from a folder that is not the repository; return the lines it prints."""
    with one_core():
        finished = subprocess.run(
            [sys.executable, "-W", "error", str(EXAMPLES / name)],
            cwd=folder,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def number_in(lines: list[str], start: str) -> float:
    """Return the first number after ``start``, of the one line that begins with it."""
    (line,) = [line for line in lines if line.startswith(start)]
    match = re.search(r"-?\d+(\.\d+)?", line[len(start) :])
    assert match is not None, line
    return float(match[0])
