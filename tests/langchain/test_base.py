"""What all classes have in common: their arguments, the model that they share, and when it is given back."""

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
    ConfigTypeError,
    CyllamaError,
    GenerationConfig,
    ModelAccessError,
    ModelConfig,
    ModelLoadError,
    ModelNotFoundError,
)
from langchain_cyllama import (
    ChatCyllama,
    CyllamaEmbeddings,
    CyllamaLLM,
    CyllamaReranker,
    UnusedArgumentWarning,
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


def test_a_file_that_is_no_model_fails_at_construction(tmp_path: Path):
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


def test_its_defaults_hold_where_the_object_says_nothing(tiny_chat: Path):
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


# -------------------- giving back


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
def test_leaving_a_with_block_gives_it_back_also_after_an_error(model_file: Path):
    with pytest.raises(CyllamaError), CyllamaLLM(model_path=model_file) as model:
        model.invoke("")
    assert not is_mapped(model_file)


def test_whoever_still_holds_the_model_holds_no_context(model_file: Path):
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


# -------------------- arguments


@pytest.mark.parametrize("kind", CLASSES)
def test_a_misspelt_argument_is_refused_with_the_nearest_one(kind: Class):
    with pytest.raises(ConfigTypeError, match=rf"{kind.__name__} has no argument 'n_thread': did you mean 'n_threads'"):
        kind(n_thread=3)
    with pytest.raises(ConfigTypeError, match=r"has no argument 'xyzzy'$"):
        kind(xyzzy=1)


@pytest.mark.parametrize("kind", GENERATING)
def test_every_option_of_cyllama_is_an_argument(kind: type[ChatCyllama | CyllamaLLM], llm: LLM):
    generation = {name: getattr(GenerationConfig(), name) for name in GenerationConfig.model_fields}
    loading = {name: getattr(llm.model_config, name) for name in ModelConfig.model_fields}
    model = kind(llm=llm, **generation, **loading)
    options = model._call_options()
    assert {name: value for name, value in options.items() if getattr(GenerationConfig(), name) != value} == {}
    fields = kind.model_fields
    assert [name for name in (*generation, *loading) if name not in fields] == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"temperature": -1}, "temperature: input should be greater than or equal to 0, not -1.0"),
        ({"temperature": "hot"}, "temperature: input should be a valid number.*, not 'hot'"),
        ({"n_threads": 10_000}, "n_threads: input should be less than or equal to 512, not 10000"),
        ({"split_mode": 7}, r"split_mode is one of 0 \(none\), 1 \(layer\), .*, not 7"),
        ({"num_ctx": 512, "n_ctx": 256}, r"n_ctx is given twice, as (n_ctx=256|num_ctx=512) and as "),
        ({"stop": ["a"], "stop_sequences": ["b"]}, "stop_sequences is given twice"),
        ({"use_mlock": True, "load_mode": "none"}, "load_mode is given twice, as use_mlock=True and as "),
        ({"f16_kv": False, "type_k": "q8_0"}, "type_k is given twice"),
        ({"logprobs": False, "top_logprobs": 3}, "top_logprobs=3 contradicts logprobs=False"),
        ({"logprobs": 2, "top_logprobs": 3}, "logprobs=2 contradicts top_logprobs=3"),
    ],
)
def test_wrong_values_are_refused_by_cyllamas_errors(arguments: dict[str, Any], why: str):
    with pytest.raises(ConfigError, match=why):
        CyllamaLLM(**arguments)


def test_the_same_value_by_two_names_is_no_contradiction():
    assert CyllamaLLM(num_ctx=512, n_ctx=512)._call_options()["n_ctx"] == 512


def test_more_arguments_may_come_in_a_dict():
    model = CyllamaLLM(model_kwargs={"n_threads": 1, "min_p": 0.2})
    assert model.client.model_config.n_threads == 1
    assert model._call_options() == {"min_p": 0.2}
    with pytest.raises(ConfigTypeError, match="'min_q': did you mean 'min_p'"):
        CyllamaLLM(model_kwargs={"min_q": 0.2})
    with pytest.warns(UnusedArgumentWarning, match="numa=True"):
        CyllamaLLM(model_kwargs={"numa": True})


@pytest.mark.parametrize("kind", CLASSES)
def test_its_repr_shows_what_was_given(kind: Class):
    shown = repr(kind(n_threads=1))
    assert shown.startswith(f"{kind.__name__}(")
    assert "n_threads=1" in shown
    assert "None" not in shown


# -------------------- options of a call


def test_a_call_overrides_the_object_by_any_name():
    model = CyllamaLLM(max_tokens=4, temperature=0, stop=["x"])
    assert model._call_options() == {"max_tokens": 4, "temperature": 0, "stop_sequences": ["x"]}
    options = model._call_options(None, {"num_predict": 8, "temperature": None, "options": {"num_ctx": 512}})
    assert options == {"max_tokens": 8, "temperature": 0, "stop_sequences": ["x"], "n_ctx": 512}


def test_what_means_no_limit_overrides_too():
    model = CyllamaLLM(max_tokens=4, n_ctx=512, seed=7)
    assert model._call_options(None, {"max_tokens": -1, "n_ctx": 0, "seed": -1}) == {
        "max_tokens": None,
        "n_ctx": None,
        "seed": None,
    }


def test_stop_words_of_a_call_replace_those_of_the_object():
    model = CyllamaLLM(stop=["x"])
    assert model._call_options(["y"])["stop_sequences"] == ["y"]
    assert model._call_options(["y"], {"stop_sequences": "z"})["stop_sequences"] == ["y", "z"]
    assert model._call_options([])["stop_sequences"] == []


def test_what_the_text_has_to_be_is_replaced_as_a_whole():
    model = CyllamaLLM(grammar='root ::= "a"')
    assert model._call_options(None, {"format": "json"}) == {"response_format": "json"}
    assert model._call_options(None, {"grammar": 'root ::= "b"'}) == {"grammar": 'root ::= "b"'}
    assert model._call_options(None, {"format": ""}) == {"grammar": 'root ::= "a"'}


def test_options_of_loading_come_too_late_in_a_call():
    model = CyllamaLLM(n_threads=1, max_tokens=2)
    with pytest.warns(UnusedArgumentWarning, match="n_threads=2.* the model is loaded already, with n_threads=1"):
        model.invoke("Once upon a time", options={"num_thread": 2})
    model.invoke("Once upon a time", num_thread=1)


def test_an_unknown_option_of_a_call_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigTypeError, match="'max_token': did you mean 'max_tokens'"):
        CyllamaLLM().invoke("Once upon a time", max_token=3)


# -------------------- arguments without a meaning


def given(kind: Class, **arguments: Any) -> Any:
    """Construct with arguments that a type checker knows to be none."""
    return kind(**arguments)


def test_an_argument_without_a_meaning_warns_where_it_was_given_and_says_why():
    with pytest.warns(UnusedArgumentWarning) as caught:
        given(CyllamaLLM, keep_alive="5m", n_parts=4)
    assert [str(warning.message) for warning in caught] == [
        "CyllamaLLM(keep_alive='5m') makes no difference: the model stays loaded until close()",
        "CyllamaLLM(n_parts=4) makes no difference: a GGUF file knows its parts",
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_a_value_that_asks_for_what_happens_anyway_does_not_warn():
    given(CyllamaLLM, n_parts=-1, logits_all=False, vocab_only=False, keep_alive=-1, tfs_z=1.0, client_kwargs={})


def test_it_is_not_said_again_when_the_object_is_used():
    with pytest.warns(UnusedArgumentWarning):
        model = given(CyllamaLLM, base_url="http://localhost:11434", max_tokens=2)
    model.invoke("Once upon a time")
    model.model_copy().bind(stop=["."]).invoke("Once upon a time")


def test_secrets_are_not_shown():
    with pytest.warns(UnusedArgumentWarning) as caught:
        given(
            CyllamaLLM, api_key="secret", base_url="http://me:secret@host", client_kwargs={"headers": {"key": "secret"}}
        )
    assert len(caught) == 3
    assert "secret" not in "".join(str(warning.message) for warning in caught)


def test_what_changes_generated_text_means_nothing_to_embeddings():
    with pytest.warns(UnusedArgumentWarning, match="no text is generated here"):
        given(CyllamaEmbeddings, temperature=0.5)
    with pytest.warns(UnusedArgumentWarning, match="nothing is appended to the answer"):
        given(ChatCyllama, suffix="!")
    with pytest.warns(UnusedArgumentWarning, match="use ChatCyllama"):
        given(CyllamaLLM, reasoning=True)


# -------------------- errors


def test_after_an_error_the_object_is_usable():
    model = CyllamaLLM(n_ctx=64, max_tokens=2, temperature=0)
    with pytest.raises(CyllamaError, match="n_ctx is 64"):
        model.invoke("fox " * 200)
    assert model.invoke("Once upon a time")
