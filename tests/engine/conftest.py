"""What the tests of the KV cache have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaModel
from cyllama.models import TINY_CHAT

from ..support.kv_desk import Desk
from ..support.random_models import ARCHITECTURES, REAL_SLIDING_WINDOW, SLIDING_WINDOW, write_random_model


@pytest.fixture(scope="module")
def kv_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LlamaModel]]:
    folder: Path = tmp_path_factory.mktemp("models")
    models = {name: LlamaModel(write_random_model(folder / name, name)) for name in ARCHITECTURES}
    for kind, window in (("gemma3", REAL_SLIDING_WINDOW), ("lfm2", SLIDING_WINDOW)):
        path = write_random_model(folder / f"{kind} with a window", kind, sliding_window=window)
        models[f"{kind} with a window of {window}"] = LlamaModel(path)
    models["tiny-chat"] = LlamaModel(TINY_CHAT)
    yield models
    for model in models.values():
        model.close()


@pytest.fixture
def llama(kv_models: dict[str, LlamaModel]) -> LlamaModel:
    """Of the embedded model's kind, without its quantized weights, which make every place round differently."""
    return kv_models["llama"]


@pytest.fixture
def desk(llama: LlamaModel) -> Iterator[Desk]:
    desk = Desk(llama)
    yield desk
    desk.close()
