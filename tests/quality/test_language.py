"""The tree is written in plain technical English: the phrases that CONTRIBUTING.md replaces do not come back."""

from __future__ import annotations

import io
import re
import tokenize
from functools import cache
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
    r"\b(misfortune|ruins|shall|hereby|thereof|henceforth|afresh|on credit|number of things)\b": "a literal word",
    r"\b(take_stock|_?lead_on|_?give_way|_?roomy|_worth|_beside|set_right|TURN_STEPS)\b": "what the mechanism is",
    r"\b(LoRA|adapters?|loop|engine)'?s? turns?\b": "slice, iteration: a turn is a chat turn",
}
FILES = (
    "*.md",
    "Makefile",
    "mkdocs.yml",
    "benchmarks/**/*.py",
    "cyllama/**/*.py",
    "cyllama/**/*.pyi",
    "cyllama/**/*.md",
    "docs/**/*.md",
    "docs/**/*.py",
    "examples/**/*.py",
    "ext/*.[ch]pp",
    "ext/*.txt",
    "integrations/**/*.py",
    "llama.cpp/**/*.*",
    "tests/**/*.py",
    "tools/*.py",
    "training/*.py",
    "training/*.md",
)
#: Of these files, the lines of tables that show the dialect beside what replaces it.
QUOTING = re.compile(r"^\| [\"`]|^- Name who acts")


def files() -> list[Path]:
    return sorted({path for pattern in FILES for path in ROOT.glob(pattern)} - {Path(__file__)})


@cache
def lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a file by number: of a test, whose data may be in any language, those of its sentences."""
    text = path.read_text(encoding="utf-8")
    if path.relative_to(ROOT).parts[0] != "tests":
        return [pair for pair in enumerate(text.splitlines(), 1) if not QUOTING.match(pair[1])]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    sentences = [t for t in tokens if t.type == tokenize.COMMENT or t.string.startswith(('"""', 'r"""'))]
    return [(t.start[0] + i, line) for t in sentences for i, line in enumerate(t.string.splitlines())]


@pytest.mark.parametrize("phrase", PHRASES)
def test_no_file_has_a_phrase_of_the_dialect(phrase: str):
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()}"
        for path in files()
        for number, line in lines(path)
        if re.search(phrase, line, re.IGNORECASE)
    ]
    assert found == [], f"write: {PHRASES[phrase]}"


#: What the language section of CONTRIBUTING.md replaces, as it once stood in the tree.
ONCE = (
    "GrammarError: `grammar` is none.",
    "evaluated anew",
    "a pass that nobody waits for is aborted",
    "Set the books right after an aborted decode",
    "To be called below the lock",
    "values that are no numbers would not stay where they are",
    "MessageError: The messages are no chat.",
    "Refuse what would be killed for: Linux grants memory on credit",
    "self._kv_cache.take_stock()",
    "a switch takes 2 % of an adapter's turn",
)


@pytest.mark.parametrize("sentence", ONCE)
def test_a_phrase_that_comes_back_is_found(sentence: str):
    assert any(re.search(phrase, sentence, re.IGNORECASE) for phrase in PHRASES)


def test_the_files_are_found():
    assert len(files()) > 400
