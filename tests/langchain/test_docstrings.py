"""The examples in the docstrings print what they show."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from ..support.source_tree import project_names

MODULES = [
    name
    for name, path in project_names().items()
    if name.startswith("langchain_cyllama.") and ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_print_what_they_show(module: str) -> None:
    failed, attempted = doctest.testmod(import_module(module))
    assert attempted
    assert failed == 0
