"""Files of LoRA adapters, and every file that is not one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaBatch,
    LlamaLoadMode,
    LlamaModel,
    LlamaModelParams,
)

from ...support.contexts import NewContext, logits_of
from ...support.random_models import (
    finish,
    write_adapter,
    write_one_layer,
    write_random_adapter,
    write_random_bert,
    write_random_model,
)


def test_paths_that_are_not_files(base: LlamaModel, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        LlamaAdapterLora(base, tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        LlamaAdapterLora(base, tmp_path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ValueError, match="is empty"):
        LlamaAdapterLora(base, tmp_path / "empty.gguf")
    (tmp_path / "text.gguf").write_text("This is no adapter.")
    with pytest.raises(ValueError, match="not a GGUF file"):
        LlamaAdapterLora(base, tmp_path / "text.gguf")
    with pytest.raises(ValueError, match="null"):
        LlamaAdapterLora(base, "a\0b")
    with pytest.raises(TypeError):
        LlamaAdapterLora(base, 7)  # type: ignore[arg-type]


def test_a_model_is_not_an_adapter(base: LlamaModel, llama: Path, adapter_file: Path):
    with pytest.raises(RuntimeError, match=r'general.type is missing, not "adapter"'):
        LlamaAdapterLora(base, llama)
    with pytest.raises(RuntimeError, match="cannot load"):
        LlamaModel(adapter_file)


def test_an_adapter_of_another_architecture_or_shape(base: LlamaModel, llama: Path, tmp_path: Path):
    mamba = write_random_model(tmp_path / "mamba.gguf", "mamba")
    with pytest.raises(RuntimeError, match=r'general.architecture is "mamba", not "llama"'):
        LlamaAdapterLora(base, write_random_adapter(tmp_path / "a.gguf", mamba))
    with pytest.raises(RuntimeError, match="do not fit: it was made for another one"):
        LlamaAdapterLora(base, write_random_adapter(tmp_path / "b.gguf", write_one_layer(tmp_path / "llama.gguf")))
    smaller = LlamaModel(write_one_layer(tmp_path / "smaller.gguf"))
    with pytest.raises(RuntimeError, match="was made for another one"):
        LlamaAdapterLora(smaller, write_random_adapter(tmp_path / "c.gguf", llama))


def test_models_without_weights_have_no_adapters(llama: Path, adapter_file: Path):
    for fields in ({"vocab_only": True}, {"no_alloc": True, "load_mode": LlamaLoadMode.NONE}):
        params = LlamaModelParams()
        for name, value in fields.items():
            setattr(params, name, value)
        with LlamaModel(llama, params) as model, pytest.raises(RuntimeError, match="without its weights"):
            LlamaAdapterLora(model, adapter_file)


def test_an_embedding_model_may_have_one(tmp_path: Path, new_context: NewContext):
    path = write_random_bert(tmp_path / "bert.gguf")
    model = LlamaModel(path)
    context = new_context(model, embeddings=True)
    context.set_adapters_lora([(LlamaAdapterLora(model, write_random_adapter(tmp_path / "a.gguf", path)), 1.0)])
    batch = LlamaBatch(8)
    batch.add_sequence([1, 6, 7, 2])
    assert context.decode(batch) == 0


def test_a_file_that_was_cut_anywhere_is_refused(base: LlamaModel, adapter_file: Path, tmp_path: Path):
    data, path = adapter_file.read_bytes(), tmp_path / "cut.gguf"
    header = gguf.GGUFReader(adapter_file).data_offset
    for end in [*range(4, header, 41), *range(header, len(data), 4999), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(RuntimeError, match="cannot load"):
            LlamaAdapterLora(base, path)


def test_noise_is_refused(base: LlamaModel, tmp_path: Path):
    rng = random.Random(1)
    path = tmp_path / "noise.gguf"
    for _ in range(50):
        path.write_bytes(b"GGUF\x03\0\0\0" + rng.randbytes(500))
        with pytest.raises(RuntimeError, match="cannot load"):
            LlamaAdapterLora(base, path)


def test_flipped_bits_of_the_header_never_take_the_process_along(
    llama: Path, adapter_file: Path, tmp_path: Path, in_process: Callable[..., str]
):
    code = f"""
import random
from pathlib import Path
logging.getLogger("cyllama.llama").setLevel(logging.CRITICAL)
data, rng, refused = bytearray(Path({str(adapter_file)!r}).read_bytes()), random.Random(7), 0
model = LlamaModel({str(llama)!r})
context = LlamaContext(model, params())
for _ in range(1500):
    damaged = data[:]
    for _ in range(rng.choice([1, 1, 1, 4])):
        damaged[rng.randrange({gguf.GGUFReader(adapter_file).data_offset})] ^= 1 << rng.randrange(8)
    with open({str(tmp_path / "flipped.gguf")!r}, "wb") as file:
        file.write(damaged)
    try:
        with LlamaAdapterLora(model, file.name) as adapter:
            context.set_adapters_lora([(adapter, 1.0)])
            context.kv_cache_clear()
            context.decode(batch_of())
            adapter.metadata, adapter.alora_invocation_tokens
    except (RuntimeError, ValueError):
        refused += 1
print(refused)
"""
    assert 100 < int(in_process(code)) < 1500


Q, K = "blk.0.attn_q.weight", "blk.0.attn_k.weight"


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, "no tensors of an adapter"),
        ({"output_norm.weight": zeros(64)}, "no tensors of an adapter"),
        ({"something": zeros(4, 64)}, "no tensors of an adapter"),
        ({f"{Q}.lora_a": zeros(4, 64)}, f"{Q}.lora_b is missing"),
        ({f"{Q}.lora_b": zeros(64, 4)}, f"{Q}.lora_a is missing"),
        ({f"{Q}.lora_a": zeros(4, 64), f"{Q}.lora_b": zeros(64, 4), "something": zeros(4)}, "unexpected suffix"),
        ({"blk.9.x.lora_a": zeros(4, 64), "blk.9.x.lora_b": zeros(64, 4)}, "the model has no tensor blk.9.x"),
        ({f"{Q}.lora_a.lora_a": zeros(4, 64), f"{Q}.lora_a.lora_b": zeros(64, 4)}, "the model has no tensor"),
        ({f"{Q}.lora_a": zeros(0, 64), f"{Q}.lora_b": zeros(64, 0)}, "do not fit"),
        ({f"{Q}.lora_a": zeros(4, 64), f"{Q}.lora_b": zeros(64, 5)}, "do not fit"),
        ({f"{Q}.lora_a": zeros(4, 32), f"{Q}.lora_b": zeros(64, 4)}, "do not fit"),
        ({f"{K}.lora_a": zeros(4, 64), f"{K}.lora_b": zeros(64, 4)}, "is 64x32 in the model"),
        ({f"{Q}.lora_a": zeros(2, 4, 64), f"{Q}.lora_b": zeros(64, 4)}, "do not fit"),
        ({f"{Q}.lora_a": zeros(2, 4, 64), f"{Q}.lora_b": zeros(2, 64, 4)}, "do not fit"),
        ({f"{Q}.lora_a": zeros(2, 1, 4, 64), f"{Q}.lora_b": zeros(2, 1, 64, 4)}, "do not fit"),
        ({"token_embd.weight.lora_a": zeros(1280, 4), "token_embd.weight.lora_b": zeros(64, 3)}, "do not fit"),
    ],
)
def test_tensors_that_llama_cpp_would_abort_on_are_refused(
    tensors: dict[str, np.ndarray], match: str, base: LlamaModel, tmp_path: Path
):
    with pytest.raises(RuntimeError, match=match):
        LlamaAdapterLora(base, write_adapter(tmp_path / "adapter.gguf", tensors))


@pytest.mark.parametrize("kind", ["I8", "I32", "F64"])
def test_types_that_nothing_is_multiplied_with_are_refused(kind: str, base: LlamaModel, tmp_path: Path):
    dtype = {"I8": np.int8, "I32": np.int32, "F64": np.float64}[kind]
    tensors = {f"{Q}.lora_a": np.zeros((4, 64), dtype), f"{Q}.lora_b": np.zeros((64, 4), dtype)}
    with pytest.raises(RuntimeError, match="has a type that cannot be computed with"):
        LlamaAdapterLora(base, write_adapter(tmp_path / "adapter.gguf", tensors))


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
def test_adapters_may_be_of_smaller_types(kind: str, base: LlamaModel, tmp_path: Path, new_context: NewContext):
    rng, quantization = np.random.default_rng(0), gguf.GGMLQuantizationType[kind]
    a, b = (rng.standard_normal(shape, np.float32) * 0.1 for shape in ((32, 64), (64, 32)))
    expected, got = new_context(base), new_context(base)
    plain = write_adapter(tmp_path / "plain.gguf", {f"{Q}.lora_a": a, f"{Q}.lora_b": b})
    expected.set_adapters_lora([(LlamaAdapterLora(base, plain), 1.0)])
    tensors = {f"{Q}.lora_a": gguf.quantize(a, quantization), f"{Q}.lora_b": gguf.quantize(b, quantization)}
    small = write_adapter(tmp_path / "small.gguf", tensors, dict.fromkeys(tensors, quantization))
    without = logits_of(got)
    got.set_adapters_lora([(LlamaAdapterLora(base, small), 1.0)])
    difference = np.abs(logits_of(got) - logits_of(expected)).max()
    assert difference < 0.5 * np.abs(logits_of(got) - without).max()


def test_embeddings_that_are_the_output_as_well_have_no_adapter(model: LlamaModel, tmp_path: Path):
    """The embedded model has no output matrix of its own."""
    width = model.n_embd
    tensors = {"token_embd.weight.lora_a": zeros(1280, 4), "token_embd.weight.lora_b": zeros(width, 4)}
    with pytest.raises(RuntimeError, match="used for more than the input"):
        LlamaAdapterLora(model, write_adapter(tmp_path / "adapter.gguf", tensors))


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("general.type", 7, gguf.GGUFValueType.UINT32),
        ("general.type", ["adapter"], gguf.GGUFValueType.ARRAY),
        ("general.type", "model", gguf.GGUFValueType.STRING),
        ("general.architecture", 7, gguf.GGUFValueType.UINT32),
        ("adapter.type", True, gguf.GGUFValueType.BOOL),
        ("adapter.type", "dora", gguf.GGUFValueType.STRING),
        ("adapter.lora.alpha", "8", gguf.GGUFValueType.STRING),
        ("adapter.lora.alpha", 8, gguf.GGUFValueType.UINT32),
        ("adapter.lora.alpha", float("nan"), gguf.GGUFValueType.FLOAT32),
        ("adapter.alora.invocation_tokens", "x", gguf.GGUFValueType.STRING),
        ("adapter.alora.invocation_tokens", ["x"], gguf.GGUFValueType.ARRAY),
    ],
)
def test_metadata_that_llama_cpp_would_abort_on_is_refused(
    key: str, value: object, kind: gguf.GGUFValueType, base: LlamaModel, tmp_path: Path
):
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}
    for name, usual in values.items():
        if name != key:
            usual_kind = gguf.GGUFValueType.STRING if isinstance(usual, str) else gguf.GGUFValueType.FLOAT32
            writer.add_key_value(name, usual, usual_kind)
    writer.kv_data[0].pop(key, None)
    writer.add_key_value(key, value, kind)
    writer.add_tensor(f"{Q}.lora_a", zeros(4, 64))
    writer.add_tensor(f"{Q}.lora_b", zeros(64, 4))
    finish(writer, path)
    with pytest.raises(RuntimeError, match="cannot load the adapter"):
        LlamaAdapterLora(base, path)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(kind: str, value: float, base: LlamaModel, tmp_path: Path):
    quantization = gguf.GGMLQuantizationType[kind]
    a, b = np.ones((32, 64), np.float32), np.ones((64, 32), np.float32)
    b[-1, -1] = value
    with np.errstate(all="ignore"):
        tensors = {f"{Q}.lora_a": gguf.quantize(a, quantization), f"{Q}.lora_b": gguf.quantize(b, quantization)}
    with pytest.raises(RuntimeError, match="has values that are not finite numbers"):
        LlamaAdapterLora(base, write_adapter(tmp_path / "adapter.gguf", tensors, dict.fromkeys(tensors, quantization)))


def test_text_of_the_file_may_be_any_bytes(base: LlamaModel, adapter_file: Path, tmp_path: Path):
    path = tmp_path / "name.gguf"
    path.write_bytes(adapter_file.read_bytes().replace(b"random-1", b"\xff\xfe\xfd\xfc--- "))
    assert LlamaAdapterLora(base, path).metadata["general.name"].startswith("\ufffd")
    path.write_bytes(adapter_file.read_bytes().replace(b"attn_q", b"\xff\xfe\xfd\xfc--"))
    with pytest.raises(RuntimeError, match="the model has no tensor"):
        LlamaAdapterLora(base, path)


def test_a_hundred_adapters_at_once(base: LlamaModel, adapter_file: Path, new_context: NewContext):
    context = new_context(base)
    context.set_adapters_lora([(LlamaAdapterLora(base, adapter_file), 0.001) for _ in range(100)])
    logits_of(context)


def test_loading_again_and_again_does_not_grow(llama: Path, adapter_file: Path, in_process: Callable[..., str]):
    code = f"""
import ctypes, resource
def rss():  # of what is in use: malloc keeps free memory back, more or less of it by chance
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
model = LlamaModel({str(llama)!r})
context = LlamaContext(model, params())
def once(i):
    adapter = LlamaAdapterLora(model, {str(adapter_file)!r})
    context.set_adapters_lora([(adapter, 1 + i)])
    context.kv_cache_clear()
    context.decode(batch_of())
for i in range(20):
    once(i)
before = rss()
for i in range(1000):
    once(i)
print(rss() - before)
"""
    if Path("/proc/self/statm").exists():
        assert int(in_process(code)) < 15_000_000  # 1000 adapters have 30 MB
