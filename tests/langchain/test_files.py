"""Files that are named by relative paths stay the same ones when the process goes to another folder."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumps

from cyllama import LLM
from langchain_cyllama import ChatCyllama, CyllamaEmbeddings, CyllamaLLM

from ..support.random_models import write_random_adapter, write_random_model

PROMPT = "Once upon a time"
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 4, "n_threads": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat: Path) -> Path:
    """Go to a folder with a model, an adapter and a grammar, and without them in a folder within."""
    shutil.copy(tiny_chat, tmp_path / "model.gguf")
    write_random_model(tmp_path / "random.gguf", "llama")
    write_random_adapter(tmp_path / "adapter.gguf", tmp_path / "random.gguf", std=0.5)
    (tmp_path / "yes.gbnf").write_text('root ::= "yes"')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("argument", ["model_path", "model", "model_kwargs"])
def test_a_model_is_loaded_again_from_another_folder(argument: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    if argument == "model_kwargs":
        chat = ChatCyllama(model_path="./model.gguf", model_kwargs={"grammar_path": "yes.gbnf"}, **OPTIONS)
    else:
        chat = ChatCyllama(**{argument: "model.gguf"}, **OPTIONS)
    said = chat.invoke(PROMPT).text
    monkeypatch.chdir(folder / "elsewhere")
    for another in (copy.deepcopy(chat), pickle.loads(pickle.dumps(chat))):
        chat.close()
        assert another.invoke(PROMPT).text == said
        another.close()
    assert chat.invoke(PROMPT).text == said
    assert str(folder / "model.gguf") in dumps(chat)


def test_every_class_keeps_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    models = [kind(model_path="model.gguf", n_threads=1) for kind in (ChatCyllama, CyllamaLLM, CyllamaEmbeddings)]
    monkeypatch.chdir(folder / "elsewhere")
    for model in models:
        model.close()
    assert {model.client.model_path for model in models} == {str(folder / "model.gguf")}


def test_a_model_that_a_call_names_is_the_one_of_then(folder: Path, monkeypatch: pytest.MonkeyPatch):
    chat = ChatCyllama(**OPTIONS)
    bound = chat.bind(model="model.gguf")
    assert bound.invoke(PROMPT).text
    monkeypatch.chdir(folder / "elsewhere")
    chat.close()
    assert bound.invoke(PROMPT).text
    shutil.copy(folder / "random.gguf", "model.gguf")  # another model of that name
    assert chat.invoke(PROMPT, model="model.gguf").text != bound.invoke(PROMPT).text


@pytest.mark.parametrize("argument", ["lora", "lora_path", "model_kwargs"])
def test_an_adapter_is_loaded_again_from_another_folder(argument: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    adapter: dict[str, Any] = {
        "lora": {"lora": {"adapter.gguf": 1.0}},
        "lora_path": {"lora_path": "adapter.gguf"},
        "model_kwargs": {"model_kwargs": {"lora": {"adapter.gguf": 1.0}}},
    }[argument]
    plain = CyllamaLLM(model_path="random.gguf", **OPTIONS)
    models = [CyllamaLLM(model_path="random.gguf", **adapter, **OPTIONS)]
    said = models[0].invoke(PROMPT)
    assert said != plain.invoke(PROMPT)
    bound = plain.bind(**adapter) if argument != "model_kwargs" else models[0]
    monkeypatch.chdir(folder / "elsewhere")
    for model in (plain, *models):
        model.close()
    assert models[0].invoke(PROMPT) == bound.invoke(PROMPT) == said
    for model in (plain, *models):
        model.close()


def test_a_name_that_is_no_file_stays_a_name(folder: Path):
    with LLM("random.gguf", n_threads=1) as llm:
        llm.load_lora("pirate", "adapter.gguf")
        chat = CyllamaLLM(llm=llm, lora={"pirate": 1.0}, temperature=0, max_tokens=4)
        assert chat.invoke(PROMPT)
        assert llm.loras == ["pirate"]
        assert llm.model_path == str(folder / "random.gguf")
