"""LoRA adapters: loading, setting, closing in any order."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaFlashAttnType,
    LlamaModel,
)

from ...support.contexts import NewContext, logits_of
from ...support.random_models import (
    ARCHITECTURES,
    write_merged_model,
    write_random_adapter,
    write_random_model,
)


def test_an_adapter_says_what_it_is(adapter: LlamaAdapterLora, adapter_file: Path):
    assert adapter.path == str(adapter_file)
    assert repr(adapter) == f"<LlamaAdapterLora from {adapter_file}>"
    assert adapter.metadata["adapter.type"] == "lora"
    assert float(adapter.metadata["adapter.lora.alpha"]) == 8
    assert adapter.alora_invocation_tokens == []


def test_an_activated_lora_says_from_where_on_it_is_meant(base: LlamaModel, llama: Path, tmp_path: Path):
    path = write_random_adapter(tmp_path / "activated.gguf", llama, invocation=[5, 6, 7])
    assert LlamaAdapterLora(base, path).alora_invocation_tokens == [5, 6, 7]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_do_what_merging_them_into_the_weights_does(
    architecture: str, tmp_path: Path, new_context: NewContext
):
    path = write_random_model(tmp_path / "model.gguf", architecture)
    one = write_random_adapter(tmp_path / "one.gguf", path, 1, embeddings=True)
    other = write_random_adapter(tmp_path / "other.gguf", path, 2, rank=3, alpha=None)
    merged = LlamaModel(write_merged_model(tmp_path / "merged.gguf", path, {one: 0.5, other: -1.5}))
    model, flash = LlamaModel(path), LlamaFlashAttnType.DISABLED
    context = new_context(model, flash_attn_type=flash)
    without = logits_of(context)
    context.set_adapters_lora([(LlamaAdapterLora(model, one), 0.5), (LlamaAdapterLora(model, other), -1.5)])
    with_both = logits_of(context)
    assert np.abs(with_both - without).max() > 1, "they change a lot"
    assert np.abs(with_both - logits_of(new_context(merged, flash_attn_type=flash))).max() < 0.01
    context.set_adapters_lora([])
    assert (logits_of(context) == without).all()


def test_an_adapter_with_scale_0_changes_nothing(base: LlamaModel, adapter: LlamaAdapterLora, new_context: NewContext):
    context = new_context(base)
    without = logits_of(context)
    context.set_adapters_lora([(adapter, 0.0)])
    assert (logits_of(context) == without).all()
    context.set_adapters_lora([(adapter, 1.0)])
    assert (logits_of(context) != without).any()
    context.set_adapters_lora([(adapter, -0.0)])
    assert (logits_of(context) == without).all()


def test_contexts_have_adapters_of_their_own(base: LlamaModel, adapter: LlamaAdapterLora, new_context: NewContext):
    one, other = new_context(base), new_context(base)
    without = logits_of(one)
    one.set_adapters_lora([(adapter, 1.0)])
    assert (logits_of(one) != without).any()
    assert (logits_of(other) == without).all()


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_scales_are_finite(scale: float, base: LlamaModel, adapter: LlamaAdapterLora, new_context: NewContext):
    with pytest.raises(ValueError, match="finite"):
        new_context(base).set_adapters_lora([(adapter, scale)])


def test_what_cannot_be_set_is_refused_and_changes_nothing(
    base: LlamaModel, llama: Path, adapter: LlamaAdapterLora, adapter_file: Path, new_context: NewContext
):
    context = new_context(base)
    context.set_adapters_lora([(adapter, 1.0)])
    before = logits_of(context)
    closed = LlamaAdapterLora(base, adapter_file)
    closed.close()
    other_model = LlamaModel(llama)
    foreign = LlamaAdapterLora(other_model, adapter_file)
    for adapters, error, match in (
        ([(foreign, 1.0)], ValueError, "another model"),
        ([(closed, 1.0)], RuntimeError, "the adapter is closed"),
        ([(adapter, 1.0), (adapter, 0.5)], ValueError, "twice"),
        ([(None, 1.0)], TypeError, "None"),
        ([(adapter, "1")], TypeError, "incompatible"),
        ([adapter], TypeError, "incompatible"),
        (7, TypeError, "incompatible"),
    ):
        with pytest.raises(error, match=match):
            context.set_adapters_lora(adapters)  # type: ignore[arg-type]
    other_model.close()
    with pytest.raises(RuntimeError, match="the model is closed"):
        context.set_adapters_lora([(foreign, 1.0)])
    assert (logits_of(context) == before).all()


def test_close_lets_contexts_that_compute_with_it_go_on(
    base: LlamaModel, adapter: LlamaAdapterLora, new_context: NewContext
):
    context = new_context(base)
    without = logits_of(context)
    context.set_adapters_lora([(adapter, 1.0)])
    before = logits_of(context)
    adapter.close()
    adapter.close()
    assert adapter.closed
    assert repr(adapter) == "<LlamaAdapterLora (closed)>"
    for use in (lambda: adapter.path, lambda: adapter.metadata, lambda: adapter.alora_invocation_tokens):
        with pytest.raises(RuntimeError, match="the adapter is closed"):
            use()
    assert (logits_of(context) == before).all()
    context.set_adapters_lora([])
    assert (logits_of(context) == without).all()


def test_a_with_block_closes(base: LlamaModel, adapter_file: Path):
    with pytest.raises(KeyError), LlamaAdapterLora(base, adapter_file) as adapter:
        raise KeyError
    assert adapter.closed


def test_an_adapter_keeps_its_model_in_memory(llama: Path, adapter_file: Path):
    adapter = LlamaAdapterLora(LlamaModel(llama), adapter_file)
    gc.collect()
    assert not adapter.closed
    assert adapter.metadata["general.architecture"] == "llama"


def test_closing_the_model_closes_its_adapters(base: LlamaModel, adapter: LlamaAdapterLora, adapter_file: Path):
    base.close()
    assert adapter.closed
    with pytest.raises(RuntimeError, match="the model is closed"):
        assert adapter.metadata
    with pytest.raises(RuntimeError, match="the model is closed"):
        LlamaAdapterLora(base, adapter_file)
    adapter.close()


def test_everything_may_be_closed_or_dropped_in_any_order(llama: Path, adapter_file: Path, in_process: Callable):
    code = f"""
import itertools
for how in ("close", "drop"):
    for order in itertools.permutations(("model", "context", "adapter", "other")):
        things = {{"model": LlamaModel({str(llama)!r})}}
        things["context"] = LlamaContext(things["model"], params())
        for name in ("adapter", "other"):
            things[name] = LlamaAdapterLora(things["model"], {str(adapter_file)!r})
        things["context"].set_adapters_lora([(things["adapter"], 1.0), (things["other"], 0.5)])
        things["context"].decode(batch_of())
        for name in order:
            thing = things.pop(name)
            if how == "close":
                thing.close()
                if name in ("adapter", "other") and "context" in things and "model" in things:
                    things["context"].kv_cache_clear()
                    assert things["context"].decode(batch_of()) == 0
            del thing
            gc.collect()
print("done")
"""
    assert in_process(code) == "done\n"


def test_adapters_come_and_go_while_contexts_compute(base: LlamaModel, llama: Path, new_context: NewContext):
    files = [write_random_adapter(llama.parent / f"coming-{i}.gguf", llama, i) for i in range(2)]
    contexts = [new_context(base) for _ in range(2)]
    expected = []
    for file in files:
        contexts[0].set_adapters_lora([(LlamaAdapterLora(base, file), 1.0)])
        expected.append(logits_of(contexts[0]))
    done = threading.Event()

    def compute(i: int) -> int:
        for n in itertools.count():
            contexts[i].set_adapters_lora([(LlamaAdapterLora(base, files[i]), 1.0)])
            assert (logits_of(contexts[i]) == expected[i]).all()
            if done.is_set() and n >= 20:
                return n
        raise AssertionError

    def load(i: int) -> None:
        for _ in range(100):
            with LlamaAdapterLora(base, files[i]) as adapter:
                assert adapter.metadata["general.name"] == f"random-{i}"

    with ThreadPoolExecutor(4) as pool:
        computing = [pool.submit(compute, i) for i in range(2)]
        for loading in [pool.submit(load, i) for i in range(2)]:
            loading.result()
        done.set()
        assert all(n.result() >= 20 for n in computing)


def test_a_callback_cannot_load_an_adapter(base: LlamaModel, adapter_file: Path, new_context: NewContext):
    """It would wait for the decode that waits for it. Dropping one is fine."""
    adapters = [LlamaAdapterLora(base, adapter_file)]
    errors = []

    def callback() -> bool:
        adapters.clear()
        try:
            LlamaAdapterLora(base, adapter_file)
        except RuntimeError as error:
            errors.append(str(error))
        return False

    context = new_context(base, abort_callback=callback)
    context.set_adapters_lora([(adapters[0], 1.0)])
    logits_of(context)
    assert "not from a callback" in errors[0]
    LlamaAdapterLora(base, adapter_file)


@pytest.mark.parametrize("as_type", [str, Path, lambda path: str(path).encode()])
def test_a_path_can_be_a_str_bytes_or_a_path(as_type: Callable, base: LlamaModel, adapter_file: Path):
    assert LlamaAdapterLora(base, as_type(adapter_file)).path == str(adapter_file)
