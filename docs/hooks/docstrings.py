"""An extension of Griffe: docstrings as this project writes them become Markdown.

- Roles, such as :class:`LLM`, become links to the pages of the API. A name is a public one, with or without a member
  (`LLM.chat`), or a member of the class in which it stands. Everything else, such as names of the engine, has no page
  and is shown as code. A public name without this member fails the build.
- Examples, lines that begin with `>>>`, become blocks of code.
- Options below an argument, `name: text` on lines of their own, become a list. So do the "Key init args" of LangChain's
  classes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object

_API = Path(__file__).parents[1] / "api"
_IDENTIFIER = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|meth|func|attr|data|exc|mod|obj):`(~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:^\1\S.*\n?)*", re.MULTILINE)
_OPTIONS = re.compile(r"(?<=:\n\n)(?:^ {8,}\S.*\n?)+", re.MULTILINE)
_INIT_ARGS = re.compile(r"^(Key init args .*):\n((?:^ {4}.*\n?)+)", re.MULTILINE)
_INIT_ARG = re.compile(r"^ {4}(\S.*)\n {8}", re.MULTILINE)


class Docstrings(Extension):
    """Rewrites the docstrings of all objects."""

    def __init__(self) -> None:
        pages = [page.read_text(encoding="utf-8") for page in _API.glob("*.md")]
        paths = [path for page in pages for path in _IDENTIFIER.findall(page)]
        self._paths = {path.rpartition(".")[2]: path for path in paths}

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(_to_block, obj.docstring.value)
            text = _INIT_ARGS.sub(_to_argument_list, _OPTIONS.sub(_to_list, text))
            obj.docstring.value = _ROLE.sub(lambda role: self._to_link(role, obj), text)

    def _to_link(self, role: re.Match[str], obj: Object) -> str:
        short, name = role.groups()
        path = self._path(name, obj)
        text = name.rpartition(".")[2] if short else name.lstrip(".")
        return f"`{text}`" if path is None else f"[`{text}`][{path}]"

    def _path(self, name: str, obj: Object) -> str | None:
        """Return the path of what a name means in the docstring of an object, if a page shows it."""
        first, _, member = re.sub(r"^(langchain_)?cyllama\.(\w+\.)*(?=[A-Z])", "", name).partition(".")
        if first in self._paths:
            return f"{self._paths[first]}.{member}".rstrip(".")
        owner = obj if obj.is_class else obj.parent
        if owner is not None and owner.is_class and owner.name in self._paths and first in owner.members:
            return f"{self._paths[owner.name]}.{first}"
        return None


def _to_block(example: re.Match[str]) -> str:
    indent = example[1]
    return f"{indent}```pycon\n{example[0].rstrip()}\n{indent}```\n"


def _to_list(options: re.Match[str]) -> str:
    indent = " " * (len(options[0]) - len(options[0].lstrip()))
    return re.sub(rf"^{indent}(\w+): ", rf"{indent}- `\1`: ", options[0], flags=re.MULTILINE)


def _to_argument_list(arguments: re.Match[str]) -> str:
    return f"**{arguments[1]}**\n\n" + _INIT_ARG.sub(r"- `\1`: ", arguments[2]) + "\n"
