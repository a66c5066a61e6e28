"""What a model needs of memory, what fits, and what of it is where once it is loaded."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama import LLM, ContextMemoryError
from cyllama.config import CacheType, ModelConfig
from cyllama.engine.context_params import CPU
from cyllama.engine.memory_needs import fit_gpus, gpus, kv_cache_bytes, largest_n_ctx, measure, token_bytes
from cyllama.llama.llama_cpp import LlamaModelParams
from cyllama.loading import simulate_model

from ..support.random_models import ARCHITECTURES, RECURRENT, write_random_model
from ..support.real_models import needs, path_of

TYPES: st.SearchStrategy[CacheType] = st.sampled_from(("f16", "f32", "bf16"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {each: write_random_model(folder / f"{each}.gguf", each) for each in ARCHITECTURES}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(type_k=TYPES, type_v=TYPES, n_parallel=st.integers(1, 9), n_ctx=st.integers(1, 5000))
@settings(max_examples=4, deadline=None)
def test_the_memory_of_a_context_is_what_was_told(
    paths: dict[str, Path], architecture: str, type_k: CacheType, type_v: CacheType, n_parallel: int, n_ctx: int
):
    config = ModelConfig(type_k=type_k, type_v=type_v, n_parallel=n_parallel, load_mode="none", n_gpu_layers=0)
    with simulate_model(str(paths[architecture]), config) as model:
        told = measure(model, config, n_ctx)
        assert told.kv_cache == kv_cache_bytes(model, config, n_ctx)
    with LLM(paths[architecture], model_config=config, temperature=0) as llm:
        llm([5], n_ctx=n_ctx, max_tokens=1)
        stats = llm.stats
    assert stats.weights_bytes == {"CPU": told.weights}
    assert stats.kv_cache_bytes == {"CPU": told.kv_cache}
    assert sum(stats.compute_bytes.values()) <= told.compute, "a smaller context has smaller passes"
    assert (stats.n_layers, stats.n_gpu_layers) == (model_layers(architecture), 0)


def model_layers(architecture: str) -> int:
    """Return the layers of a random model, with its output."""
    return {"llama": 2, "gemma3": 4, "lfm2": 4}.get(architecture, 3) + 1


@given(n_bytes=st.integers(0, 200 * 2**20), type_k=TYPES)
@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "jamba"])
def test_the_largest_context_fits_and_a_larger_one_does_not(
    paths: dict[str, Path], architecture: str, n_bytes: int, type_k: CacheType
):
    config, most, free = ModelConfig(type_k=type_k, n_gpu_layers=0), 100_000, {"CPU": n_bytes}
    with simulate_model(str(paths[architecture]), config) as model:
        n_ctx = largest_n_ctx(model, config, most, free)
        assert n_ctx == 0 or measure(model, config, n_ctx).fits(free)
        assert n_ctx == most or not measure(model, config, n_ctx + 256).fits(free)


def test_no_context_takes_no_memory(paths: dict[str, Path]):
    with simulate_model(str(paths["gemma3"]), ModelConfig()) as model:
        assert kv_cache_bytes(model, ModelConfig(), 0) == 0


def test_without_a_known_limit_everything_fits(paths: dict[str, Path]):
    with simulate_model(str(paths["llama"]), ModelConfig()) as model:
        assert largest_n_ctx(model, ModelConfig(), 3000, {}) == 3000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_token_takes_what_a_context_grows_by(paths: dict[str, Path], architecture: str):
    config = ModelConfig(n_ubatch=64)
    with simulate_model(str(paths[architecture]), config) as model:
        sizes = [measure(model, config, n_ctx).kv_cache for n_ctx in (8192, 16384)]
        assert token_bytes(model, config) == (sizes[1] - sizes[0]) / 8192
        assert (token_bytes(model, config) == 0) == (architecture in RECURRENT)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_context_of_any_memory_is_refused_before_it_does_not_fit(
    paths: dict[str, Path], architecture: str, monkeypatch: pytest.MonkeyPatch
):
    with LLM(paths[architecture], temperature=0, n_gpu_layers=0) as llm:
        needed = kv_cache_bytes(llm.model, llm.model_config, 512) or 0
        monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", lambda: needed - 1)
        with pytest.raises(ContextMemoryError, match=r"a context of n_ctx=512 tokens needs 0\.0 GiB"):
            llm([5], n_ctx=512, max_tokens=1)
        monkeypatch.setattr("cyllama.engine.memory_needs.available_memory", lambda: needed)
        assert llm([5], n_ctx=512, max_tokens=1).finish_reason == "length"


def test_what_others_need_is_left_free_by_the_layers(paths: dict[str, Path]):
    config = ModelConfig()
    names = [each.name for each in gpus()] or [CPU]  # without GPUs, llama.cpp fits a model into host memory
    with simulate_model(str(paths["llama"]), config) as model:
        assert fit_gpus(model, config, LlamaModelParams(), 256, {"another": 2**50}).n_gpu_layers == -1
        reserved = dict.fromkeys(names, 2**50)
        if names == [CPU]:
            with pytest.raises(RuntimeError, match="unable to fit"):
                fit_gpus(model, config, LlamaModelParams(), 256, reserved)
        else:
            assert fit_gpus(model, config, LlamaModelParams(), 256, reserved).n_gpu_layers == 0


def test_a_number_of_layers_without_a_gpu_is_said_to_have_no_effect(tiny_chat: Path):
    with pytest.warns(UserWarning, match=r"n_gpu_layers=99 has no effect.*see docs/guides/gpu\.md") as caught:
        LLM(tiny_chat, n_gpu_layers=99)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_gpu_layers in ("auto", -1, 0):
            assert LLM(tiny_chat, n_gpu_layers=n_gpu_layers).stats.n_gpu_layers == 0


def test_without_a_context_there_is_no_kv_cache(tiny_chat: Path):
    with LLM(tiny_chat) as llm:
        assert (llm.stats.kv_cache_bytes, llm.stats.compute_bytes) == ({}, {})
        assert llm.stats.weights_bytes["CPU"] >= llm.model.size
        llm("Hello", max_tokens=1)
        assert llm.stats.kv_cache_bytes["CPU"] > 0
        llm.close()
        assert (llm.stats.kv_cache_bytes, llm.stats.compute_bytes) == ({}, {})


@pytest.mark.parametrize(
    ("name", "n_ctx"),
    [
        pytest.param(name, n_ctx, marks=needs(name))
        for name in ("smollm2", "gemma3-270m")
        for n_ctx in (300, 2000, 7000)
    ],
)
def test_real_models_take_what_was_told(name: str, n_ctx: int):
    config = ModelConfig(load_mode="none", n_gpu_layers=0)
    with simulate_model(str(path_of(name)), config) as model:
        told = measure(model, config, n_ctx)
    with LLM(path_of(name), model_config=config) as llm:
        llm([5] * 200, n_ctx=n_ctx, max_tokens=1, n_batch=512)
        stats = llm.stats
    assert (stats.weights_bytes, stats.kv_cache_bytes) == ({"CPU": told.weights}, {"CPU": told.kv_cache})
    assert sum(stats.compute_bytes.values()) <= told.compute
