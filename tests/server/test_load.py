"""Many clients at once, some of which misbehave: benchmarks/server_load.py for some seconds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "server_load.py"


@pytest.mark.parametrize(
    ("minutes", "clients"), [("0.05", "12"), pytest.param("1", "64", marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_clients_that_misbehave_are_no_error_of_the_others(minutes: str, clients: str):
    command = [sys.executable, str(SCRIPT), "--minutes", minutes, "--clients", clients, "--max-growth-mib", "200"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    done = dict(re.findall(r"requests: (\w+) +(\d+)", run.stdout))
    assert int(done["conversation"]) > 0
    assert int(done["broken"]) > 0
