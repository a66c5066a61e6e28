"""Which file is the projector of a model: beside it, in its repository, or named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from cyllama import LLM, ModelNotFoundError
from cyllama.models import TINY_CHAT, resolve_model_path
from cyllama.models.hub import find_file
from cyllama.models.place import Place
from cyllama.models.projectors import choose_projector, resolve_projector

from ..support.hub_server import TOKEN, Hub
from ..support.vision import N_TOKENS, png, write_projector


@pytest.mark.parametrize(
    ("model", "files", "chosen"),
    [
        ("m-Q4_K_M.gguf", ["m-Q4_K_M.gguf", "mmproj-m-F16.gguf", "mmproj-m-Q8_0.gguf"], "mmproj-m-Q8_0.gguf"),
        ("m-F16.gguf", ["mmproj-m-F16.gguf", "mmproj-m-Q8_0.gguf"], "mmproj-m-F16.gguf"),
        ("m-BF16.gguf", ["mmproj-F32.gguf", "mmproj-BF16.gguf"], "mmproj-BF16.gguf"),
        ("m-Q4_K_M-00001-of-00002.gguf", ["mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "mmproj-Q8_0.gguf"),
        ("m.gguf", ["mmproj-F16.gguf", "m-mmproj.gguf"], "m-mmproj.gguf"),
        ("m.gguf", ["mmproj-b-F16.gguf", "mmproj-a-F16.gguf"], "mmproj-a-F16.gguf"),
        ("a/Q4/m-Q4_0.gguf", ["mmproj-Q4_0.gguf", "a/mmproj-F16.gguf", "b/mmproj-Q4_0.gguf"], "a/mmproj-F16.gguf"),
        ("a/Q4/m-Q4_0.gguf", ["a/mmproj-Q4_0.gguf", "a/Q4/mmproj-F32.gguf"], "a/Q4/mmproj-F32.gguf"),
        ("m-Q4_0.gguf", ["a/mmproj-Q4_0.gguf"], None),
        ("m-Q4_0.gguf", ["m-Q4_0.gguf", "mmproj.bin", "README.md"], None),
    ],
)
def test_the_projector_is_chosen_as_llama_cpp_does(model: str, files: list[str], chosen: str | None):
    assert choose_projector(files, model) == chosen
    assert choose_projector(reversed(files), model) == chosen


def test_beside_a_model_on_the_disk(tmp_path: Path):
    model = tmp_path / "m-Q8_0.gguf"
    shutil.copy(TINY_CHAT, model)
    with pytest.raises(ModelNotFoundError, match=r"there is no file \*mmproj\*\.gguf beside .*give the path"):
        resolve_projector("auto", model)
    for name in ("mmproj-F16.gguf", "mmproj-Q8_0.gguf"):
        (tmp_path / name).touch()
    assert resolve_projector("auto", model) == tmp_path / "mmproj-Q8_0.gguf"
    assert resolve_projector("other.gguf", model) == Path("other.gguf")
    assert resolve_projector(tmp_path / "mmproj-F16.gguf", model) == tmp_path / "mmproj-F16.gguf"


def test_a_missing_projector_is_told_before_the_model_is_loaded(tmp_path: Path):
    model, progress = tmp_path / "m.gguf", list[float]()
    with pytest.raises(ModelNotFoundError, match="there is no model file at"):
        LLM(model, projector="auto")
    shutil.copy(TINY_CHAT, model)
    with pytest.raises(ModelNotFoundError, match=r"there is no file \*mmproj\*\.gguf beside"):
        LLM(model, projector="auto", progress_callback=progress.append)
    assert progress == []


def test_it_is_downloaded_from_the_repository_of_the_model(hub: Hub, cache: Path):
    model = resolve_model_path("ada/tiny")
    hub.repositories["ada/tiny"].files["other/mmproj-tiny-Q4_K_M.gguf"] = b"y"
    found = resolve_projector("auto", model)
    assert (found.name, found.read_bytes()) == ("mmproj-tiny-Q8_0.gguf", b"x")
    assert found.parent == model.parent
    hub.refuses = 503  # it is in the cache now
    assert resolve_projector("auto", model) == found


def test_it_comes_from_the_commit_of_the_model(hub: Hub, cache: Path):
    model = resolve_model_path("ada/tiny")
    resolve_projector("auto", model)
    assert any(f"/api/models/ada/tiny/revision/{'1' * 40}" in request.path for request in hub.requests)


def test_a_name_on_the_hub(hub: Hub, cache: Path):
    assert resolve_projector("hf:ada/tiny/mmproj-tiny-Q8_0.gguf", TINY_CHAT).read_bytes() == b"x"
    with pytest.raises(ModelNotFoundError, match=r"has no file 'mmproj-x\.gguf'"):
        resolve_projector("hf:ada/tiny/mmproj-x.gguf", TINY_CHAT)


def test_without_one_the_error_says_so(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch):
    model = resolve_model_path("ada/tiny")
    del hub.repositories["ada/tiny"].files["mmproj-tiny-Q8_0.gguf"]
    with pytest.raises(ModelNotFoundError, match=r"'ada/tiny' has no projector for 'tiny-q4_k_m\.gguf'"):
        resolve_projector("auto", model)
    hub.refuses = 503
    with pytest.raises(
        ModelNotFoundError, match=r"does not answer now .* and the projector of 'ada/tiny' is not in the cache"
    ):
        resolve_projector("auto", model)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE forbids to download it"):
        resolve_projector("auto", model)


def test_a_model_by_name_reads_images_with_the_projector_of_its_repository(hub: Hub, cache: Path, tmp_path: Path):
    hub.repositories["ada/tiny"].files["mmproj-tiny-Q8_0.gguf"] = write_projector(tmp_path / "x.gguf").read_bytes()
    question = [{"type": "image", "image": png("red")}, {"type": "text", "text": "What is this?"}]
    with LLM("ada/tiny", projector="auto", n_threads=1) as llm:
        answer = llm.chat([{"role": "user", "content": question}], max_tokens=1)
    assert answer.usage.prompt_tokens > N_TOKENS


def test_the_projector_of_a_private_model_is_downloaded_with_its_token(hub: Hub, cache: Path, tmp_path: Path):
    repository = hub.repositories["ada/tiny"]
    repository.private = True
    repository.files["mmproj-tiny-Q8_0.gguf"] = write_projector(tmp_path / "x.gguf").read_bytes()
    LLM.from_pretrained("ada/tiny", token=TOKEN, n_threads=1).close()
    with pytest.raises(ModelNotFoundError, match=r"'ada/tiny' is not in the cache .*, and local_files_only or"):
        LLM.from_pretrained("ada/tiny", token=TOKEN, local_files_only=True, projector="auto", n_threads=1)
    with LLM.from_pretrained("ada/tiny", token=TOKEN, projector="auto", n_threads=1) as llm:
        assert llm.model_config.projector == "auto"
    cached = find_file("ada/tiny", None, Place(local_files_only=True))
    assert resolve_projector("auto", cached) == cached.with_name("mmproj-tiny-Q8_0.gguf")
