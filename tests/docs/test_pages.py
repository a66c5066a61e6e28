"""What the README and the pages of the site show runs, and does what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from ..support.pages import (
    DOCS,
    PAGES,
    ROOT,
    SECONDS,
    Block,
    blocks,
    differences,
    matches,
    programs,
    run_programs,
    said_output,
)
from ..support.programs import one_core

WITH_PROGRAMS = [name for name, page in PAGES.items() if programs(page)]
WITH_COMMANDS = [name for name, page in PAGES.items() if any(block.language == "console" for block in blocks(page))]
CHECKED_ELSEWHERE = {"docs/langchain-migration.md"}  # its programs are compared in langchain/test_migration.py
BESIDE_THE_SITE = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        ".github/PULL_REQUEST_TEMPLATE.md",
        "llama.cpp/README.md",
    )
]


@pytest.mark.parametrize("name", WITH_PROGRAMS)
def test_its_programs_do_what_it_says(name: str, folder: Path):
    found = programs(PAGES[name])
    outcomes = run_programs(found, folder)
    wrong = [line for pair in zip(found, outcomes, strict=True) for line in differences(*pair)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_its_commands_do_what_it_says(name: str, folder: Path):
    for command, said in commands(PAGES[name]):
        variables = r"^(\w+=\S* )+"  # of the environment
        words = re.sub(variables, "", command).split("#")[0].split()
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), command
        elif "cyllama" in words:
            assert matches(said or "...", run_command(command, folder)), command
        else:
            assert words[:2] == ["pip", "install"], f"{command}: a command that no test runs"


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the commands of a page, and what it says that they print."""
    for block in blocks(page):
        if block.language == "console":
            for each in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, output = each.partition("\n")
                yield command, " ".join(output.split("\n")).strip()


def run_command(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with one_core():
        finished = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=os.environ | {"PATH": path, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("name", [name for name in WITH_PROGRAMS if name not in CHECKED_ELSEWHERE])
def test_its_programs_say_what_they_print_or_raise(name: str):
    silent = [block.line for block in programs(PAGES[name]) if not (said_output(block.text) or block.error)]
    assert silent == []


@pytest.mark.parametrize("page", BESIDE_THE_SITE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_its_links_lead_to_files(page: Path):
    links = re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert links or page.name in ("CHANGELOG.md", "SECURITY.md")
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_navigation():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    hook = (DOCS / "hooks/repository.py").read_text(encoding="utf-8")
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    copied = set(re.findall(r'": "([\w-]+\.md)"', hook))
    assert len(copied) > 2
    assert sorted(leaves(settings["nav"])) == sorted(written | copied)


def leaves(nav: object) -> Iterator[str]:
    """Yield the pages of a navigation in their order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from leaves(value)
    elif isinstance(nav, list):
        for value in nav:
            yield from leaves(value)


def test_a_program_that_does_something_else_is_noticed(folder: Path):
    wrong = [
        Block("python", "print(1)  # 2\n", 10, ""),
        Block("python", "print(\n    1\n)  # 1\nprint('a b c')  # a...c\n", 20, ""),
        Block("python", "1 / 0\n", 30, ""),
        Block("python", "1 / 0\n", 40, "", "ZeroDivisionError: division by zero"),
        Block("python", "print(1)\n", 50, "", "ZeroDivisionError: ..."),
    ]
    first, second, third, fourth, fifth = map(differences, wrong, run_programs(wrong, folder))
    assert first == ["line 10 prints '1\\n', not '2'"]
    assert second == fourth == []
    assert "the program fails" in third[0]
    assert fifth == ["line 50: the program raises '', not 'ZeroDivisionError: ...'"]
