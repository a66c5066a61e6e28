"""The memory of models and contexts is told before it is allocated, and is what llama.cpp then allocates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama import llama_cpp
from cyllama.llama.llama_cpp import (
    GGMLType,
    LlamaContext,
    LlamaContextParams,
    LlamaFlashAttnType,
    LlamaLoadMode,
    LlamaMemoryUse,
    LlamaModel,
    LlamaModelParams,
)

from ..support.contexts import make_params
from ..support.random_models import ARCHITECTURES, write_random_bert, write_random_gpt2, write_random_model

KINDS = (*ARCHITECTURES, "lfm2 with windows", "gpt2", "bert")

SIZES = st.fixed_dictionaries(
    {
        "n_ctx": st.integers(1, 3000),
        "n_batch": st.sampled_from([32, 100, 2048]),
        "n_ubatch": st.sampled_from([16, 40, 512]),
        "n_seq_max": st.integers(1, 8),
        "type_k": st.sampled_from([GGMLType.F16, GGMLType.F32, GGMLType.BF16]),
        "flash_attn_type": st.sampled_from([LlamaFlashAttnType.ENABLED, LlamaFlashAttnType.DISABLED]),
        "swa_full": st.booleans(),
        "kv_unified": st.booleans(),
    }
)


class Both:
    """A model, and the same one without its weights."""

    def __init__(self, path: Path) -> None:
        params = LlamaModelParams()
        params.n_gpu_layers = 0
        params.load_mode = LlamaLoadMode.NONE
        self.loaded = LlamaModel(path, params)
        params.no_alloc = True
        self.simulated = LlamaModel(path, params)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Both]:
    folder = tmp_path_factory.mktemp("models")
    paths = {each: write_random_model(folder / f"{each}.gguf", each) for each in ARCHITECTURES}
    paths["lfm2 with windows"] = write_random_model(folder / "windows.gguf", "lfm2", sliding_window=48)
    paths["gpt2"] = write_random_gpt2(folder / "gpt2.gguf", n_positions=4096)
    paths["bert"] = write_random_bert(folder / "bert.gguf")
    return {kind: Both(path) for kind, path in paths.items()}


def sizes_of(uses: list[LlamaMemoryUse]) -> list[tuple[str, int, int, int]]:
    return [(use.device, use.weights, use.kv_cache, use.compute) for use in uses]


def params_of(**fields: Any) -> LlamaContextParams:
    fields["n_ctx"] = max(fields["n_ctx"], fields["n_seq_max"])
    return make_params(**fields)


@pytest.mark.parametrize("kind", KINDS)
@given(fields=SIZES)
@settings(max_examples=8, deadline=None)
def test_what_is_told_is_what_is_allocated(models: dict[str, Both], kind: str, fields: dict[str, Any]):
    model, params = models[kind], params_of(**fields)
    told = sizes_of(llama_cpp.memory_needed(model.simulated, params))
    with LlamaContext(model.loaded, params) as context:
        assert told == sizes_of(context.memory_use())
    device, weights, kv_cache, _ = told[0]
    assert (model.loaded.kv_cache_bytes(params) or {}).get(device, 0) == kv_cache
    assert (model.simulated.kv_cache_bytes(params) or {}).get(device, 0) == kv_cache
    assert sizes_of(llama_cpp.weights_memory(model.loaded)) == [(device, weights, 0, 0)]


@pytest.mark.parametrize("type_k", [GGMLType.Q8_0, GGMLType.Q4_0, GGMLType.IQ4_NL])
def test_quantized_caches_too(tiny_chat: Path, type_k: GGMLType):
    both, params = Both(tiny_chat), make_params(n_ctx=1024, type_k=type_k, type_v=GGMLType.Q5_1)
    with LlamaContext(both.loaded, params) as context:
        assert sizes_of(llama_cpp.memory_needed(both.simulated, params)) == sizes_of(context.memory_use())
        assert both.loaded.kv_cache_bytes(params) == {"CPU": context.memory_use()[0].kv_cache}


def test_layers_and_their_devices(models: dict[str, Both]):
    for kind, n_layers in (("llama", 3), ("jamba", 4)):  # with the output
        assert models[kind].loaded.layer_devices == ["CPU"] * n_layers
        assert models[kind].simulated.layer_devices == ["CPU"] * n_layers
    params = LlamaModelParams()
    params.vocab_only = True
    assert LlamaModel(models["llama"].loaded.path, params).layer_devices == []


def test_only_a_model_without_weights_is_measured(models: dict[str, Both]):
    with pytest.raises(ValueError, match="loaded with no_alloc=True"):
        llama_cpp.memory_needed(models["llama"].loaded, make_params())
    with pytest.raises(ValueError, match="n_seq_max"):
        llama_cpp.memory_needed(models["llama"].simulated, make_params(n_seq_max=0))
    with pytest.raises(MemoryError, match="GiB for its KV cache"):
        llama_cpp.memory_needed(models["llama"].simulated, make_params(n_ctx=2**31 - 2048))


def fit(model: LlamaModel, n_ctx: int = 0, margin: int = 2**20, **fields: Any) -> tuple[LlamaModelParams, int]:
    params = LlamaModelParams()
    for name, value in fields.items():
        setattr(params, name, value)
    return llama_cpp.fit_params(model, params, make_params(n_ctx=n_ctx), margin=margin, n_ctx_min=512)


def test_what_others_need_stays_free(in_process: Callable[..., str]):
    code = """
logging.basicConfig(level=logging.CRITICAL)
model = load(no_alloc=True, load_mode=LlamaLoadMode.NONE)
names = [device.name for device in devices() if device.type in ("gpu", "igpu")] or ["CPU"]
def fit(reserved):
    fitted, _ = fit_params(model, LlamaModelParams(), params(), margin=2**20, n_ctx_min=1, reserved=reserved)
    return fitted.n_gpu_layers
print(fit({}), fit({"another": 2**50}))
reserved = dict.fromkeys(names, 2**50)
print(raised(fit, reserved) if names == ["CPU"] else fit(reserved) or "unable to fit")
"""
    fits, does_not = in_process(code).splitlines()
    assert fits == "-1 -1"
    assert "unable to fit" in does_not


def without_gpu() -> bool:
    return all(device.type == "cpu" for device in llama_cpp.devices())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bert"])
def test_what_fits_stays_as_it_is(models: dict[str, Both], kind: str):
    params, n_ctx = fit(models[kind].simulated, 512)
    assert (params.n_gpu_layers, params.tensor_split, params.tensor_buft_overrides, n_ctx) == (-1, [], [], 512)


def test_what_cannot_be_fitted_is_an_exception_and_prints_nothing(tiny_chat: Path, in_process: Callable[..., str]):
    code = f"""
import logging
logging.basicConfig(level=logging.WARNING)
model = load(no_alloc=True, load_mode=LlamaLoadMode.NONE)
print(raised(lambda: fit_params(load(), LlamaModelParams(), params(), margin=0, n_ctx_min=1)))
on_cpu = LlamaModelParams()
on_cpu.devices = ["CPU"]
print(raised(lambda: fit_params(model, on_cpu, params(), margin=2**62, n_ctx_min=1)))
if {without_gpu()}:
    print(raised(lambda: fit_params(model, LlamaModelParams(), params(), margin=2**62, n_ctx_min=1)))
else:
    print("RuntimeError: ... was unable to fit")
"""
    loaded, cpu, none = in_process(code).splitlines()
    assert loaded.startswith("ValueError: the model has to be loaded with no_alloc=True")
    assert cpu == "ValueError: layers can be fitted to GPUs only, not to CPU"
    assert none.startswith("RuntimeError: ")
    assert "unable to fit" in none


def test_models_are_loaded_while_others_are_measured(in_process: Callable[..., str]):
    """llama.cpp replaces the callback of its log while it measures: other threads would call one that is gone."""
    code = """
logging.getLogger("cyllama.llama").setLevel(logging.DEBUG)
def measure():
    model = load(no_alloc=True, load_mode=LlamaLoadMode.NONE)
    for _ in range(15):
        fit_params(model, LlamaModelParams(), params(), margin=0, n_ctx_min=1)
        memory_needed(model, params())
def use():
    for _ in range(15):
        with load() as model, LlamaContext(model, params()) as context:
            context.decode(batch_of())
threads = [threading.Thread(target=each) for each in (measure, use, measure, use)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""
    assert in_process(code) == "done\n"
