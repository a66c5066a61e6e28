"""What is imported when: `import cyllama` loads little, and a plain completion nothing that only other calls need."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cyllama

from ..support.source_tree import modules

#: What a completion does without: parts of this package, and libraries.
OTHER_CALLS = (
    "cyllama.chat",
    "cyllama.chat_stream",
    "cyllama.cli",
    "cyllama.embedding_calls",
    "cyllama.embedding_texts",
    "cyllama.engine.embedding",
    "cyllama.grammar",
    "cyllama.images",
    "cyllama.models.hub",
    "cyllama.options",
    "cyllama.session_file",
    "cyllama.session_pool",
    "PIL",
    "asyncio",
    "huggingface_hub",
    "jsonschema",
    "rich",
    "typer",
)


def loaded_by(program: str) -> set[str]:
    """Return the modules that a program in a process of its own has loaded at its end."""
    program = f"import sys; before = {{*sys.modules}}; {program}; print(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_package_imports_nothing_of_itself_but_the_errors():
    loaded = loaded_by("import cyllama")
    assert {name for name in loaded if name.startswith("cyllama.")} == {"cyllama.errors"}
    assert not loaded & {"pydantic", "typing_extensions", "importlib.metadata", "asyncio"}


def test_a_completion_loads_nothing_that_only_other_calls_need():
    loaded = loaded_by("from cyllama import LLM; LLM()('Hello', max_tokens=1)")
    assert "cyllama.engine.engine" in loaded
    assert sorted(loaded & set(OTHER_CALLS)) == []


def test_each_name_is_imported_from_the_module_that_type_checkers_see():
    seen = {each.name: each.module for each in modules()["cyllama"].imports() if each.for_types_only}
    assert {name: f"cyllama.{module}" for name, module in cyllama._MODULES.items()} == seen
    assert {*cyllama.__all__, "__version__"} == {*seen, *vars(cyllama.errors)} & {*cyllama.__all__, "__version__"}


def test_every_public_name_can_be_imported_and_is_listed():
    assert {*cyllama.__all__, "__version__"} <= {*dir(cyllama)}
    assert loaded_by("from cyllama import *; assert LLM and SessionPool") >= {"cyllama.llm", "cyllama.session_pool"}
    assert all(getattr(cyllama, name) is not None for name in cyllama.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'cyllama' has no attribute 'Llama'"):
        _ = cyllama.Llama  # pyright: ignore[reportAttributeAccessIssue]
