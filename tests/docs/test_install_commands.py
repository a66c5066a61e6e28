"""Commands that install something install the right thing: on the package index, ``cyllama`` is another project."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.pages import DOCS, ROOT

[_EXTRAS] = re.findall(
    r"^\[project\.optional-dependencies\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S
)
#: The text of each extra's requirements: Python 3.10 has no parser of TOML.
EXTRAS: dict[str, str] = dict(re.findall(r"^(\w+) = \[(.*?)\]$", _EXTRAS, re.M | re.S))
FOLDERS = ("cyllama", "integrations", "docs", "examples", "llama.cpp", "training", "benchmarks", "ext")
TEXTS = [
    *sorted(ROOT.glob("*.md")),
    *(
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.*"))
        if path.suffix in (".py", ".md", ".cpp")
    ),
]
COMMAND = re.compile(r"\bpip3? install(?P<arguments>[^\n`]*)")
#: By name, whatever is around it: `cyllama`, `cyllama[hub]`, `"cyllama>=1"`; not `./cyllama`, nor a file of that name.
BY_NAME = re.compile(r"(?<![\w./=-])cyllama(?![\w./-]|(?:\[[\w,]*\])? @ )")


def commands() -> Iterator[tuple[str, str]]:
    """Yield the arguments of each command that installs with pip, and where it is."""
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        for match in COMMAND.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}", match["arguments"].partition("#")[0]


@pytest.mark.parametrize(
    ("arguments", "is_wrong"),
    [
        (" cyllama", True),
        (" -U 'cyllama[langchain]'", True),
        (' "cyllama==0.1"', True),
        (" .", False),
        (" '.[langchain]'", False),
        (" -e ./cyllama", False),
        (" 'cyllama[hub] @ file:///a.whl'", False),
        (" cyllama-0.1.0-cp310-abi3-linux_x86_64.whl", False),
        (" 'langchain-core>=1.2.10'", False),
    ],
)
def test_the_search_tells_names_from_paths(arguments: str, is_wrong: bool):
    assert bool(BY_NAME.search(arguments)) is is_wrong


def test_no_command_fetches_the_other_project():
    found = list(commands())
    assert len(found) > 10
    assert [where for where, arguments in found if BY_NAME.search(arguments)] == []


def test_no_text_says_to_install_cyllama_by_name():
    wrong = re.compile(r"(?<!pip )\binstall `?cyllama`?(?![\w-]| from)")
    assert [path.name for path in TEXTS if wrong.search(path.read_text(encoding="utf-8"))] == []


def test_the_readme_says_that_the_name_is_taken():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert text.count("`cyllama` on the package index is another project of this name") == 1


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ("langchain", "integrations/langchain_cyllama/__init__.py"),
        ("hub", "cyllama/models/hub.py"),
        ("images", "cyllama/images.py"),
        ("server", "cyllama/cli/serve.py"),
    ],
)
def test_errors_ask_for_the_versions_of_the_extras(extra: str, path: str):
    """The message of a missing package is a command that fits what ``pyproject.toml`` asks for on all systems."""
    everywhere = [each for each in re.findall(r'"([^"]+)"', EXTRAS[extra]) if ";" not in each]
    requirements = " ".join(f"'{each}'" for each in everywhere)
    assert f"pip install {requirements}" in (ROOT / path).read_text(encoding="utf-8")


def test_every_extra_that_pages_name_exists():
    pages = [ROOT / "README.md", *sorted(Path(DOCS).rglob("*.md"))]
    named = {
        extra
        for page in pages
        for extras in re.findall(r"pip install '\.\[([\w,]+)\]'", page.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert named >= {"langchain", "hub"}
    assert named <= set(EXTRAS)
