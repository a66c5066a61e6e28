"""Common programs get from `cyllama.compat` what they get from llama-cpp-python: keys, types, tokens and counts.

What llama-cpp-python returns is in a file. Where it is installed, here or by `make bench`, it is run as well.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cyllama.compat
from cyllama.models import TINY_CHAT

from ..support import llama_programs
from ..support.real_models import needs, path_of

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("llama_cpp_python.json").read_text(encoding="utf-8"))
PEERS = Path(__file__).parents[2] / "build/peers/bin/python"  # made by `make bench`
TOOLS = [name for name in RECORDED if "tools" in name or "functions" in name]

#: What the guide says is different: by the ends of places, types of llama-cpp-python and ours. "-" is nothing.
DIFFERENT = {
    ".last.usage.prompt_tokens": ("-", "int"),
    ".last.usage.completion_tokens": ("-", "int"),
    ".last.usage.total_tokens": ("-", "int"),
    ".bytes": ("NoneType", "-"),
    ".bytes[]": ("-", "int"),
    ".between[].choices[].delta.function_call.name": ("str", "NoneType, str"),
    ".between[].choices[].delta.tool_calls[].function.name": ("str", "NoneType, str"),
}


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    return llama_programs.compared(cyllama.compat, TINY_CHAT)


def check_same(name: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Check that ours differs from theirs only as the guide says."""
    for place in {*theirs["shape"], *ours["shape"]}:
        types = theirs["shape"].get(place, "-"), ours["shape"].get(place, "-")
        expected = {types for end, types in DIFFERENT.items() if place.endswith(end)}
        assert types[0] == types[1] or types in expected, f"{name}, {place}: {types}"
    if name not in TOOLS:  # here, tools are described in the prompt also where the template does not do so
        assert ours["exact"] == theirs["exact"], name


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_result_is_as_the_program_knows_it(name: str, ours: dict[str, Any]):
    check_same(name, RECORDED[name], ours[name])


def test_every_program_is_recorded(ours: dict[str, Any]):
    assert sorted(ours) == sorted(RECORDED)


def run_llama_cpp(model: Path) -> dict[str, Any]:
    python = sys.executable if importlib.util.find_spec("llama_cpp") else str(PEERS)
    if not Path(python).exists():
        pytest.skip("llama-cpp-python is not installed: `make bench` does that")
    program = [python, llama_programs.__file__, "llama_cpp", str(model)]
    return json.loads(subprocess.run(program, capture_output=True, check=True).stdout)


@pytest.mark.slow
def test_what_is_recorded_is_what_llama_cpp_python_returns():
    assert run_llama_cpp(TINY_CHAT) == RECORDED


@pytest.mark.slow
@pytest.mark.parametrize("model", [pytest.param("smollm2", marks=needs("smollm2"))])
def test_a_real_model_answers_programs_alike(model: str):
    theirs, found = run_llama_cpp(path_of(model)), llama_programs.compared(cyllama.compat, path_of(model))
    for name in theirs:
        check_same(name, theirs[name], found[name])
