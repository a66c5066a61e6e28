"""The modules of the project: what they import, and what their functions are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "cyllama": ROOT / "cyllama",
    "langchain_cyllama": ROOT / "integrations" / "langchain_cyllama",
    "cyllama_server": ROOT / "integrations" / "cyllama_server",
    "ray_cyllama": ROOT / "integrations" / "ray_cyllama",
}


class Import(NamedTuple):
    """One name that a module imports.

    Attributes:
        module: The imported module, or the module that the name is of.
        name: The imported name; ``None`` for ``import module``.
        for_types_only: Whether it is in an ``if TYPE_CHECKING`` block.
        line: Where it is.
    """

    module: str
    name: str | None
    for_types_only: bool
    line: int


class Function(NamedTuple):
    """A function of a file.

    Attributes:
        name: Its name.
        line: Where its decorators or its ``def`` begin.
        n_lines: Lines without those of its docstring.
        comment: The comment directly above it, or at the end of the line of its ``def``.
    """

    name: str
    line: int
    n_lines: int
    comment: str


class Module:
    """A Python module of the project.

    Attributes:
        name: Its dotted name.
        path: Its file.
        tree: What is in it.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))

    @property
    def room(self) -> str:
        """The part of the project that it belongs to: ``cyllama.engine`` for ``cyllama.engine.scheduler``."""
        top, _, rest = self.name.partition(".")
        return top if top != "cyllama" or not rest else f"{top}.{rest.split('.')[0]}"

    def imports(self) -> Iterator[Import]:
        """Yield what it imports, in functions as well."""
        yield from self._imports_in(self.tree.body, for_types_only=False)

    def _imports_in(self, nodes: Sequence[ast.AST], for_types_only: bool) -> Iterator[Import]:
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                package = self._package(node.level) if node.level else ""
                source = ".".join(filter(None, [package, node.module]))
                for alias in node.names:
                    submodule = f"{source}.{alias.name}"
                    module = submodule if submodule in project_names() else source
                    yield Import(module, alias.name, for_types_only, node.lineno)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, None, for_types_only, node.lineno)
            elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                yield from self._imports_in(node.body, for_types_only=True)
                yield from self._imports_in(node.orelse, for_types_only)
            else:
                yield from self._imports_in(list(ast.iter_child_nodes(node)), for_types_only)

    def _package(self, level: int) -> str:
        parts = self.name.split(".") if self.path.name == "__init__.py" else self.name.split(".")[:-1]
        return ".".join(parts[: len(parts) - level + 1])


@cache
def modules() -> dict[str, Module]:
    """Return the modules of the project by their names."""
    return {name: Module(name, path) for name, path in project_names().items()}


@cache
def project_names() -> dict[str, Path]:
    """Return the files of the project's modules by the modules' names."""
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def python_functions(path: Path) -> Iterator[Function]:
    """Yield the functions and methods of a Python file."""
    source = path.read_text(encoding="utf-8")
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            docstring = node.body[0] if ast.get_docstring(node) is not None else None
            n_documented = 0 if docstring is None else _end(docstring) - docstring.lineno + 1
            above, beside = lines[first - 2].strip(), lines[node.lineno - 1].partition("  # ")[2]
            comment = above if above.startswith("#") else beside
            yield Function(node.name, first, _end(node) - node.lineno + 1 - n_documented, comment)


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def native_files() -> list[Path]:
    """Return the C++ files."""
    return sorted(path for folder in ("ext", "llama.cpp") for path in (ROOT / folder).glob("*.[ch]pp"))


def included(path: Path) -> list[str]:
    """Return the names of the files that a C++ file includes from its own folder."""
    return re.findall(r'^#include "([^"/]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)


LITERALS = re.compile(r'R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*', re.DOTALL)
DIRECTIVES = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
ACCESS = re.compile(r"\b(?:public|private|protected):$")
NOT_A_FUNCTION = re.compile(r"(?:namespace|class|struct|enum|union|extern)\b")


def native_functions(path: Path) -> Iterator[Function]:
    """Yield the functions and methods of a C++ file. A function within another one is a part of it."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for first, last in function_bodies(text):
        above = lines[first - 2].strip() if first > 1 else ""
        yield Function(lines[first - 1].strip(), first, last - first + 1, above if above.startswith("//") else "")


def function_bodies(text: str) -> list[tuple[int, int]]:
    """Return the first and the last line of the functions in C++ source text."""
    for pattern in (LITERALS, DIRECTIVES):  # blanks in their place, so that lines stay where they are
        text = pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    bodies: list[tuple[int, int]] = []
    open_braces: list[int | None] = []  # of each open brace: the first line of the function whose body it begins
    begin = 0  # of what precedes the next brace
    for i, character in enumerate(text):
        if character == "{":
            head = text[begin:i].lstrip()
            is_function = ")" in head and not NOT_A_FUNCTION.match(head) and not any(open_braces)
            open_braces.append(text.count("\n", 0, i - len(head)) + 1 if is_function else None)
        elif character == "}" and (first := open_braces.pop()):
            bodies.append((first, text.count("\n", 0, i) + 1))
        if character in "{};" or (character == ":" and ACCESS.search(text, begin, i + 1)):
            begin = i + 1
    return bodies


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return a circle of a graph, whose first node is its last one as well, or an empty list."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
