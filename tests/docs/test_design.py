"""The page about the design names files that exist, and leaves out no module."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..support.pages import DOCS, ROOT

PAGE = (DOCS / "design.md").read_text(encoding="utf-8")
[ROOMS] = re.findall(r"^## Rooms\n+```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def named_modules() -> Iterator[str]:
    """Yield the paths of the Python files in the tree of rooms."""
    folders: list[str] = []
    for line in ROOMS.splitlines():
        name = line.split()[0]
        indent = line.index(name)
        del folders[indent // 2 :]
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
        yield from ("/".join([*folders, each]) for each in re.findall(r"\b\w+\.py\b", line))


def test_the_rooms_have_all_modules_and_no_others():
    named = set(named_modules())
    rooms = (ROOT / "cyllama", ROOT / "integrations")
    written = {path.relative_to(ROOT).as_posix() for room in rooms for path in room.rglob("*.py")}
    assert sorted(named - written) == []
    assert sorted(path for path in written - named if not path.endswith(("__init__.py", "__main__.py"))) == []


def test_the_files_that_it_names_exist():
    named = re.findall(r"`((?:tests|benchmarks|examples|ext|llama\.cpp|cyllama|tools)/[\w/.-]+\.\w+)`", PAGE)
    assert len(named) > 3
    assert [path for path in named if not (ROOT / path).exists()] == []


def walks() -> list[list[str]]:
    """Return the modules that each walk names, in order."""
    section = PAGE.split("## Three walks\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [re.findall(r"^ *([\w/]+\.py)\b", block, re.MULTILINE) for block in blocks]


def test_a_walk_enters_each_module_once():
    assert len(walks()) == 4, "three walks, and what the engine's thread does meanwhile"
    for modules in walks():
        assert len(modules) == len(set(modules)) > 4
        assert [name for name in modules if not (ROOT / "cyllama" / name).exists()] == []
