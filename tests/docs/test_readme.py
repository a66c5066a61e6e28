"""The README is short, begins with what to type, and shows no figure that the site does not explain.

Its picture is a recorded chat, which is legible in light and in dark.

test_pages.py runs what it shows.
"""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from xml.etree import ElementTree

import pyte
import pytest

from ..support.pages import DOCS, ROOT
from ..support.real_models import needs

README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 1000
PICTURE = DOCS / "terminal.svg"
MOST_BYTES = 10_000
LEAST_CONTRAST = 4.5  # WCAG 2, level AA


def test_the_two_commands_come_first():
    [first] = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)[:1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


def test_it_is_short():
    assert len(README.split()) < MOST_WORDS


def test_it_says_once_that_another_project_has_the_name():
    assert README.count("another project") == 1


def test_it_shows_a_chat_and_the_flow_and_one_table_of_figures():
    assert re.findall(r"!\[.*?\]\((.*?)\)", README) == ["docs/terminal.svg", "docs/flow.svg"]
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


# ---------------------------------------------------------------------------------------------------------- the picture


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("picture", ROOT / "tools/picture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_picture_is_text_and_loads_nothing():
    text = PICTURE.read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    shown = ["".join(line.itertext()) for line in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    assert shown[0] == "$ " + " ".join(("cyllama", *load_tool().COMMAND))
    for message in load_tool().MESSAGES:
        assert f"> {message}" in shown
    assert re.findall(r"href|url\(|https?://(?!www\.w3\.org/2000/svg)", text) == []


def test_the_picture_is_legible_in_light_and_in_dark():
    [style] = re.findall(r"<style>(.*?)</style>", PICTURE.read_text(encoding="utf-8"), re.DOTALL)
    light, _, dark = style.partition("@media(prefers-color-scheme:dark)")
    for palette in (light, dark):
        [background, *texts] = re.findall(r"fill:(#\w{6})", palette)
        assert len(texts) == 3
        for text in texts:
            bright, dim = sorted((luminance(background), luminance(text)), reverse=True)
            assert (bright + 0.05) / (dim + 0.05) >= LEAST_CONTRAST


def test_the_picture_shows_the_screen():
    tool = load_tool()
    screen = pyte.Screen(tool.COLUMNS, tool.LINES)
    pyte.Stream(screen).feed("a < b & \x1b[36;1mc\x1b[0m  d\r\n\r\n\x1b[90mdim")
    root = ElementTree.fromstring(tool.to_svg(screen))
    lines = list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert ["".join(line.itertext()) for line in lines[1:]] == ["a < b & c  d", "dim"]
    assert [span.get("class") for line in lines[1:] for span in line] == ["c b", "d"]


@pytest.mark.slow
@pytest.mark.parametrize("_", [pytest.param(None, marks=needs("smollm2"))])
def test_the_picture_can_be_recorded(_: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    tool = load_tool()
    recorded = tool.to_svg(tool.record())
    for message in tool.MESSAGES:
        assert f"&gt; {message}" in recorded
