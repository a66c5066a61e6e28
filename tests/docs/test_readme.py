"""The README is short, begins with what to type, and shows no figure that the site does not explain.

test_pages.py runs what it shows.
"""

from __future__ import annotations

import re

from ..support.pages import DOCS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 180


def test_the_two_commands_come_first():
    [first] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


def test_it_is_short():
    assert len(README.splitlines()) < MOST_LINES


def test_it_has_one_picture_and_one_table_of_figures():
    assert re.findall(r"!\[.*?\]\((.*?)\)", README) == ["docs/flow.svg"]
    assert len(compared()) > 3


def test_its_figures_are_those_of_the_page_about_performance():
    performance = (DOCS / "performance.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"\d[\d,.]*(?: (?:ms|s)\b)?", performance))
    shown = [figure for row in compared() for figure in re.findall(r"(?<=[ :])\d[\d,.]*(?: (?:ms|s)\b)?(?= \|)", row)]
    assert len(shown) > 8
    assert sorted(set(shown) - explained) == []


def compared() -> list[str]:
    """Return the rows of the table under "Compared", without its head."""
    [section] = re.findall(r"^## Compared\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| [^|\n]+\|.*", section, re.MULTILINE)
