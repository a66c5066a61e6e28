"""What importing the package does, and what it says without LangChain."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import langchain_cyllama

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "integrations" / "langchain_cyllama"
CLASSES = ["ChatCyllama", "CyllamaEmbeddings", "CyllamaLLM", "CyllamaReranker"]
BLOCK = "import sys; sys.modules['langchain_core'] = None\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)


def loaded_by(code: str) -> set[str]:
    """Return the packages that are loaded afterwards."""
    result = run(f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})")
    assert result.stderr == ""
    return set(result.stdout.split())


@pytest.mark.parametrize("code", ["import langchain_cyllama", *(f"from langchain_cyllama import {c}" for c in CLASSES)])
def test_without_langchain_it_says_what_to_install(code: str):
    result = run(BLOCK + code)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "ImportError: langchain_cyllama needs LangChain, which is missing: pip install 'langchain-core>=1.2.10,<2'"
    )


def test_without_langchain_cyllama_works():
    result = run(BLOCK + "from cyllama import LLM; print(LLM(temperature=0)('Once upon a time', max_tokens=2))")
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_it_loads_nothing_else():
    loaded = loaded_by("import langchain_cyllama")
    assert loaded.isdisjoint({"langchain_core", "cyllama", "pydantic"})


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_loaded_with_what_it_needs_only(name: str):
    loaded = loaded_by(f"from langchain_cyllama import {name}")
    assert {"langchain_core", "cyllama"} <= loaded
    assert loaded.isdisjoint({"langchain", "langgraph", "langchain_tests", "langchain_community", "numpy", "torch"})


def test_all_that_it_names_is_there():
    assert set(langchain_cyllama.__all__) <= set(dir(langchain_cyllama))
    assert all(getattr(langchain_cyllama, name) is not None for name in langchain_cyllama.__all__)
    assert langchain_cyllama.__version__
    with pytest.raises(AttributeError, match="has no attribute 'ChatLlama'"):
        _ = langchain_cyllama.ChatLlama


#: Modules whose own faces it uses besides: what a schema allows, how an answer that is not valid is tried again, where
#: a warning belongs, how a wrong option is described, and which file the name of a model stands for.
MORE_FACES = {"cyllama.attempts", "cyllama.callers", "cyllama.declaration", "cyllama.grammar", "cyllama.models"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_it_uses_cyllamas_public_face_only(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module in MORE_FACES or not (node.module or "").startswith("cyllama.")
        if isinstance(node, ast.Import):
            assert [alias.name for alias in node.names if alias.name.startswith("cyllama.")] == []


def test_it_is_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
