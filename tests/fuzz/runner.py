"""Child processes that run cases, and what came of them."""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .registry import Case, generators

ROOT = Path(__file__).parents[2]


class Finding(NamedTuple):
    """A case that took its process along, raised what it must not, or did not end."""

    case: Case
    what: str

    def __str__(self) -> str:
        return f"{self.what}\nagain: python -m tests.fuzz --case {json.dumps(json.dumps(self.case))}"


class Child:
    """A process that runs one case after the other; a new one takes its place when it has died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *args: object) -> None:
        self._stop()
        self._stderr.close()

    def run(self, case: Case, limit: float | None = None) -> Finding | None:
        """Run a case, for ``limit`` seconds at most; return what is wrong."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
        if limit is not None and not select.select([process.stdout], [], [], limit)[0]:
            self._stop()
            return Finding(case, f"did not end within {limit:g} s")
        line = process.stdout.readline()
        if line:
            raised = json.loads(line)
            return None if raised is None else Finding(case, raised)
        code = process.wait()
        self._stderr.seek(0)
        last_words = self._stderr.read()[-3000:]
        self._stop()
        return Finding(case, f"the process ended with {code}: {last_words}")

    def kill(self) -> None:
        """End the process, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        self._stderr.seek(0)
        self._stderr.truncate()
        command = [sys.executable, "-X", "faulthandler", "-m", f"{__package__}.child"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True, cwd=ROOT
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def seeds(names: Iterable[str]) -> Iterator[Case]:
    """Yield the seeds of these generators."""
    known = generators()
    for name in names:
        for case in known[name].SEEDS:
            yield {"generator": name, **case}


def random_cases(names: Iterable[str], seed: int) -> Iterator[Case]:
    """Yield random cases of these generators in turns, without end; each has a seed of its own."""
    known, names = generators(), list(names)
    number = 0
    while True:
        for name in names:
            case = known[name].generate(random.Random(f"{name} {seed} {number}"))
            yield {"generator": name, **case}
        number += 1
