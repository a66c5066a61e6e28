"""LoRA adapters: loading, setting, closing in any order, and every file that is none."""

from __future__ import annotations

import gc
import itertools
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LlamaAdapterLora,
    LlamaBatch,
    LlamaContext,
    LlamaFlashAttnType,
    LlamaLoadMode,
    LlamaModel,
    LlamaModelParams,
)

from ..support.random_models import (
    ARCHITECTURES,
    finish,
    write_adapter,
    write_merged_model,
    write_one_layer,
    write_random_adapter,
    write_random_bert,
    write_random_model,
)

NewContext = Callable[..., LlamaContext]
TOKENS = [300, 400, 500, 301, 402, 777]


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


def logits_of(context: LlamaContext) -> np.ndarray:
    batch = LlamaBatch(len(TOKENS))
    batch.add_sequence(TOKENS)
    context.kv_cache_clear()
    assert context.decode(batch) == 0
    return np.array(context.get_logits_ith(-1))


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


def test_a_scale_of_0_is_none(base: LlamaModel, adapter: LlamaAdapterLora, new_context: NewContext):
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


# -------------------------------------------------------------------------------------------- files that are no adapter


def test_paths_that_are_no_file(base: LlamaModel, tmp_path: Path):
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


def test_a_model_is_no_adapter(base: LlamaModel, llama: Path, adapter_file: Path):
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
def test_values_that_are_no_numbers_are_refused(kind: str, value: float, base: LlamaModel, tmp_path: Path):
    quantization = gguf.GGMLQuantizationType[kind]
    a, b = np.ones((32, 64), np.float32), np.ones((64, 32), np.float32)
    b[-1, -1] = value
    with np.errstate(all="ignore"):
        tensors = {f"{Q}.lora_a": gguf.quantize(a, quantization), f"{Q}.lora_b": gguf.quantize(b, quantization)}
    with pytest.raises(RuntimeError, match="has values that are no finite numbers"):
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
