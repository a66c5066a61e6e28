"""Each public object is documented, and the examples in docstrings do what they show.

An example may use the names of ``cyllama`` and ``langchain_cyllama``, ``asyncio``, ``json`` and ``Path``, and ``llm``:
the embedded model at temperature 0, without a context, sessions and adapters. It runs in an empty folder that has
``pirate.gguf``, a LoRA adapter of the embedded model, and ``reranker.gguf``, a model that ranks.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import doctest
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
from pydantic import BaseModel

import cyllama
import langchain_cyllama
from cyllama import LLM
from cyllama.models import TINY_CHAT

from ..support.random_models import write_random_adapter, write_random_bert

PACKAGES = (cyllama, langchain_cyllama)
CALLS = ("__call__",)  # the only methods with underscores that users know by their docstrings
#: What users call, but no example can show: the reason is beside each.
NO_EXAMPLE = {
    "ModelDownloadError",  # a hub
    "ForkedError",  # a fork of the process that runs the tests
}
SAME_AS = re.compile(r"\bare those of\s+:(?:meth|func):")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def members(cls: type) -> dict[str, Any]:
    """Return what a class offers to its users, except what it inherits from other packages."""
    found: dict[str, Any] = {}
    made = {"model_post_init"}  # by pydantic, for a class with private attributes
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] in ("cyllama", "langchain_cyllama"):
            found |= {name: member for name, member in vars(base).items() if name in CALLS or not name.startswith("_")}
            found = {name: member for name, member in found.items() if name not in made}
    return {name: member for name, member in found.items() if isinstance(member, DESCRIBED) or callable(member)}


DESCRIBED = (property, classmethod, staticmethod)


def public_objects(package: Any) -> dict[str, Any]:
    """Return the classes and functions of a package's face, and the members of classes, by name."""
    found: dict[str, Any] = {}
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            found[name] = value
        if inspect.isclass(value):
            found |= {f"{name}.{member}": each for member, each in members(value).items()}
    return found


OBJECTS = public_objects(cyllama)
OWNERS = {name: owner for package in PACKAGES for name, owner in public_objects(package).items() if "." not in name}


def function_of(member: Any) -> Callable[..., Any]:
    return inspect.unwrap(getattr(member, "__func__", member))


# --- examples


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_random_adapter(folder / "pirate.gguf", TINY_CHAT)
    write_random_bert(folder / "reranker.gguf", pooling=gguf.PoolingType.RANK)
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in models.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, docstring: str, names: dict[str, Any]) -> int:
    """Run the examples of a docstring, fail where one does something else, and return how many there are."""
    test = doctest.DocTestParser().get_doctest(textwrap.dedent(docstring), names, name, None, None)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not report, "".join(report)
    return len(test.examples)


def names_for_examples(**names: Any) -> dict[str, Any]:
    face = {name: getattr(package, name) for package in PACKAGES for name in package.__all__}
    return {**face, "asyncio": asyncio, "json": json, "Path": Path, **names}


def docstrings(name: str) -> Iterator[tuple[str, str]]:
    owner = OWNERS[name]
    yield name, inspect.getdoc(owner) or ""
    for member, value in members(owner).items() if inspect.isclass(owner) else ():
        yield f"{name}.{member}", inspect.getdoc(value) or ""


@pytest.mark.parametrize("name", [name for name in OWNERS if any(">>>" in doc for _, doc in docstrings(name))])
def test_the_examples_of_public_objects_do_what_they_show(name: str, folder: Path):
    with LLM(temperature=0, n_threads=1) as llm:
        for member, docstring in docstrings(name):
            if ">>>" in docstring:
                assert run(member, docstring, names_for_examples(llm=llm)) > 0
            llm.reset_context()
            for adapter in llm.loras:
                llm.unload_lora(adapter)


def modules() -> Iterator[Any]:
    """Yield the modules written in Python that can be imported without running a command."""
    for package in PACKAGES:
        yield package
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                module = importlib.import_module(found.name)
                if (module.__file__ or "").endswith(".py"):
                    yield module


def internal_examples() -> Iterator[doctest.DocTest]:
    known = {inspect.getdoc(value) for name in OWNERS for value in [OWNERS[name], *members(OWNERS[name]).values()]}
    for module in modules():
        for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
            if test.examples and inspect.cleandoc(test.docstring or "") not in known:
                yield test


def test_the_examples_of_other_objects_do_what_they_show(folder: Path):
    n_examples = 0
    for test in internal_examples():
        n_examples += run(test.name, test.docstring or "", names_for_examples() | test.globs)
    assert n_examples > 0


# --- what a docstring has


def parameters(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls", "args")]


def raised(function: Callable[..., Any]) -> set[str]:
    """Return the exceptions that a function raises by itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return {call.func.id for call in calls if isinstance(call.func, ast.Name)} & set(cyllama.__all__)


def missing_of_function(function: Callable[..., Any], doc: str) -> Iterator[str]:
    if SAME_AS.search(doc):
        return
    for name in parameters(function):
        if not re.search(rf"^ *\**{name}: ", doc, re.MULTILINE):
            yield f"the argument {name}"
    returns = inspect.signature(function).return_annotation not in ("None", None, inspect.Signature.empty)
    said = re.search(r"^Returns:", doc, re.MULTILINE) or re.search(
        r"\b(return|Return|Whether)\b", doc.partition("\n\n")[0]
    )
    if returns and not said:
        yield "Returns"
    for error in raised(function):
        if not re.search(rf"\b{error}\b", doc):
            yield f"Raises {error}"


def fields(cls: type) -> list[str]:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls) if field.repr]
    if issubclass(cls, BaseModel):
        return [name for name, field in cls.model_fields.items() if not field.description]
    return parameters(cls.__init__) if cls is LLM else []


def missing(name: str, value: Any) -> Iterator[str]:
    """Yield what the docstring of a public object lacks."""
    doc = inspect.getdoc(value)
    if not doc:
        yield "a docstring"
        return
    if ">>>" not in doc and not isinstance(value, property) and name not in NO_EXAMPLE:
        yield "an example"
    if inspect.isclass(value):
        for field in fields(value):
            if not re.search(rf"^ *\**{field}: ", doc, re.MULTILINE):
                yield f"the field {field}"
    elif not isinstance(value, property):
        yield from missing_of_function(function_of(value), doc)


@pytest.mark.parametrize("name", OBJECTS)
def test_a_public_object_is_documented(name: str):
    assert list(missing(name, OBJECTS[name])) == [], f"the docstring of {name} lacks these"
