"""The example and the program of the page about several machines, in clusters of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.pages import DOCS, blocks
from ..support.programs import EXAMPLES

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SECONDS = 240  # after which something hangs


def run(program: list[str], folder: Path) -> list[str]:
    """Run a program in a folder, and return the lines that it prints, without those of Ray."""
    finished = subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env=os.environ | {"RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return [line for line in finished.stdout.splitlines() if " pid=" not in line and "(raylet)" not in line]


def test_the_example_keeps_its_conversations(tmp_path: Path):
    assert run([str(EXAMPLES / "scaling" / "two_replicas.py")], tmp_path) == [
        "replicas: 2",
        "every conversation stayed: True",
        "replicas: 1",
        "every session came along: True",
        "Your name is Ada.",
    ]


def test_the_program_of_the_page_answers(tmp_path: Path):
    [program] = [block.text for block in blocks(DOCS / "scaling.md") if block.language == "py"]
    assert run(["-c", program], tmp_path) == ["The capital of France is Paris."]
