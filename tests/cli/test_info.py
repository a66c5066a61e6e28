"""`cyllama info`: what a model is, and what of it fits into the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama import ModelConfig
from cyllama.engine.hardware import available_memory, total_memory
from cyllama.engine.memory_needs import measure
from cyllama.llama.llama_cpp import projector_memory
from cyllama.loading import simulate_model

from ..support.command import TOY, run
from ..support.random_models import ARCHITECTURES, write_random_model
from ..support.vision import write_projector


def rows(*arguments: str) -> dict[str, str]:
    """Return the lines of the output by their first column."""
    result = run("info", *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.strip().partition("  ") for line in result.stdout.splitlines()]
    return {key: value.strip() for key, _, value in lines if key}


def mib(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"


def test_what_a_model_is(tiny_chat: Path):
    shown = rows(str(tiny_chat))
    assert shown["architecture"] == "llama"
    assert shown["quantization"] == "Q8_0"
    assert (shown["layers"], shown["context length"]) == ("4", "2,048 tokens, as trained")
    assert shown["memory"] == "attention"
    assert int(shown["parameters"].replace(",", "")) > 2_000_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_it_needs(tmp_path: Path, architecture: str):
    path = write_random_model(tmp_path / "model.gguf", architecture)
    config = ModelConfig(type_k="bf16", type_v="f32", n_parallel=7)
    shown = rows(str(path), "--n-ctx", "1024", "--type-k", "bf16", "--type-v", "f32", "--n-parallel", "7")
    with simulate_model(str(path), config) as model:
        needs = measure(model, config, 1024)
    assert shown["weights"] == f"{mib(needs.weights)} on CPU"
    assert (
        shown["n_ctx=1024"] == f"{mib(needs.kv_cache)} on CPU for the KV cache, {mib(needs.compute)} on CPU to compute"
    )
    assert "per 1,000 tokens (bf16, f32)" in shown["KV cache"]
    assert shown["fits"] == "weights and a context of n_ctx=1024"
    assert shown["largest n_ctx"].endswith("all that the model was trained for")


def test_what_does_not_fit(tiny_chat: Path):
    shown = rows(str(tiny_chat), "--n-ctx", "1000000000", "--type-k", "f32")
    assert shown["fits"].startswith("no: n_ctx=1000000000 needs about ")
    assert "more than the machine's memory" in shown["fits"]


def test_the_free_memory_is_not_all_memory(tiny_chat: Path):
    available, total = available_memory(), total_memory()
    shown = rows(str(tiny_chat))["device"]
    if available is None or total is None:
        pytest.skip("this system does not tell how much memory is free")
    free = float(shown.rpartition(", ")[2].split()[0])
    assert shown.endswith(f"of {total / 2**30:.1f} GiB free")
    assert free < total / 2**30


def test_a_model_of_the_hub_is_not_downloaded_for_it(tmp_path: Path):
    result = run("info", "owner/repo:Q4_K_M", env={"HF_HUB_CACHE": str(tmp_path)})
    assert (result.returncode, result.stdout.count("GiB free")) == (2, 0)
    assert "`cyllama pull owner/repo:Q4_K_M` downloads it" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_one_model_at_a_time(tiny_chat: Path):
    result = run("info", str(tiny_chat), "-m", str(tiny_chat))
    assert result.returncode == 2
    assert "give one of them" in result.stderr


@pytest.mark.parametrize("command", [["Hello"], ["chat"], ["embed", "A fox"]])
def test_layers_without_a_gpu_are_a_note_on_one_line(command: list[str]):
    result = run(*command, *TOY, "--n-gpu-layers", "99", stdin="")
    assert result.returncode == 0
    assert result.stderr.startswith("n_gpu_layers=99 has no effect")
    assert result.stderr.count("\n") == 1
    assert run(*command, *TOY, "--n-gpu-layers", "auto", stdin="").stderr == ""
    wrong = run(*command, *TOY, "--n-gpu-layers", "some", stdin="")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "ModelConfig.n_gpu_layers: input should be a valid integer, or input should be 'auto'" in wrong.stderr


def test_a_draft_model_takes_memory_beside_the_model(tiny_chat: Path):
    alone = rows(str(tiny_chat), "--n-ctx", "1024")
    shown = rows(str(tiny_chat), "--n-ctx", "1024", "--draft-model", str(tiny_chat))
    n_ctx = alone["n_ctx=1024"].split(", ")
    assert shown["draft model"] == f"weights of {alone['weights']}, {n_ctx[0]}, {n_ctx[1]}"
    assert shown["fits"] == alone["fits"]


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_chat: Path, tmp_path: Path):
    path = write_random_model(tmp_path / "other.gguf", "llama", sentencepiece=True, name="other words")
    refused = run("info", str(tiny_chat), "--draft-model", str(path))
    assert refused.returncode == 2
    assert "draft_model 'other words' has another vocabulary than 'tiny-chat': the type is 'SPM'" in refused.stderr


def test_a_projector_takes_memory_beside_the_model(tiny_chat: Path, tmp_path: Path):
    path = write_projector(tmp_path / "mmproj.gguf")
    shown = rows(str(tiny_chat), "--projector", str(path), "--draft-model", str(tiny_chat), "--n-gpu-layers", "0")
    size = mib(projector_memory(path, use_gpu=False)["CPU"])
    assert shown["projector"] == f"{size} on CPU, with what an image takes"
    assert shown["free"].endswith(" beside the draft model and the projector")
    for name, message in ((tmp_path / "x.gguf", "no projector file at"), ("auto", "there is no file *mmproj*")):
        wrong = run("info", str(tiny_chat), "--projector", str(name))
        assert (wrong.returncode, message in wrong.stderr) == (2, True), wrong.stderr
