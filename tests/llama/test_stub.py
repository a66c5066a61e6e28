"""The committed stub names everything that the compiled module has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from cyllama.llama import llama_cpp

STUB = Path(__file__).parents[2] / "cyllama" / "llama" / "llama_cpp.pyi"


@pytest.mark.skipif(not STUB.exists(), reason="made by `make stubs`")
def test_the_stub_lists_every_public_name():
    tree = ast.parse(STUB.read_text())

    def names(body: list[ast.stmt]) -> set[str]:
        found = set()
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Assign):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        return found

    public = {name for name in vars(llama_cpp) if not name.startswith("_")}
    assert public <= names(tree.body), "run `make stubs`"
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            members = {name for name in vars(getattr(llama_cpp, node.name)) if not name.startswith("_")}
            assert members <= names(node.body), f"{node.name}: run `make stubs`"


def test_everything_public_is_documented():
    for name, value in vars(llama_cpp).items():
        if name.startswith("_") or not callable(value):
            continue
        assert value.__doc__, name
        if isinstance(value, type) and value.__module__ == llama_cpp.__name__ and hasattr(value, "__init__"):
            for member, attribute in vars(value).items():
                if not member.startswith("_") and not isinstance(attribute, value):
                    assert attribute.__doc__, f"{name}.{member}"
