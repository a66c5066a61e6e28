"""The files that the programs of the pages use."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import pytest

from cyllama.models import TINY_CHAT

from ..support.random_models import write_random_adapter, write_random_bert
from ..support.vision import png, write_projector


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that pages name."""
    folder = tmp_path_factory.mktemp("pages")
    model = folder / "model.gguf"
    shutil.copy(TINY_CHAT, model)
    write_random_adapter(folder / "pirate.gguf", model, std=0.002)
    write_random_bert(folder / "reranker.gguf", pooling=gguf.PoolingType.RANK)
    write_projector(folder / "mmproj.gguf")
    (folder / "photo.png").write_bytes(png("teal", 64, 48))
    (folder / "prompt.txt").write_text("What is the capital of France?\n")
    return folder
