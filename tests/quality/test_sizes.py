"""No file and no function is longer than a reader can hold in mind, unless it says why."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.source_tree import (
    ROOT,
    Function,
    function_bodies,
    native_files,
    native_functions,
    project_names,
    python_functions,
)

MOST_LINES = 500
MOST_LINES_OF = {"cyllama/llm.py": 750}  # mostly documentation: every option of every call
MOST_LINES_OF_A_FUNCTION = 40  # without its docstring


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def files() -> list[Path]:
    return [*project_names().values(), *native_files()]


def test_no_file_is_too_long():
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files()}
    assert {name: n for name, n in sizes.items() if n > MOST_LINES_OF.get(name, MOST_LINES)} == {}


@pytest.mark.parametrize("functions", [python_functions, native_functions])
def test_no_function_is_too_long_unless_a_comment_says_why(functions: Callable[[Path], Iterator[Function]]):
    suffixes = (".py",) if functions is python_functions else (".cpp", ".hpp")
    wrong = [
        f"{name_of(path)}:{function.line}: {function.n_lines} lines"
        for path in files()
        if path.suffix in suffixes
        for function in functions(path)
        if function.n_lines > MOST_LINES_OF_A_FUNCTION and not function.comment
        if not re.match(r"(static )?void init_\w+\(", function.name)  # a table: as long as the class that it binds
    ]
    assert wrong == []


def test_the_measure_of_native_functions_sees_what_a_reader_sees():
    text = (
        "namespace {\n\nstruct A {\n    A(int x)\n        : x_(x) {\n        f();\n    }\n\n  private:\n"
        '    int g() { return "}"[0]; }\n};\n\n} // namespace\n\n'
        'template <class T>\nvoid h() {\n    // {\n    auto text = R"doc(\n        {{{\n        )doc";\n'
        "    if (x) {\n        call([] { return 1; });\n    }\n}\n"
    )
    assert function_bodies(text) == [(4, 7), (10, 10), (15, 24)]
