"""Models in several files are loaded by the first one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, ModelLoadError, ModelNotFoundError
from cyllama.models.identity import model_identity

from ..support.split_models import write_split_model

OPTIONS: dict[str, Any] = {"temperature": 0, "n_threads": 1}
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_split_model(tmp_path_factory.mktemp("split"), "tiny-Q8_0", 3)


@pytest.fixture
def parts(written: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(path, tmp_path)) for path in written]


def test_the_first_part_loads_all(parts: list[Path], llm: LLM):
    with LLM(parts[0], **OPTIONS) as split:
        assert split.chat(QUESTION, max_tokens=16).text == llm.chat(QUESTION, max_tokens=16).text


def test_parts_may_be_links_into_another_folder(parts: list[Path], tmp_path: Path):
    (tmp_path / "links").mkdir()
    for path in parts:
        (tmp_path / "links" / path.name).symlink_to(path)
    LLM(tmp_path / "links" / parts[0].name, **OPTIONS)


def test_a_missing_part_is_named(parts: list[Path]):
    parts[1].unlink()
    with pytest.raises(ModelNotFoundError) as caught:
        LLM(parts[0], **OPTIONS)
    assert str(caught.value) == (
        f"'{parts[0]}' is part 1 of a model in 3 files, and there is no '{parts[1]}': put all parts into one folder"
    )
    parts[2].unlink()
    with pytest.raises(ModelNotFoundError, match=rf"there is no '{parts[1]}', and 1 more"):
        LLM(parts[0], **OPTIONS)


def test_another_part_names_the_first_one(parts: list[Path]):
    with pytest.raises(ModelLoadError, match=rf"is part 2 of 3: a model is loaded by its first part, '{parts[0]}'"):
        LLM(parts[1], **OPTIONS)


def test_every_part_tells_models_apart(parts: list[Path]):
    before = model_identity(parts[0])
    data = parts[2].read_bytes()
    parts[2].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert model_identity(parts[0]) != before
