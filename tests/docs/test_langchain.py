"""What the page for LangChain users shows runs and prints what it says, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.programs import one_core

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "langchain.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(block: str) -> list[str]:
    """Run a block as a program of its own, and return the lines it prints."""
    with one_core():
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout.splitlines()


@pytest.mark.parametrize("block", BLOCKS)
def test_its_python_prints_what_it_says(block: str):
    said = re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert said, "it says what it prints"
    assert run(block)[: len(said)] == said


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert len(links) > 5
    assert [link for link in links if not (DOCS / link).exists()] == []
