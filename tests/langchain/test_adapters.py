"""LoRA adapters through LangChain, with those of llama-cpp-python's names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cyllama import AdapterNotFoundError, ConfigError
from langchain_cyllama import CyllamaLLM, UnusedArgumentWarning

from ..support.random_models import write_random_adapter, write_random_model

PROMPT = "Once upon a time"
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "n_threads": 1, "flash_attn": "disabled"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    model = write_random_model(folder / "model.gguf", "llama")
    return model, write_random_adapter(folder / "adapter.gguf", model, std=0.5)


def test_an_adapter_changes_what_is_said(files: tuple[Path, Path]):
    model, adapter = files
    with (
        CyllamaLLM(model_path=model, **OPTIONS) as plain,
        CyllamaLLM(model_path=model, lora_path=adapter, **OPTIONS) as adapted,
    ):
        assert adapted.client is plain.client, "they share the model"
        said = adapted.invoke(PROMPT)
        assert said != plain.invoke(PROMPT)
        assert (
            said == plain.bind(lora={str(adapter): 1.0}).invoke(PROMPT) == plain.bind(lora_path=adapter).invoke(PROMPT)
        )
        assert adapted.bind(lora={}).invoke(PROMPT) == plain.invoke(PROMPT)
        assert CyllamaLLM(model_path=model, lora_path=adapter, lora_scale=0.0, **OPTIONS).invoke(
            PROMPT
        ) == plain.invoke(PROMPT)


def test_it_is_loaded_again_after_close(files: tuple[Path, Path]):
    model, adapter = files
    llm = CyllamaLLM(model_path=model, lora={str(adapter): 0.5}, **OPTIONS)
    said = llm.invoke(PROMPT)
    llm.close()
    assert llm.invoke(PROMPT) == said
    llm.close()


def test_threads_that_ask_for_one_load_it_once(files: tuple[Path, Path]):
    model, adapter = files
    with CyllamaLLM(model_path=model, **OPTIONS) as llm, ThreadPoolExecutor(8) as pool:
        bound = llm.bind(lora_path=adapter)
        assert len(set(pool.map(bound.invoke, [PROMPT] * 16))) == 1
        assert llm.client.loras == [str(adapter)]


def test_what_cannot_be_loaded_fails_where_it_is_named(files: tuple[Path, Path], tmp_path: Path):
    model, _ = files
    missing = tmp_path / "missing.gguf"
    merged: dict[str, Any] = {"lora_base": "base.gguf"}
    with pytest.raises(AdapterNotFoundError, match=r"missing\.gguf"):
        CyllamaLLM(model_path=model, lora_path=missing, **OPTIONS)
    with CyllamaLLM(model_path=model, **OPTIONS) as llm:
        with pytest.raises(ConfigError, match="pirate"):
            llm.bind(lora={"pirate": 1.0}).invoke(PROMPT)
        with pytest.warns(UnusedArgumentWarning, match="lora_base"):
            CyllamaLLM(model_path=model, **OPTIONS, **merged)
