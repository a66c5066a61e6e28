"""A model and an adapter for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaModel,
)

from ...support.random_models import (
    write_random_adapter,
    write_random_model,
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a random model."""
    return write_random_model(tmp_path_factory.mktemp("llama") / "llama.gguf", "llama")


@pytest.fixture(scope="module")
def adapter_file(llama: Path) -> Path:
    return write_random_adapter(llama.parent / "adapter.gguf", llama, 1)


@pytest.fixture
def base(llama: Path) -> LlamaModel:
    return LlamaModel(llama)


@pytest.fixture
def adapter(base: LlamaModel, adapter_file: Path) -> LlamaAdapterLora:
    return LlamaAdapterLora(base, adapter_file)
