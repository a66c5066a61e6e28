"""Tests are found where the package has what they test, and stand alone."""

from __future__ import annotations

import re

import pytest

from ..support.processors import COMPUTING, TESTS
from ..support.source_tree import ROOT


def test_no_test_imports_another_one():
    wrong = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r"\s*(from|import) [\w.]*\b(test_\w+|conftest)\b", line)
        or re.match(r"from \.+\w* import (test_\w+|conftest)\b", line)
    ]
    assert wrong == []


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, names in COMPUTING.items() for name in names])
def test_a_file_that_depends_on_the_processor_exists(folder: str, name: str):
    assert list((TESTS / folder).rglob(f"{name}.py"))


@pytest.mark.parametrize("folder", COMPUTING)
def test_a_folder_of_tests_exists(folder: str):
    assert list((TESTS / folder).rglob("test_*.py"))


def test_a_folder_of_tests_is_named_after_what_it_tests():
    packages = {path.parent.name for path in (ROOT / "cyllama").rglob("__init__.py")}
    of_packages = {"cluster", "langchain", "server", "training"}  # outside of `cyllama`
    of_subjects = {"docs", "event_loops", "fuzz", "quality", "session", "support"}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert folders <= packages | of_packages | of_subjects
