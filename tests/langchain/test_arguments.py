"""Arguments of objects and calls, by any provider's names, and arguments that have no effect."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyllama import (
    LLM,
    ConfigError,
    ConfigTypeError,
    GenerationConfig,
    ModelConfig,
)
from langchain_cyllama import (
    ChatCyllama,
    CyllamaEmbeddings,
    CyllamaLLM,
    CyllamaReranker,
    UnusedArgumentWarning,
)

CLASSES = [ChatCyllama, CyllamaLLM, CyllamaEmbeddings, CyllamaReranker]
GENERATING = [ChatCyllama, CyllamaLLM]
Class = Callable[..., Any]


@pytest.fixture
def model_file(tmp_path: Path, tiny_chat: Path) -> Path:
    """A model that no other test has loaded."""
    return Path(shutil.copy(tiny_chat, tmp_path / "model.gguf"))


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
        (
            {"prefix_cache": 3},
            r"prefix_cache: input should be a valid boolean.*, or input should be a valid string, not 3$",
        ),
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


def test_the_same_value_by_two_names_is_accepted():
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


def test_no_limit_overrides_a_limit():
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


def test_a_grammar_or_format_of_a_call_replaces_that_of_the_object():
    model = CyllamaLLM(grammar='root ::= "a"')
    assert model._call_options(None, {"format": "json"}) == {"response_format": "json"}
    assert model._call_options(None, {"grammar": 'root ::= "b"'}) == {"grammar": 'root ::= "b"'}
    assert model._call_options(None, {"format": ""}) == {"grammar": 'root ::= "a"'}


def test_options_of_loading_have_no_effect_in_a_call():
    model = CyllamaLLM(n_threads=1, max_tokens=2)
    with pytest.warns(UnusedArgumentWarning, match="n_threads=2.* the model is loaded already, with n_threads=1"):
        model.invoke("Once upon a time", options={"num_thread": 2})
    model.invoke("Once upon a time", num_thread=1)


def test_an_unknown_option_of_a_call_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigTypeError, match="'max_token': did you mean 'max_tokens'"):
        CyllamaLLM().invoke("Once upon a time", max_token=3)


# -------------------- arguments without effect


def given(kind: Class, **arguments: Any) -> Any:
    """Construct with arguments that a type checker refuses."""
    return kind(**arguments)


def test_an_argument_without_effect_warns_at_the_callers_line_and_says_why():
    with pytest.warns(UnusedArgumentWarning) as caught:
        given(CyllamaLLM, keep_alive="5m", n_parts=4)
    assert [str(warning.message) for warning in caught] == [
        "CyllamaLLM(keep_alive='5m') makes no difference: the model stays loaded until close()",
        "CyllamaLLM(n_parts=4) makes no difference: a GGUF file knows its parts",
    ]
    assert {warning.filename for warning in caught} == {__file__}


def test_a_value_that_asks_for_what_happens_anyway_does_not_warn():
    given(CyllamaLLM, n_parts=-1, logits_all=False, vocab_only=False, keep_alive=-1, tfs_z=1.0, client_kwargs={})


def test_the_warning_is_not_repeated_when_the_object_is_used():
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


def test_options_of_generated_text_have_no_effect_on_embeddings():
    with pytest.warns(UnusedArgumentWarning, match="no text is generated here"):
        given(CyllamaEmbeddings, temperature=0.5)
    with pytest.warns(UnusedArgumentWarning, match="nothing is appended to the answer"):
        given(ChatCyllama, suffix="!")
    with pytest.warns(UnusedArgumentWarning, match="use ChatCyllama"):
        given(CyllamaLLM, reasoning=True)


@pytest.mark.parametrize("kind", GENERATING)
def test_a_draft_model_is_a_file(
    kind: type[ChatCyllama | CyllamaLLM], model_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(model_file.parent)
    model = kind(model_path=model_file.name, draft_model=model_file.name, temperature=0, max_tokens=8)
    assert model.client.config.speculation == "draft"
    assert model.draft_model == model.client.model_config.draft_model == str(model_file)
    answers = [each.invoke("Hello") for each in (model, kind(model_path=model_file.name, temperature=0, max_tokens=8))]
    one, other = (getattr(answer, "content", answer) for answer in answers)
    assert one == other
