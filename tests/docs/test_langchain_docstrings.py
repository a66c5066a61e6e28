"""The classes for LangChain: the programs in their docstrings run, and their methods are documented.

LangChain writes an example as a block of Python. The blocks of a class are one program, which runs in a folder with
``model.gguf`` and ``reranker.gguf``. A block of text behind one is the value of its last expression, with ``...`` for
any text.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import langchain_cyllama

CLASSES = ("ChatCyllama", "CyllamaLLM", "CyllamaEmbeddings", "CyllamaReranker")
BLOCK = re.compile(r"^( *)```(python|text)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
#: A method that does what another one does, for callers of another kind or with LangChain's arguments.
SAME_AS = re.compile(r"\b(?:Do what|[Ss]ee|those of) `(?:\w+\.)?(\w+)`")


def blocks(name: str) -> list[tuple[str, str]]:
    """Return the language and the text of the blocks in the docstring of a class."""
    found = BLOCK.findall(getattr(langchain_cyllama, name).__doc__ or "")
    return [(language, textwrap.dedent(text)) for _, language, text in found]


async def value_of(program: str, names: dict[str, Any]) -> object:
    """Run a program, which may await something; return the value of its last statement if that is an expression."""
    tree = ast.parse(program)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.copy_location(ast.Assign([ast.Name("_", ast.Store())], last.value), last)
    code = compile(ast.fix_missing_locations(tree), "<example>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = eval(code, names)
    if inspect.isawaitable(waiting):
        await waiting
    return names.pop("_", None)


@pytest.mark.parametrize("name", CLASSES)
def test_the_examples_of_a_class_do_what_they_show(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)

    async def run() -> None:
        names: dict[str, Any] = {"__name__": "example"}
        value: object = None
        for language, text in blocks(name):
            if language == "python":
                value = await value_of(text, names)
            else:
                assert doctest.OutputChecker().check_output(text, f"{value!r}\n", FLAGS), f"{value!r}"
        assert names.keys() > {"__name__"}

    asyncio.run(run())


def functions(name: str) -> dict[str, Callable[..., Any]]:
    """Return what a class offers by names of its own: methods and properties that this package defines."""
    found: dict[str, Callable[..., Any]] = {}
    for base in getattr(langchain_cyllama, name).__mro__:
        if base.__module__.startswith("langchain_cyllama"):
            for member, value in vars(base).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if not member.startswith("_") and inspect.isfunction(function):
                    found.setdefault(member, function)
    return found


METHODS = [(name, member) for name in CLASSES for member in functions(name)]


@pytest.mark.parametrize(("name", "member"), METHODS, ids=lambda value: str(value))
def test_a_method_is_documented(name: str, member: str):
    """What it does, its arguments, what it returns, or whose of another method they are."""
    cls, function = getattr(langchain_cyllama, name), functions(name)[member]
    doc = inspect.getdoc(function) or ""
    assert re.match(r"[A-Z].*\.", doc)
    same = SAME_AS.search(doc)
    if same is not None:
        assert hasattr(cls, same[1])
        return
    arguments = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
    assert [each for each in arguments if not re.search(rf"^ *\**{each}: ", doc, re.MULTILINE)] == []
    returns = inspect.signature(function).return_annotation
    if returns not in ("None", None, inspect.Signature.empty):
        assert re.search(r"^Returns:|\A(?:Return|Whether|The|What|How)\b", doc, re.MULTILINE)
