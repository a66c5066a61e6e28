"""The page about errors has the smallest program for every error; test_pages.py runs them."""

from __future__ import annotations

import re

import cyllama.errors
import langchain_cyllama
from cyllama import CyllamaError

from ..support.pages import DOCS, blocks

PAGE = DOCS / "errors.md"


def test_every_error_has_a_program_that_raises_it():
    values = vars(cyllama.errors) | {name: getattr(langchain_cyllama, name) for name in langchain_cyllama.__all__}
    errors = {name for name, value in values.items() if isinstance(value, type) and issubclass(value, Exception)}
    raised = [block.error.partition(":")[0] for block in blocks(PAGE) if block.error]
    assert sorted(raised) == sorted(errors - {CyllamaError.__name__})


def test_every_section_names_its_error_and_the_fix():
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections[1:]:  # the first one is about the base of all
        name = section.partition("\n")[0]
        assert f"\n{name}: " in section
        assert "**Fix:** " in section
