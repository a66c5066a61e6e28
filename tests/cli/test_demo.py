"""``make demo``: a small real model answers, or the embedded one where that cannot be downloaded. And ``make help``."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from ..support import real_models
from ..support.pages import ROOT


def load_demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "tools/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_download_the_toy_answers_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    demo = load_demo()
    monkeypatch.setattr(demo.real_models, "FOLDER", tmp_path)
    with pytest.raises(SystemExit) as end:
        demo.demo(["--no-index"])
    out, err = capfd.readouterr()
    assert end.value.code == 0
    downloading, fallback, figures = err.splitlines()
    assert "98 MB" in downloading
    assert fallback == "SmolLM2 could not be downloaded: the embedded tiny-chat, a toy, answers instead."
    assert "tokens/s" in figures
    command, answer = out.splitlines()
    assert command.startswith("$ cyllama -m ")
    assert answer.startswith("Once upon a time")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("_", [pytest.param(None, marks=real_models.needs("smollm2"))])
def test_with_the_model_it_answers_the_question(_: None, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        load_demo().demo(["--no-index"])
    out, err = capfd.readouterr()
    assert end.value.code == 0
    command, answer = out.split("\n", 1)
    assert "smollm2.gguf" in command
    assert len(answer.split()) > 5
    assert len(err.splitlines()) == 1, "only the figures"


def test_help_names_every_target():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = re.findall(r"^make (\w+) ", shown, re.MULTILINE)
    [targets] = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(targets.split()) - {"check", "FORCE", "format"} == set(named)
