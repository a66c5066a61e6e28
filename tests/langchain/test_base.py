"""What all classes have in common: the loaded model that they share, and when it is released."""

from __future__ import annotations

import copy
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumps, load
from langchain_core.runnables import ConfigurableField

from cyllama import (
    LLM,
    ConfigError,
    CyllamaError,
    ModelAccessError,
    ModelLoadError,
    ModelNotFoundError,
)
from langchain_cyllama import (
    ChatCyllama,
    CyllamaEmbeddings,
    CyllamaLLM,
    CyllamaReranker,
)

from ..support.harness import in_threads

CLASSES = [ChatCyllama, CyllamaLLM, CyllamaEmbeddings, CyllamaReranker]
GENERATING = [ChatCyllama, CyllamaLLM]
Class = Callable[..., Any]


@pytest.fixture
def model_file(tmp_path: Path, tiny_chat: Path) -> Path:
    """A model that no other test has loaded."""
    return Path(shutil.copy(tiny_chat, tmp_path / "model.gguf"))


# -------------------- loading


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_works_without_arguments(kind: Class):
    with kind() as model:
        assert model.client.model_name == "tiny-chat"


@pytest.mark.parametrize("kind", CLASSES)
def test_a_file_that_does_not_exist_fails_at_construction_with_its_path(kind: Class, tmp_path: Path):
    path = tmp_path / "nowhere.gguf"
    with pytest.raises(ModelNotFoundError, match="there is no model file at") as caught:
        kind(model_path=path)
    assert isinstance(caught.value, FileNotFoundError)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_a_model_fails_at_construction(tmp_path: Path):
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelLoadError):
        CyllamaLLM(model_path=tmp_path / "text.gguf")
    with pytest.raises(ModelAccessError):
        CyllamaLLM(model_path=tmp_path)


def test_a_model_that_failed_to_load_is_loaded_once_it_is_there(tmp_path: Path, tiny_chat: Path):
    path = tmp_path / "late.gguf"
    with pytest.raises(ModelNotFoundError):
        CyllamaLLM(model_path=path)
    shutil.copy(tiny_chat, path)
    assert CyllamaLLM(model_path=path).client.model_path == str(path)


def test_a_path_may_be_named_model_as_other_classes_of_langchain_have_it(model_file: Path):
    assert CyllamaLLM(model=str(model_file)).client.model_path == str(model_file)
    with pytest.raises(ConfigError, match="are two models"):
        CyllamaLLM(model=str(model_file), model_path="other.gguf")


def test_a_verbose_object_shows_the_log_of_loading():
    code = "from langchain_cyllama import CyllamaEmbeddings as C; C(verbose={})"
    shown, hidden = (
        subprocess.run([sys.executable, "-c", code.format(verbose)], capture_output=True, text=True, check=True).stderr
        for verbose in (True, False)
    )
    assert "cyllama" in shown
    assert hidden == ""


# -------------------- sharing


def test_objects_of_all_classes_on_one_file_share_one_model(model_file: Path):
    models = [kind(model_path=model_file) for kind in CLASSES]
    assert len({id(model.client) for model in models}) == 1


def test_other_paths_of_the_same_file_share_it_too(model_file: Path, monkeypatch: pytest.MonkeyPatch):
    link = model_file.with_name("link.gguf")
    link.symlink_to(model_file)
    monkeypatch.chdir(model_file.parent)
    monkeypatch.setenv("HOME", str(model_file.parent))
    paths = [model_file, str(model_file), link, "model.gguf", "~/model.gguf"]
    models = [CyllamaLLM(model_path=path) for path in paths]
    assert len({id(model.client) for model in models}) == 1


def test_a_file_that_was_replaced_is_another_model(model_file: Path):
    before = CyllamaLLM(model_path=model_file)
    os.utime(model_file, ns=(1, 1))
    after = CyllamaLLM(model_path=model_file)
    assert after.client is not before.client


def test_options_of_generations_are_each_objects_own(model_file: Path):
    short = CyllamaLLM(model_path=model_file, max_tokens=4, temperature=0)
    long = CyllamaLLM(model_path=model_file, max_tokens=16, temperature=0, n_ctx=300)
    assert short.client is long.client
    assert long.invoke("Once upon a time").startswith(short.invoke("Once upon a time"))
    assert short.invoke("Once upon a time") != long.invoke("Once upon a time")


def test_other_options_of_loading_load_it_again(model_file: Path):
    default = CyllamaLLM(model_path=model_file)
    other = CyllamaLLM(model_path=model_file, n_threads=1)
    assert other.client is not default.client
    assert other.client.model_config.n_threads == 1
    same = CyllamaLLM(model_path=model_file, num_thread=1)
    assert same.client is other.client


def test_a_loaded_model_can_be_given_to_several_objects(llm: LLM):
    chat, embeddings = ChatCyllama(llm=llm), CyllamaEmbeddings(llm=llm)
    assert chat.client is embeddings.client is llm
    chat.close()
    assert chat.client is llm
    assert llm("Once upon a time", max_tokens=2)


def test_the_defaults_of_a_given_model_hold(tiny_chat: Path):
    with LLM(tiny_chat, temperature=0, max_tokens=3) as llm:
        assert CyllamaLLM(llm=llm).invoke("Once upon a time") == llm("Once upon a time")
        assert CyllamaLLM(llm=llm, max_tokens=5).invoke("Once upon a time") == llm("Once upon a time", max_tokens=5)


def test_a_loaded_model_and_options_of_loading_must_agree(llm: LLM, tiny_chat: Path):
    assert CyllamaLLM(llm=llm, n_threads=1, model_path=tiny_chat).client is llm
    with pytest.raises(ConfigError, match="n_threads is 2, but llm was loaded with 1"):
        CyllamaLLM(llm=llm, n_threads=2)
    with pytest.raises(ConfigError, match=r"model_path is '/other.gguf', but llm was loaded from "):
        CyllamaLLM(llm=llm, model_path="/other.gguf")


def test_threads_that_start_at_once_load_it_once(model_file: Path):
    models = in_threads([lambda: CyllamaLLM(model_path=model_file)] * 8)
    assert len({id(model.client) for model in models}) == 1


def test_threads_may_use_and_close_it_at_once(model_file: Path):
    models = [CyllamaLLM(model_path=model_file, max_tokens=2) for _ in range(2)]

    def use_and_close(i: int) -> None:
        for _ in range(20):
            assert models[i % 2].client.model_path == str(model_file)
            assert models[i % 2].get_num_tokens("Once upon a time") == 4
            models[i % 2].close()

    in_threads([partial(use_and_close, i) for i in range(4)])
    assert [model.invoke("Once upon a time") != "" for model in models] == [True, True]


def test_equal_objects_are_equal(model_file: Path):
    assert CyllamaEmbeddings(model_path=model_file) == CyllamaEmbeddings(model_path=model_file)
    assert CyllamaLLM(model_path=model_file) == copy.copy(CyllamaLLM(model_path=model_file))
    assert CyllamaLLM(model_path=model_file) != CyllamaLLM(model_path=model_file, temperature=0)


# -------------------- releasing


def is_mapped(path: Path) -> bool:
    """Whether this process has a file in its memory."""
    return str(path) in Path("/proc/self/maps").read_text()


linux = pytest.mark.skipif(sys.platform != "linux", reason="what is in memory is read from /proc")


@linux
def test_closing_the_last_object_frees_the_model(model_file: Path):
    first, second = CyllamaLLM(model_path=model_file), CyllamaEmbeddings(model_path=model_file)
    first.close()
    assert is_mapped(model_file)
    second.close()
    assert not is_mapped(model_file)
    second.close()


@linux
def test_losing_the_last_object_frees_the_model(model_file: Path):
    first = CyllamaLLM(model_path=model_file, max_tokens=2)
    second = first.bind(stop=["."])
    first.invoke("Once upon a time")
    second.invoke("Once upon a time")
    del first
    gc.collect()
    assert is_mapped(model_file)
    del second
    assert not is_mapped(model_file)


@linux
def test_leaving_a_with_block_releases_the_model_also_after_an_error(model_file: Path):
    with pytest.raises(CyllamaError), CyllamaLLM(model_path=model_file) as model:
        model.invoke("")
    assert not is_mapped(model_file)


def test_a_reference_to_the_model_keeps_no_context(model_file: Path):
    model = CyllamaLLM(model_path=model_file, max_tokens=2)
    model.invoke("Once upon a time")
    llm = model.client
    assert llm.stats.n_ctx > 0
    model.close()
    assert llm.stats.n_ctx == 0
    assert llm("Once upon a time", max_tokens=2)
    llm.close()


def test_a_closed_object_loads_the_model_again_when_it_is_used(model_file: Path):
    model = CyllamaLLM(model_path=model_file, max_tokens=4, temperature=0)
    before = model.invoke("Once upon a time")
    model.close()
    assert model.invoke("Once upon a time") == before


def test_a_stream_keeps_what_it_needs(model_file: Path):
    stream = CyllamaLLM(model_path=model_file, max_tokens=4, temperature=0).stream("Once upon a time")
    assert "".join(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_loads_its_own(model_file: Path):
    model = CyllamaLLM(model_path=model_file, max_tokens=4, temperature=0)
    expected = model.invoke("Once upon a time")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, model.invoke("Once upon a time").encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == expected
    os.waitpid(pid, 0)
    assert model.invoke("Once upon a time") == expected


# -------------------- copies


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "model_copy": lambda model: model.model_copy(update={"temperature": 0.5}),
    "deep model_copy": lambda model: model.model_copy(deep=True),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "serialized": lambda model: load(
        json.loads(dumps(model)), allowed_objects=[ChatCyllama, CyllamaLLM], valid_namespaces=["langchain_cyllama"]
    ),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("kind", GENERATING)
def test_copies_share_the_model_and_outlive_the_original(kind: Class, name: str, model_file: Path):
    original = kind(model_path=model_file, max_tokens=4)
    copied = COPIES[name](original)
    llm = weakref.ref(original.client)
    assert copied.client is llm()
    original.close()
    assert copied.client is llm()
    assert copied.max_tokens == 4
    assert copied.invoke("Once upon a time")
    del original
    copied.close()
    del copied
    gc.collect()
    assert llm() is None


def test_a_copy_with_another_path_has_another_model(model_file: Path, tiny_chat: Path):
    original = CyllamaLLM(model_path=model_file)
    other = original.model_copy(update={"model_path": str(tiny_chat)})
    assert other.client.model_path == str(tiny_chat)
    assert original.client.model_path == str(model_file)


def test_copies_of_an_object_with_a_given_model_use_it(llm: LLM):
    original = CyllamaLLM(llm=llm)
    for name in ("copy", "deepcopy", "model_copy", "deep model_copy"):
        assert COPIES[name](original).client is llm


def test_a_serialized_copy_of_such_an_object_names_its_file(llm: LLM):
    text = dumps(CyllamaLLM(llm=llm, temperature=0))
    assert json.loads(text)["kwargs"].items() >= {"temperature": 0.0, "model_path": llm.model_path}.items()
    assert "llm" not in json.loads(text)["kwargs"]


def test_options_can_be_made_configurable(model_file: Path):
    model = CyllamaLLM(model_path=model_file, num_predict=8, temperature=0)
    llm = model.client
    configurable = model.configurable_fields(num_predict=ConfigurableField(id="length"))
    assert len(configurable.invoke("Once upon a time", {"configurable": {"length": 2}})) < len(
        configurable.invoke("Once upon a time")
    )
    assert model.client is llm


# -------------------- errors


def test_after_an_error_the_object_is_usable():
    model = CyllamaLLM(n_ctx=64, max_tokens=2, temperature=0)
    with pytest.raises(CyllamaError, match="n_ctx is 64"):
        model.invoke("fox " * 200)
    assert model.invoke("Once upon a time")
