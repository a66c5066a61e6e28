"""The tree is written in plain technical English: the phrases that CONTRIBUTING.md replaces do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A phrase, and what to write instead.
PHRASES = {
    r"(?<!\bthere )\b(is|are|was|were) (?-i:none)\b(?! of)": "is not a valid ...",
    r"\banew\b": "again, from scratch",
    r"\b(nobody|whoever|whomever|somebody)\b": "the caller, no caller, the engine's thread",
    r"\b(the|engine's) books\b": "what is recorded, by its name",
    r"\b(below|under|beneath) (the|a|its|this) lock\b": "with the lock held",
    r"\b(is|are|be) no numbers?\b": "NaN",
    r"(?<!\bthere )\b(is|are) no (text|chat|model|file|path|schema|type|grammar|call|adapter)s?\b": "is not a ...",
    r"\bgives? way\b": "yield, wait",
    r"\b(misfortune|ruins|shall|hereby|thereof|henceforth)\b": "a literal word",
    r"\b(take_stock|_?lead_on|_?give_way|_?roomy|_worth|_beside|set_right|TURN_STEPS)\b": "what the mechanism is",
    r"\b(LoRA|adapters?|loop|engine)'?s? turns?\b": "slice, iteration: a turn is a chat turn",
}
FILES = (
    "*.md",
    "Makefile",
    "mkdocs.yml",
    "cyllama/**/*.py",
    "docs/**/*.md",
    "docs/**/*.py",
    "examples/**/*.py",
    "integrations/**/*.py",
    "tests/docs/*.py",
    "tools/*.py",
)
#: Of these files, the lines of tables that show the dialect beside what replaces it.
QUOTING = re.compile(r"^\| [\"`]|^- Name who acts")


def files() -> list[Path]:
    return sorted({path for pattern in FILES for path in ROOT.glob(pattern)})


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_file_has_a_phrase_of_the_dialect(phrase: str):
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(phrase, line, re.IGNORECASE) and not QUOTING.match(line)
    ]
    assert found == [], f"write: {PHRASES[phrase]}"


def test_the_files_are_found():
    assert len(files()) > 200
