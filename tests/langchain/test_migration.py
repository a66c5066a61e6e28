"""Programs of other providers run here: those of the page as it shows them, and with every argument they know."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ContextSizeError
from langchain_cyllama import ChatCyllama, CyllamaEmbeddings, CyllamaLLM, UnusedArgumentWarning
from langchain_cyllama._arguments import ARGUMENTS, CALL_OPTIONS, GENERATION, LOADING
from langchain_cyllama._unused import UNUSED

from ..support.programs import one_core

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "langchain-migration.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"Before:\n\n```python\n(.*?)```\n\nAfter:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
PROMPT = "Once upon a time"

Class = Callable[..., Any]
COMPLETIONS: Class = CyllamaLLM
EMBEDDINGS: Class = CyllamaEmbeddings


# -------------------- the page


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    with one_core():
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )


EXPECTED = {
    "ChatLlamaCpp": ["The capital of France is Paris.", "'name': 'GetWeather', 'args': {'location': "],
    "LlamaCpp": [".", "\n4\n"],
    "LlamaCppEmbeddings": ["The fox eats mice."],
    "ChatOllama": ["The capital of France is Paris.", "name='", "{"],
}


def name_of(before: str) -> str:
    """Return the class that a program used."""
    [name] = re.findall(r"^from langchain_(?:community|ollama)\S* import (\w+)$", before, re.MULTILINE)
    return name


def test_the_page_shows_every_class():
    assert [name_of(before) for before, _ in PROGRAMS] == list(EXPECTED)


@pytest.mark.parametrize(("before", "after"), PROGRAMS, ids=[name_of(before) for before, _ in PROGRAMS])
def test_a_program_of_the_page_runs_afterwards(before: str, after: str, tmp_path: Path, tiny_chat: Path):
    shutil.copy(tiny_chat, tmp_path / "model.gguf")
    result = run(after, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    for text in EXPECTED[name_of(before)]:
        assert text in result.stdout


@pytest.mark.parametrize(("before", "after"), PROGRAMS, ids=[name_of(before) for before, _ in PROGRAMS])
def test_nothing_but_the_import_the_name_and_the_path_changes(before: str, after: str):
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    (old_import, new_import), *others = changed
    old_name, new_name = old_import.split()[-1], new_import.split()[-1]
    assert new_import == f"from langchain_cyllama import {new_name}"
    for old, new in others:
        assert new in (old.replace(old_name, new_name), old.replace('model="model"', 'model_path="model.gguf"'))
    assert len(changed) == (3 if name_of(before) == "ChatOllama" else 2)


def test_its_last_block_fails_as_it_says(tmp_path: Path):
    [block] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "temprature" in block]
    [said] = re.findall(r"# (\w+): (.*)", block)
    assert run(block, tmp_path).stderr.splitlines()[-1] == f"cyllama.errors.{said[0]}: {said[1]}"


def test_its_tables_name_every_argument():
    named = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("## Arguments") :]))
    own = GENERATION | LOADING | CALL_OPTIONS
    assert sorted((ARGUMENTS - own) - named) == []
    assert sorted(UNUSED.keys() - named) == []


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


# -------------------- arguments of constructors

# By their name: a value, and what cyllama is asked for, of a generation and of loading.
OF_CHAT_LLAMA_CPP: dict[str, tuple[Any, dict[str, Any]]] = {
    "n_ctx": (512, {"n_ctx": 512}),
    "seed": (42, {"seed": 42}),
    "f16_kv": (False, {"type_k": "f32", "type_v": "f32"}),
    "use_mlock": (False, {"load_mode": "auto"}),
    "n_threads": (1, {"n_threads": 1}),
    "n_batch": (8, {"n_batch": 8}),
    "n_gpu_layers": (0, {"n_gpu_layers": 0}),
    "max_tokens": (256, {"max_tokens": 256}),
    "temperature": (0.8, {"temperature": 0.8}),
    "top_p": (0.9, {"top_p": 0.9}),
    "logprobs": (2, {"logprobs": 2}),
    "stop": (["a", "b"], {"stop_sequences": ["a", "b"]}),
    "repeat_penalty": (1.1, {"repeat_penalty": 1.1}),
    "top_k": (20, {"top_k": 20}),
    "last_n_tokens_size": (32, {"penalty_last_n": 32}),
    "use_mmap": (False, {"load_mode": "none"}),
    "rope_freq_scale": (1.0, {"rope_freq_scale": 1.0}),
    "rope_freq_base": (10000.0, {"rope_freq_base": 10000.0}),
    "model_kwargs": ({"n_ubatch": 64}, {"n_ubatch": 64}),
    "grammar": ('root ::= "a"', {"grammar": 'root ::= "a"'}),
    "verbose": (False, {}),
    "streaming": (True, {}),
}
OF_CHAT_OLLAMA: dict[str, tuple[Any, dict[str, Any]]] = {
    "mirostat": (2, {"mirostat": 2}),
    "mirostat_eta": (0.2, {"mirostat_eta": 0.2}),
    "mirostat_tau": (4.0, {"mirostat_tau": 4.0}),
    "num_ctx": (2048, {"n_ctx": 2048}),
    "num_gpu": (0, {"n_gpu_layers": 0}),
    "num_thread": (1, {"n_threads": 1}),
    "num_predict": (128, {"max_tokens": 128}),
    "repeat_last_n": (-1, {"penalty_last_n": -1}),
    "repeat_penalty": (1.5, {"repeat_penalty": 1.5}),
    "temperature": (0, {"temperature": 0}),
    "seed": (0, {"seed": 0}),
    "logprobs": (True, {"logprobs": 0}),
    "top_logprobs": (3, {"logprobs": 3}),
    "stop": (["a"], {"stop_sequences": ["a"]}),
    "top_k": (100, {"top_k": 100}),
    "top_p": (0.5, {"top_p": 0.5}),
    "format": ("json", {"response_format": "json"}),
    "reasoning": (False, {"enable_thinking": False}),
    "validate_model_on_init": (True, {}),
    "keep_alive": (-1, {}),
    "disable_streaming": (False, {}),
}
OF_EACH = [
    *((kind, name, *asked) for kind in (ChatCyllama, CyllamaLLM) for name, asked in OF_CHAT_LLAMA_CPP.items()),
    *((ChatCyllama, name, *asked) for name, asked in OF_CHAT_OLLAMA.items()),
]


def asked_of_cyllama(model: ChatCyllama | CyllamaLLM, names: Iterable[str]) -> dict[str, Any]:
    """Return the options of these names, and all others of a generation that were asked for."""
    loading = model.client.model_config
    return {name: getattr(loading, name) for name in names if name in LOADING} | model._call_options()


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"), OF_EACH, ids=[f"{kind.__name__}-{name}" for kind, name, *_ in OF_EACH]
)
def test_an_argument_means_what_it_means_there(kind: Class, name: str, value: Any, expected: dict[str, Any]):
    with kind(**{name: value}) as model:
        assert asked_of_cyllama(model, expected) == expected


@pytest.mark.parametrize("kind", [ChatCyllama, CyllamaLLM])
@pytest.mark.parametrize("name", ["n_ctx", "num_ctx"])
def test_a_context_of_0_is_what_the_model_was_trained_for(kind: Class, name: str, llm: LLM):
    model = kind(llm=llm, max_tokens=4, **{name: 0})
    assert model._call_options()["n_ctx"] is None
    fitting = " fox" * (llm.n_ctx_train // 4)
    assert llm.count_tokens(fitting) > 512  # as much as the other class has by default
    model.invoke(fitting)
    with pytest.raises(ContextSizeError, match=f"trained for a context of {llm.n_ctx_train}"):
        model.invoke(fitting * 4)


@pytest.mark.parametrize("name", ["max_tokens", "num_predict"])
@pytest.mark.parametrize("value", [0, -1, -2])
def test_no_limit_of_tokens_goes_on_to_the_end_of_the_context(name: str, value: int, llm: LLM):
    model = COMPLETIONS(llm=llm, n_ctx=128, ignore_eos=True, **{name: value})
    result = model.generate([PROMPT])
    info = result.generations[0][0].generation_info or {}
    assert info["finish_reason"] == "length"
    assert info["token_usage"]["total_tokens"] >= 128


def test_a_negative_seed_is_a_new_one_every_time(llm: LLM):
    model = CyllamaLLM(llm=llm, seed=-1, temperature=1.5, max_tokens=32)
    assert len({model.invoke(PROMPT) for _ in range(4)}) > 1
    seeded = CyllamaLLM(llm=llm, seed=7, temperature=1.5, max_tokens=32)
    assert len({seeded.invoke(PROMPT) for _ in range(4)}) == 1


def test_a_grammar_may_be_an_object_of_the_other_binding(llm: LLM):
    class LlamaGrammar:
        def __init__(self, _grammar: str) -> None:
            self._grammar = _grammar

    model = CyllamaLLM(llm=llm, grammar=LlamaGrammar('root ::= "yes" | "no"'))
    assert model.invoke("Is the sky blue? ") in ("yes", "no")


def test_memory_mapping_and_locking_together(llm: LLM):
    assert CyllamaLLM(llm=llm)._loading() == {}
    for mmap, mlock, mode in [
        (True, False, "auto"),
        (True, True, "mmap_mlock"),
        (False, True, "mlock"),
        (False, False, "none"),
        (None, True, "mmap_mlock"),
        (False, None, "none"),
    ]:
        model = CyllamaLLM.model_construct(use_mmap=mmap, use_mlock=mlock)
        assert model._loading() == {"load_mode": mode}


def test_numbers_of_llama_cpp_are_names_here():
    names = {"split_mode": 2, "rope_scaling_type": -1, "type_k": 8, "type_v": 1, "flash_attn": True}
    model = CyllamaLLM.model_construct(model_kwargs=names)
    assert model._loading() == {
        "split_mode": "row",
        "rope_scaling_type": None,
        "type_k": "q8_0",
        "type_v": "f16",
        "flash_attn": "enabled",
    }


def test_what_has_no_meaning_warns_and_runs():
    arguments = {
        "n_parts": 2,
        "logits_all": True,
        "vocab_only": True,
        "lora_base": "base.gguf",
        "base_url": "http://localhost:11434",
        "client_kwargs": {"timeout": 3},
        "async_client_kwargs": {"timeout": 3},
        "sync_client_kwargs": {"timeout": 3},
        "keep_alive": "5m",
        "tfs_z": 2.0,
        "suffix": "!",
        "echo": True,
    }
    with pytest.warns(UnusedArgumentWarning) as caught:
        model = ChatCyllama(max_tokens=4, **arguments)
    assert len(caught) == len(arguments)
    assert model.invoke("Hello!").content


OF_EMBEDDINGS: dict[str, Any] = {
    "n_ctx": 512,
    "n_parts": -1,
    "seed": -1,
    "f16_kv": False,
    "logits_all": False,
    "vocab_only": False,
    "use_mlock": False,
    "n_threads": 1,
    "n_batch": 512,
    "n_gpu_layers": None,
    "verbose": False,
    "device": None,
}


def test_embeddings_take_every_argument_at_its_default_there():
    with CyllamaEmbeddings(**OF_EMBEDDINGS) as embeddings:
        assert embeddings.client.model_config.type_k == "f32"
        assert len(embeddings.embed_documents(["The fox", "fox " * 600])) == 2


def test_embeddings_take_the_arguments_of_ollamas():
    with EMBEDDINGS(num_ctx=512, num_gpu=0, num_thread=1, dimensions=16, validate_model_on_init=True) as model:
        assert len(model.embed_query("The fox")) == 16
    with pytest.warns(UnusedArgumentWarning, match="temperature"):
        EMBEDDINGS(temperature=0.8)


def test_options_of_a_call_of_ollama(llm: LLM):
    model = ChatCyllama(llm=llm, temperature=0)
    short = model.invoke("Tell me a story about a fox.", options={"num_predict": 3, "num_ctx": 256})
    assert short.response_metadata["finish_reason"] == "length"
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 3


@pytest.mark.parametrize(
    ("reasoning", "asked"),
    [
        (True, {"enable_thinking": True}),
        ("low", {"reasoning_effort": "low"}),
        ({"effort": "high", "summary": "auto"}, {"reasoning_effort": "high"}),
    ],
)
def test_reasoning_is_a_bool_or_a_level(llm: LLM, reasoning: Any, asked: dict[str, Any]):
    model = ChatCyllama(llm=llm, reasoning=reasoning)
    assert asked_of_cyllama(model, asked) == asked
    assert ChatCyllama(llm=llm)._call_options(kwargs={"reasoning": reasoning}) == asked


def test_metadata_of_an_answer_has_what_ollamas_has(llm: LLM):
    answer = ChatCyllama(llm=llm, temperature=0).invoke("What is the capital of France?")
    metadata = answer.response_metadata
    assert metadata["done"] is True
    assert metadata["done_reason"] == "stop"
    assert metadata["model"] == metadata["model_name"] == "tiny-chat"
    assert answer.usage_metadata is not None
    assert metadata["eval_count"] == answer.usage_metadata["output_tokens"]
    assert metadata["prompt_eval_count"] == answer.usage_metadata["input_tokens"]
    assert metadata["total_duration"] >= metadata["eval_duration"] > 0
