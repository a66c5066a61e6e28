"""Notebooks, run as a kernel runs them: in the main thread of a process, inside of a running event loop."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[str]:
    """Return the sources of the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


async def run_cells(sources: list[str]) -> list[Any]:
    """Run cells one after the other with the same variables; return the value of the last line of each, if it is one.

    A cell may use ``await``, as a kernel lets it.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    return [await _run_cell(source, names) for source in sources]


async def _run_cell(source: str, names: dict[str, Any]) -> Any:
    tree = ast.parse(source)
    *statements, last = tree.body
    value = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
    await _run(ast.Module(statements if value else tree.body, []), "exec", names)
    return None if value is None else await _run(value, "eval", names)


async def _run(tree: ast.Module | ast.Expression, mode: str, names: dict[str, Any]) -> Any:
    code = compile(tree, "<cell>", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, names)
    return await result if inspect.iscoroutine(result) else result
