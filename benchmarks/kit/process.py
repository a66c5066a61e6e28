"""What the kernel tells of a process, where there is a /proc: its CPU time and its memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Resident memory of a process in MiB.

    Attributes:
        now: At this moment, pages of mapped files included.
        private: Of it, what is not mapped from a file.
        peak: The most so far.
    """

    now: float
    private: float
    peak: float


def cpu_seconds(pid: int, thread: int | None = None) -> float:
    """Return the CPU time of a thread of a process, or of all; NaN where the system does not tell."""
    path = f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat"
    try:
        fields = Path(path).read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Memory | None:
    """Return the memory of a process; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    kib = {key: int(n) for key, n in re.findall(r"^(\w+):\s+(\d+) kB", status, re.MULTILINE)}
    return Memory(kib["VmRSS"] / 1024, kib["RssAnon"] / 1024, kib["VmHWM"] / 1024)
