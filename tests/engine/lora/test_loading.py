"""Adapters loaded, named, unloaded and refused."""

from __future__ import annotations

import gc
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyllama import (
    LLM,
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    ConfigError,
    ConfigTypeError,
    DecodeError,
    ForkedError,
    UnsupportedModelError,
)

from ...support.harness import ENDLESS, held, settled
from ...support.lora import EXACT_ANSWER, NAMES, SETS, Files, some_tokens
from ...support.random_models import (
    write_random_adapter,
    write_random_bert,
    write_random_model,
)


def test_what_is_loaded_has_a_name(files: Files):
    with LLM(files.model, **EXACT_ANSWER) as llm:
        assert llm.loras == []
        llm.load_lora("red", files.adapters["red"])
        llm.load_lora("also red", str(files.adapters["red"]))
        assert llm.loras == ["red", "also red"]
        prompt = some_tokens(20)
        assert llm(prompt, lora={"red": 1.0}) == llm(prompt, lora={"also red": 1.0})
        llm.unload_lora("red")
        assert llm.loras == ["also red"]
        for use in (lambda: llm(prompt, lora={"red": 1.0}), lambda: llm.unload_lora("red")):
            with pytest.raises(ConfigError, match=r"no adapter 'red': load_lora\(\) has loaded 'also red'"):
                use()
        with pytest.raises(ConfigError, match="there is an adapter 'also red' already"):
            llm.load_lora("also red", files.adapters["blue"])
        assert len(llm(prompt)) > 0


def test_the_defaults_of_an_llm_may_name_what_is_loaded_later(files: Files):
    with LLM(files.model, lora={"red": 1.0}, **EXACT_ANSWER) as llm:
        with pytest.raises(ConfigError, match=r"no adapter 'red': load_lora\(\) has loaded none"):
            llm("Hello")
        assert llm("Hello", lora={}).finish_reason == "length"
        llm.load_lora("red", files.adapters["red"])
        assert llm("Hello").finish_reason == "length"


def test_a_refused_name_leaves_no_session_behind(lora_llm: LLM):
    with pytest.raises(ConfigError, match="no adapter 'white'"):
        lora_llm("Hello", session="ada", lora={"white": 1.0})
    assert lora_llm.sessions == []


@pytest.mark.parametrize(
    "lora",
    [{"red": float("nan")}, {"red": float("inf")}, {"red": 1e39}, {"red": "1"}, {"red": None}, {7: 1.0}, {"": 1}],
)
def test_scales_and_names_are_checked(lora: dict[Any, Any], lora_llm: LLM):
    with pytest.raises(ConfigError, match=r"GenerationConfig\.lora"):
        lora_llm("Hello", lora=lora)


def test_lora_is_a_dict(lora_llm: LLM):
    wrong: Any
    for wrong in ("red", ["red"], None):
        with pytest.raises(ConfigError, match=r"GenerationConfig\.lora: "):
            lora_llm("Hello", lora=wrong)


def test_an_adapter_that_is_unloaded_during_a_run_is_used_to_its_end(files: Files):
    with files.load() as llm:
        adapter = weakref.ref(llm._runtime.adapter("red"))
        with llm(some_tokens(20), stream=True, lora={"red": 1.0}, max_tokens=200) as stream:
            next(stream)
            with held(llm):
                waiting = llm(some_tokens(20), stream=True, lora={"red": 1.0}, max_tokens=50)
                llm.unload_lora("red")
            with pytest.raises(ConfigError, match="no adapter 'red'"):
                llm(some_tokens(20), lora={"red": 1.0})
            stream.read()
        waiting.read()
        reference = files.reference({"red": 1.0})
        reference.check(stream._request)
        reference.check(waiting._request)
        settled(llm)
        gc.collect()
        assert adapter() is None, "it is freed, although the answer is kept"


def test_a_name_that_is_used_again_is_another_adapter(files: Files):
    prompt, lora = some_tokens(300), {"red": 1.0}
    with files.load() as llm:
        llm(prompt, session="ada", lora=lora)
        llm(prompt, session="bob", lora=lora)
        llm.unload_lora("red")
        llm.load_lora("red", files.adapters["blue"])
        with llm.session("ada")([5], stream=True, lora=lora) as stream:
            assert stream.read().usage.cached_tokens == 0
        files.reference({"blue": 1.0}).check(stream._request)
        llm.session("ada").close()
        with llm([*prompt, 5], session="eve", stream=True, lora=lora) as stream:
            assert stream.read().usage.cached_tokens == 0, "bob's states are those of the other one"
        files.reference({"blue": 1.0}).check(stream._request)


def test_the_same_file_loaded_again_is_the_same_adapter(files: Files):
    prompt = some_tokens(300)
    with files.load() as llm:
        llm(prompt, session="ada", lora={"red": 1.0})
        llm.unload_lora("red")
        llm.load_lora("crimson", files.adapters["red"])
        assert llm([*prompt, 5], session="bob", lora={"crimson": 1.0}).usage.cached_tokens == 300


def test_files_that_are_not_adapters(files: Files, tmp_path: Path):
    data, path = files.adapters["red"].read_bytes(), tmp_path / "adapter.gguf"
    mamba = write_random_adapter(tmp_path / "mamba.gguf", write_random_model(tmp_path / "model.gguf", "mamba"))
    activated = write_random_adapter(tmp_path / "activated.gguf", files.model, invocation=[5, 6])
    with files.load() as llm:
        before = llm("Hello", lora={"red": 1.0})
        with pytest.raises(AdapterNotFoundError, match="no adapter file at"):
            llm.load_lora("x", tmp_path / "missing.gguf")
        with pytest.raises(FileNotFoundError):
            llm.load_lora("x", "")
        with pytest.raises(AdapterAccessError, match="cannot read the adapter"):
            llm.load_lora("x", tmp_path)
        for content in (b"", b"GGUF", b"This is no adapter.", data[: len(data) // 2], data[:-1], data[:200]):
            path.write_bytes(content)
            with pytest.raises(AdapterLoadError):
                llm.load_lora("x", path)
        for wrong, match in ((files.model, "general.type"), (mamba, "architecture"), (activated, "activated LoRA")):
            with pytest.raises(AdapterLoadError, match=match):
                llm.load_lora("x", wrong)
        for name, wrong in ((7, path), ("", path), ("x", 7), ("x", None)):
            with pytest.raises(ConfigTypeError):
                llm.load_lora(name, wrong)  # type: ignore[arg-type]
        with pytest.raises(AdapterLoadError):
            llm.load_lora("x", "a\0b")
        assert llm.loras == list(NAMES)
        assert llm("Hello", lora={"red": 1.0}) == before


def test_models_that_do_not_generate_have_no_adapters(files: Files, tmp_path: Path):
    with LLM(write_random_bert(tmp_path / "bert.gguf")) as llm, pytest.raises(UnsupportedModelError):
        llm.load_lora("red", files.adapters["red"])


@pytest.mark.parametrize("n_prompt", [20, 1000])
def test_a_scale_that_is_too_large_fails_its_own_requests_only(n_prompt: int, files: Files):
    """Its states are NaN, and 0 times NaN is NaN: nothing of them may stay in the context."""
    too_large = {"red": 1e30}
    with files.load() as llm:
        idle = llm.session()
        idle(some_tokens(100), lora={"blue": 1.0})
        with held(llm):
            fine = [llm(some_tokens(20), stream=True, lora=lora, max_tokens=60) for lora in SETS]
            wrong = llm(some_tokens(n_prompt), stream=True, lora=too_large)
        with pytest.raises(DecodeError, match="not numbers"):
            wrong.read()
        for stream, lora in zip(fine, SETS, strict=True):
            stream.read()
            files.reference(lora).check(stream._request)
        session = llm.session()
        session("Hello", lora={"red": 1.0})
        n_before = session.tokens
        with pytest.raises(DecodeError, match="not numbers"):
            session(some_tokens(n_prompt), lora=too_large)
        assert session.tokens == n_before
        with session(some_tokens(n_prompt), stream=True, lora={"red": 1.0}) as stream:
            stream.read()
        files.reference({"red": 1.0}).check(stream._request)
        with idle([5], stream=True, lora={"blue": 1.0}) as stream:
            assert stream.read().usage.cached_tokens == 123
        files.reference({"blue": 1.0}).check(stream._request)
        assert llm(some_tokens(20), n=3) == [llm(some_tokens(20))] * 3
        with pytest.raises(DecodeError, match="not numbers"):
            llm(some_tokens(n_prompt), n=3, lora=too_large)
        assert llm(some_tokens(20), n=3) == [llm(some_tokens(20))] * 3


def test_nothing_stays_of_a_step_that_was_aborted_before_its_numbers_were_looked_at(files: Files):
    with files.load() as llm:
        alone = llm(some_tokens(20))
        for i in range(30):
            stream = llm(some_tokens(1000), stream=True, lora={"red": 1e30})
            time.sleep(i * 0.0005)  # to be cancelled in the middle of its first step, whenever that is
            stream.close()
            assert llm(some_tokens(20)) == alone


def test_cancelling_one_set_leaves_the_others_alone(files: Files):
    with files.load() as llm:
        with held(llm):
            streams = [llm(some_tokens(20), stream=True, lora={name: 1.0}, **ENDLESS) for name in NAMES[:2]]
            other = llm(some_tokens(20), stream=True, lora={"blue": 1.0}, max_tokens=60)
        next(streams[0])
        streams[0].close()
        streams[1].close()
        other.read()
        files.reference({"blue": 1.0}).check(other._request)


def test_an_adapter_is_loaded_while_others_generate(files: Files):
    with LLM(files.model, **EXACT_ANSWER) as llm, llm(some_tokens(3), stream=True, **ENDLESS) as stream:
        next(stream)
        for name, path in files.adapters.items():
            llm.load_lora(name, path)
            with llm(some_tokens(20), stream=True, lora={name: 1.0}) as answer:
                answer.read()
            files.reference({name: 1.0}).check(answer._request)
        next(stream)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_is_refused(lora_llm: LLM, files: Files):
    lora_llm("Hello", lora={"red": 1.0})
    calls: list[Callable[[], object]] = [
        lambda: lora_llm.load_lora("x", files.adapters["red"]),
        lambda: lora_llm.unload_lora("red"),
    ]
    for call in calls:
        pid = os.fork()
        if pid == 0:
            try:
                call()
            except ForkedError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lora_llm.loras == list(NAMES)
