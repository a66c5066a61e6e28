"""What the README shows runs, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_its_python_runs(block: str):
    result = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, encoding="utf-8", timeout=120, check=True
    )
    assert result.stderr == ""
    for comment in re.findall(r"print\(response\)  # (.*)", block):
        assert result.stdout.startswith(f"{comment}\n")


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_two_commands_come_first():
    [first] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]
