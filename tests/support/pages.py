"""The Markdown pages of the repository: the blocks in them, and running these as programs.

- A ```python block is a program of its own. It runs in a folder with `model.gguf`, `pirate.gguf` (a LoRA adapter of
  that), `mmproj.gguf` (a projector for it), `reranker.gguf`, `photo.png` and `prompt.txt`.
- A comment behind `print(...)` is what this call prints, each time; `...` in it stands for any text.
- A ```text block behind a program that begins with `SomeError: ` is the error that the program raises. So is such a
  comment behind its last statement.
- A program behind a line that ends with "Before:" is one of another library, and does not run.
- A ```console block has commands behind `$ `, and below a command what it prints, where anything is there.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .programs import one_core

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))}
SECONDS = 120  # after which something hangs

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ERROR = re.compile(r"\w+(Error|Warning): ")


class Block(NamedTuple):
    """A fenced block of a page.

    Attributes:
        language: What is said behind the fence.
        text: What is in it.
        line: The line of the page at which its text begins.
        before: The last line above it that is not empty.
        error: The error that a program raises, with its message; empty where it raises none.
    """

    language: str
    text: str
    line: int
    before: str
    error: str = ""


class Outcome(NamedTuple):
    """What a program did.

    Attributes:
        printed: What the calls of `print` printed, by the line of the call.
        error: The error that it ended with, and its message; empty without one.
        trace: The traceback of the error.
    """

    printed: dict[int, str]
    error: str
    trace: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        above = text[: match.start()].rstrip()
        block = Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1, above.rpartition("\n")[2])
        if block.language == "text" and _ERROR.match(block.text) and above.endswith("```"):
            found[-1] = found[-1]._replace(error=block.text.strip())
        else:
            found.append(block)
    return found


def programs(page: Path) -> list[Block]:
    """Return the programs of a page that run."""
    found = [block for block in blocks(page) if block.language == "python" and not block.before.endswith("Before:")]
    return [block._replace(error=block.error or last_comment(block.text)) for block in found]


def last_comment(program: str) -> str:
    """Return the error that a comment behind a program's last statement names, if it names one."""
    _, _, comment = program.strip().rpartition("\n")[2].partition("  # ")
    return comment if _ERROR.match(comment) else ""


def run_programs(found: Sequence[Block], folder: Path) -> list[Outcome]:
    """Run programs one after the other in one process, which imports everything once."""
    report = folder / "outcomes.json"
    with one_core():
        finished = subprocess.run(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("run_blocks.py")), str(report)],
            input=json.dumps([block.text for block in found]),
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
    assert (finished.returncode, finished.stderr) == (0, "")
    return [
        Outcome({int(line): text for line, text in each["printed"].items()}, each["error"], each["trace"])
        for each in json.loads(report.read_text(encoding="utf-8"))
    ]


def differences(block: Block, outcome: Outcome) -> list[str]:
    """Return how a program did something else than its page says."""
    wrong = [
        f"line {block.line + line - 1} prints {outcome.printed.get(line, '')!r}, not {said!r}"
        for line, said in said_output(block.text).items()
        if not matches(said, outcome.printed.get(line, ""))
    ]
    if block.error and not matches(block.error, outcome.error):
        wrong.append(f"line {block.line}: the program raises {outcome.error!r}, not {block.error!r}")
    if outcome.error and not block.error:
        wrong.append(f"line {block.line}: the program fails:\n{outcome.trace}")
    return wrong


def said_output(program: str) -> dict[int, str]:
    """Return the comments behind calls of `print`, by the line at which the call begins."""
    tokens = tokenize.generate_tokens(io.StringIO(program).readline)
    comments = {token.start[0]: token.string[1:].strip() for token in tokens if token.type == tokenize.COMMENT}
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    printing = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    return {call.lineno: comments[call.end_lineno] for call in printing if call.end_lineno in comments}


def matches(said: str, printed: str) -> bool:
    """Whether a text is what a page says, in which `...` stands for any text."""
    pattern = ".*".join(map(re.escape, said.split("...")))
    return re.fullmatch(pattern, " ".join(printed.split("\n")).strip(), re.DOTALL) is not None
