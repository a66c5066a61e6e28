"""What a wheel is made of agrees: compiler options, what modules need, metadata, workflows."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cyllama.llama._variant import NEEDS

from ..support.source_tree import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def load_tool(name: str) -> ModuleType:
    """Import a module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel_dependencies() -> ModuleType:
    """What scikit-build-core calls for a wheel's dependencies."""
    return load_tool("wheel_dependencies")


def compiled_for() -> dict[str, set[str]]:
    """Return which extensions of the instruction set the compiler may use in each module."""
    text = (ROOT / "llama.cpp" / "cmake" / "Processors.cmake").read_text(encoding="utf-8")
    found: dict[str, set[str]] = {}
    for name, flags in re.findall(r"^set\(cyllama_cpu_flags_(\w+) (.+)\)$", text, re.MULTILINE):
        found[name] = set[str]()
        for flag in flags.split():
            if inherited := re.fullmatch(r"\$\{cyllama_cpu_flags_(\w+)\}", flag):
                found[name] |= found[inherited[1]]
            elif flag.startswith("-march=armv8"):
                found[name] |= set(flag.split("+")[1:])
            else:
                found[name].add(flag.removeprefix("-m").replace(".", ""))
        if "sse42" in found[name]:
            found[name].add("popcnt")  # -msse4.2 enables it
    return found


def test_a_module_is_loaded_only_where_the_processor_has_what_the_compiler_used():
    assert compiled_for() == {name: set(needs) for name, needs in NEEDS.items()}


def test_the_processor_is_asked_for_all_that_a_module_may_need():
    source = (ROOT / "ext" / "processor.c").read_text(encoding="utf-8")
    assert set(re.findall(r'^ +\{"(\w+)", ', source, re.MULTILINE)) - {"features"} == set[str]().union(*NEEDS.values())


@pytest.mark.parametrize(
    ("label", "added"),
    [("", ["nanobind-backend"]), ("cuda12", ["nanobind-backend", "nvidia-cublas-cu12", "nvidia-cuda-runtime-cu12"])],
)
def test_only_a_wheel_for_other_machines_depends_on_a_compiled_nanobind(
    label: str, added: list[str], wheel_dependencies: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("CYLLAMA_WHEEL", raising=False)
    monkeypatch.setenv("CYLLAMA_WHEEL_LABEL", label)
    assert wheel_dependencies.dynamic_metadata({}, {}) == {"dependencies": []}
    monkeypatch.setenv("CYLLAMA_WHEEL", "1")
    found = wheel_dependencies.dynamic_metadata({}, {})["dependencies"]
    assert [name.partition("==")[0] for name in found] == added
    assert wheel_dependencies.dynamic_wheel({}) == {"dependencies": True}


def test_the_metadata_says_for_which_python_it_is_and_has_the_licences():
    found: Message = metadata("cyllama")  # pyright: ignore[reportAssignmentType]
    assert found["Version"] == PROJECT["project"]["version"]
    assert found["Requires-Python"] == ">=3.10"
    assert found["License-Expression"] == "MIT AND Apache-2.0 AND BSD-3-Clause"
    assert found.get_all("License-File") == ["LICENSE", "cyllama/models/LICENSE"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_there_is(path: Path):
    text = path.read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    for name, job in jobs.items():
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= jobs.keys(), name
        assert job["steps"], name
    targets = re.findall(r"run: make (\w+)", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_a_tag_that_is_not_the_version_is_not_released():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8"))["jobs"]
    assert "sdist" in jobs["release"]["needs"]
    assert "sdist" in jobs["publish"]["needs"]
    [step] = [step for step in jobs["sdist"]["steps"] if step.get("if") == "github.ref_type == 'tag'"]
    version = PROJECT["project"]["version"]
    for tag, is_refused in {f"v{version}": False, "v999": True, f"v{version}.1": True}.items():
        environment = os.environ | {"GITHUB_REF_NAME": tag}
        assert bool(subprocess.run(["bash", "-c", step["run"]], cwd=ROOT, env=environment).returncode) is is_refused


def test_every_python_that_the_metadata_names_has_its_wheel_tested():
    names = [text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", text)]
    assert [f"cp{name.replace('.', '')}-*" for name in names] == PROJECT["tool"]["cibuildwheel"]["build"][:-1]


def test_a_file_of_a_package_that_was_not_built_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tool = load_tool("wheels")
    monkeypatch.setattr(tool, "WORK", tmp_path)
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True).stdout.split()
    with tarfile.open(tmp_path / "cyllama.tar.gz", "w:gz") as sdist:
        for name in tracked:
            if not name.startswith((".ci/", ".github/", "README.md")):
                sdist.addfile(tarfile.TarInfo(f"cyllama-1.0/{name}"))
    with zipfile.ZipFile(tmp_path / "cyllama.whl", "w") as wheel:
        for name in tracked:
            if not name.endswith(("cyllama_server/py.typed", "models/tiny-chat.gguf")):
                wheel.writestr(name.removeprefix("integrations/"), "")
    missing = tool.missing_files(tmp_path / "cyllama.tar.gz", tmp_path / "cyllama.whl")
    assert missing == [
        "cyllama.tar.gz: README.md",
        "cyllama.whl: cyllama/models/tiny-chat.gguf",
        "cyllama.whl: cyllama_server/py.typed",
    ]
