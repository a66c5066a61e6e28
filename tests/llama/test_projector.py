"""Projectors: images as embeddings of a model, and every file that is not a projector."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LlamaBatch,
    LlamaContext,
    LlamaEmbeddings,
    LlamaModel,
    LlamaProjector,
    LlamaSampler,
    projector_memory,
)
from cyllama.models import TINY_CHAT

from ..support.contexts import NewContext, logits, make_params
from ..support.random_models import finish, write_random_model
from ..support.random_projector import n_image_tokens, write_random_projector

ARCHITECTURES = {"llava": "llama", "gemma3": "gemma3"}


class Sight(NamedTuple):
    """A model with its projector."""

    kind: str
    model: LlamaModel
    projector: LlamaProjector
    folder: Path

    def embeddings(self, seed: int = 0, width: int = 40, height: int = 30) -> LlamaEmbeddings:
        """Return the embeddings of an image of noise."""
        return self.projector.encode(self.projector.prepare(pixels(seed, width, height), width, height))


def pixels(seed: int, width: int = 40, height: int = 30) -> bytes:
    """Return the pixels of an image of noise."""
    return np.random.default_rng(seed).integers(0, 256, 3 * width * height, dtype=np.uint8).tobytes()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def sight(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sight]:
    """A causal model, and one whose images attend in both directions."""
    kind, folder = request.param, tmp_path_factory.mktemp("sight")
    path = write_random_model(folder / "model.gguf", ARCHITECTURES[kind], endless=True)
    with LlamaModel(path) as model:
        file = write_random_projector(folder / "mmproj.gguf", kind)
        yield Sight(kind, model, LlamaProjector(model, file, n_threads=1), folder)


def after_image(context: LlamaContext, sight: Sight, image: LlamaEmbeddings) -> np.ndarray:
    """Return the logits after an image and a few tokens."""
    context.kv_cache_clear()
    batch = LlamaBatch(64)
    batch.set_embeddings(image, 0, len(image), whole=sight.projector.non_causal)
    assert context.decode(batch) == 0
    batch.clear()
    batch.add_sequence([300, 400], len(image))
    assert context.decode(batch) == 0
    return np.array(logits(context))


# -------------------- images


def test_an_image_becomes_tokens_and_what_follows_depends_on_it(sight: Sight, new_context: NewContext):
    context, image = new_context(sight.model), sight.embeddings(1)
    assert len(image) == n_image_tokens(sight.kind)
    assert image.n_embd == sight.projector.n_embd == sight.model.n_embd
    assert image.nbytes == 4 * len(image) * image.n_embd
    first = after_image(context, sight, image)
    np.testing.assert_allclose(after_image(context, sight, sight.embeddings(1)), first, atol=1e-5)
    assert np.abs(after_image(context, sight, sight.embeddings(2)) - first).max() > 0.1


def test_the_parts_of_an_image_are_tokens_of_the_model_and_numbers_of_embeddings(sight: Sight):
    image = sight.projector.prepare(pixels(0), 40, 30)
    numbers = [part for part in image.parts if isinstance(part, int)]
    assert sum(numbers) == image.n_tokens == n_image_tokens(sight.kind)
    texts = [sight.model.vocab.detokenize(part).decode() for part in image.parts if not isinstance(part, int)]
    assert texts == ([] if sight.kind == "llava" else ["<start_of_image>", "<end_of_image>"])


def test_tokens_of_an_image_attend_to_later_ones_where_the_model_wants_it(sight: Sight, new_context: NewContext):
    context, image, n = new_context(sight.model), sight.embeddings(3), n_image_tokens(sight.kind)

    def after(first: int, whole: bool) -> np.ndarray:
        context.kv_cache_clear()
        batch = LlamaBatch(64)
        for begin, end in ((0, first), (first, n)):
            batch.clear()
            batch.set_embeddings(image, begin, end - begin, begin, logits_last=True, whole=whole)
            assert context.decode(batch) == 0
        return np.array(logits(context))

    np.testing.assert_allclose(after(n // 2, whole=False), after(1, whole=False), atol=0.05)
    assert np.abs(after(n // 2, whole=True) - after(1, whole=True)).max() > 0.05
    assert sight.projector.non_causal == (sight.kind == "gemma3")


def test_an_image_can_be_sampled_from(sight: Sight, new_context: NewContext):
    context, image = new_context(sight.model), sight.embeddings()
    batch = LlamaBatch(len(image))
    batch.set_embeddings(image, 0, len(image), logits_last=True, whole=sight.projector.non_causal)
    status, tokens, errors = context.decode_and_sample(batch, [(len(image) - 1, LlamaSampler.greedy())])
    assert (status, tokens, errors) == (0, [int(logits(context).argmax())], {})


@pytest.mark.parametrize(("width", "height"), [(1, 1), (200, 1), (1, 200), (31, 33), (640, 480)])
def test_any_size_is_scaled_to_that_of_the_projector(sight: Sight, width: int, height: int):
    assert len(sight.embeddings(0, width, height)) == n_image_tokens(sight.kind)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (201, 1), (1, 201), (2**13, 2**13 + 1), (2**31, 2)])
def test_sizes_that_no_image_has(sight: Sight, width: int, height: int):
    with pytest.raises(ValueError, match=rf"not {width} x {height}"):
        sight.projector.prepare(b"", width, height)


def test_pixels_of_another_size(sight: Sight):
    with pytest.raises(ValueError, match="an image of 5 x 4 pixels has 60 bytes, not 59"):
        sight.projector.prepare(bytes(59), 5, 4)


def test_threads_prepare_and_encode_at_once(sight: Sight, new_context: NewContext):
    expected = [after_image(new_context(sight.model), sight, sight.embeddings(seed)) for seed in range(3)]
    images: dict[int, LlamaEmbeddings] = {}

    def encode(i: int) -> None:
        images[i] = sight.embeddings(i % 3)

    threads = [threading.Thread(target=encode, args=(i,)) for i in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context = new_context(sight.model)
    for i, image in images.items():
        np.testing.assert_allclose(after_image(context, sight, image), expected[i % 3], atol=1e-5)


# -------------------- batches


def test_a_batch_holds_tokens_or_embeddings(sight: Sight, new_context: NewContext):
    image, batch = sight.embeddings(), LlamaBatch(32)
    batch.set_embeddings(image, 0, 2)
    for add in (lambda: batch.add(1, 2), lambda: batch.set_embeddings(image, 0, 1)):
        with pytest.raises(ValueError, match="a batch of their own"):
            add()
    batch.clear()
    batch.add(1, 0)
    with pytest.raises(ValueError, match="a batch of their own"):
        batch.set_embeddings(image, 0, 1)
    assert new_context(sight.model).decode(batch) == 0


def test_ranges_of_embeddings(sight: Sight):
    image, batch = sight.embeddings(), LlamaBatch(3)
    for first, n in ((-1, 1), (0, 0), (0, len(image) + 1), (len(image), 1), (len(image) - 1, 2)):
        with pytest.raises(ValueError, match=r"must be (from|at)|from -?\d+ to"):
            batch.set_embeddings(image, first, n)
    with pytest.raises(ValueError, match="no space"):
        batch.set_embeddings(image, 0, 4)
    assert len(batch) == 0


def test_what_attends_to_itself_has_to_fit_into_one_pass(sight: Sight, new_context: NewContext):
    image = sight.embeddings()
    context = new_context(sight.model, n_batch=64, n_ubatch=len(image) - 1)
    batch = LlamaBatch(64)
    batch.set_embeddings(image, 0, len(image), whole=True)
    with pytest.raises(ValueError, match=f"more than n_ubatch={len(image) - 1}"):
        context.decode(batch)
    batch.clear()
    batch.set_embeddings(image, 0, len(image))
    assert context.decode(batch) == 0


def test_embeddings_of_another_model(sight: Sight, new_context: NewContext):
    batch, image = LlamaBatch(32), sight.embeddings()
    batch.set_embeddings(image, 0, 2)
    with pytest.raises(ValueError, match=r"the embeddings have 64 numbers, and those of the model \d+"):
        new_context().decode(batch)


# -------------------- the life of a projector


def test_a_closed_model_closes_its_projectors(sight: Sight):
    model = LlamaModel(sight.folder / "model.gguf")
    projector = LlamaProjector(model, sight.folder / "mmproj.gguf", n_threads=1)
    image = projector.prepare(pixels(0), 40, 30)
    embeddings = projector.encode(image)
    model.close()
    with pytest.raises(RuntimeError, match="the projector is closed"):
        projector.encode(image)
    with pytest.raises(RuntimeError, match="the model is closed"):
        projector.prepare(pixels(0), 40, 30)
    assert len(embeddings) == n_image_tokens(sight.kind)


def test_an_image_belongs_to_the_projector_that_prepared_it(sight: Sight):
    other = LlamaProjector(sight.model, sight.folder / "mmproj.gguf", n_threads=1)
    with pytest.raises(ValueError, match="prepared by another projector"):
        other.encode(sight.projector.prepare(pixels(0), 40, 30))


# -------------------- files


def test_paths_that_are_not_files(sight: Sight, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        LlamaProjector(sight.model, tmp_path / "missing.gguf")
    with pytest.raises(IsADirectoryError):
        LlamaProjector(sight.model, tmp_path)
    (tmp_path / "text.gguf").write_text("This is no projector.")
    with pytest.raises(ValueError, match="not a GGUF file"):
        LlamaProjector(sight.model, tmp_path / "text.gguf")


def test_a_model_is_not_a_projector_nor_a_projector_a_model(sight: Sight):
    with pytest.raises(RuntimeError, match="it is a model of architecture"):
        LlamaProjector(sight.model, sight.folder / "model.gguf")
    with pytest.raises(RuntimeError, match="CLIP cannot be used as main model"):
        LlamaModel(sight.folder / "mmproj.gguf")


def test_a_projector_of_another_model(sight: Sight, tmp_path: Path):
    path = write_random_projector(tmp_path / "mmproj.gguf", sight.kind, n_embd=48)
    with pytest.raises(RuntimeError, match=r"mismatch between text model \(n_embd = 64\) and mmproj \(n_embd = 48\)"):
        LlamaProjector(sight.model, path)


def test_a_model_whose_positions_have_several_dimensions(sight: Sight, tmp_path: Path):
    source = gguf.GGUFReader(write_random_model(tmp_path / "llama.gguf", "llama"))
    writer = gguf.GGUFWriter(tmp_path / "qwen2vl.gguf", "qwen2vl")
    for key, field in source.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind, item = field.types[0], field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key.replace("llama.", "qwen2vl."), field.contents(), kind, sub_type=item)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    for tensor in source.tensors:
        writer.add_tensor(tensor.name, tensor.data)
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight")):
            writer.add_tensor(tensor.name.replace("weight", "bias"), np.zeros(tensor.data.shape[0], np.float32))
    with LlamaModel(finish(writer, tmp_path / "qwen2vl.gguf")) as model:
        with pytest.raises(RuntimeError, match=r"positions of several dimensions \(M-RoPE\)"):
            LlamaProjector(model, write_random_projector(tmp_path / "mmproj.gguf", "llava"))
        batch, context = LlamaBatch(32), LlamaContext(model, make_params())
        batch.set_embeddings(sight.embeddings(), 0, 2)
        with pytest.raises(ValueError, match="takes no embeddings of images"):
            context.decode(batch)


def attempt(sight: Sight, path: Path) -> str:
    """Encode an image with a projector, after telling its memory; return "" or why it failed."""
    with suppress(RuntimeError, ValueError, MemoryError):
        projector_memory(path, use_gpu=False)
    try:
        projector = LlamaProjector(sight.model, path, n_threads=1)
        projector.encode(projector.prepare(pixels(0), 40, 30))
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "name",
    [
        "image_size",
        "patch_size",
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "projection_dim",
        "attention.head_count",
        "projector.scale_factor",
    ],
)
def test_numbers_of_the_metadata_that_cannot_be(sight: Sight, tmp_path: Path, name: str):
    for value in (None, 0, 1, 3, 7, 31, 33, 64, 1 << 12, (1 << 31) - 1, (1 << 32) - 1):
        path = write_random_projector(tmp_path / "mmproj.gguf", sight.kind, numbers={name: value})
        reason = attempt(sight, path)
        if value is not None and value > 1 << 30:
            assert f"clip.vision.{name} is {value}" in reason


def test_a_projector_without_one_of_its_tensors(sight: Sight, tmp_path: Path):
    names = [tensor.name for tensor in gguf.GGUFReader(sight.folder / "mmproj.gguf").tensors]
    reasons = {
        name: attempt(sight, write_random_projector(tmp_path / "mmproj.gguf", sight.kind, without=[name]))
        for name in names
    }
    # Biases, norms and learned positions are optional, and not every projector uses the last layer.
    needed = {name: why for name, why in reasons.items() if not re.search(r"bias|ln|position|blk\.1", name)}
    assert len(needed) > 8
    assert all(needed.values()), needed


def test_a_projector_with_tensors_of_another_type(sight: Sight, tmp_path: Path):
    for tensor in gguf.GGUFReader(sight.folder / "mmproj.gguf").tensors:
        path = write_random_projector(tmp_path / "mmproj.gguf", sight.kind, half=[tensor.name])
        reason = attempt(sight, path)
        assert not reason or "cannot be computed" in reason or "a check of llama.cpp failed" in reason, tensor.name


DAMAGE = """
import random
from pathlib import Path
logging.getLogger("cyllama").setLevel(logging.CRITICAL)
model, folder, header = LlamaModel({model!r}), Path({folder!r}), {header}
good, path, n_refused = (folder / "mmproj.gguf").read_bytes(), folder / "damaged.gguf", 0
for seed in range(300):
    chance, data = random.Random(seed), bytearray(good)
    if seed % 10 == 0:
        data = data[: chance.randrange(len(data))]
    for _ in range(chance.choice([0, 1, 1, 4])):
        if data:
            place = chance.randrange(min(header if seed % 4 else len(data), len(data)))
            data[place] = chance.randrange(256) if seed % 2 else data[place] ^ 1 << chance.randrange(8)
    path.write_bytes(data)
    try:
        projector = LlamaProjector(model, path, n_threads=1)
        projector.encode(projector.prepare(bytes(range(240)) * 15, 40, 30))
    except (RuntimeError, ValueError):
        n_refused += 1
print(n_refused)
"""


def test_no_damaged_file_ends_the_process(sight: Sight, in_process: Callable[..., str]):
    header = gguf.GGUFReader(sight.folder / "mmproj.gguf").data_offset
    code = DAMAGE.format(model=str(sight.folder / "model.gguf"), folder=str(sight.folder), header=header)
    assert int(in_process(code)) > 100


# -------------------- memory


def test_the_memory_of_a_projector_is_told(sight: Sight):
    path = sight.folder / "mmproj.gguf"
    told = projector_memory(path, use_gpu=False)
    assert [*told] == ["CPU"]
    weights = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
    wide = write_random_projector(sight.folder / "wide.gguf", sight.kind, n_ff=2048)
    assert weights < told["CPU"] < projector_memory(wide, use_gpu=False)["CPU"]


def test_the_memory_of_what_is_no_projector_is_an_error(sight: Sight, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        projector_memory(tmp_path / "missing.gguf", use_gpu=False)
    (tmp_path / "text.gguf").write_text("This is no projector.")
    with pytest.raises(ValueError, match="not a GGUF file"):
        projector_memory(tmp_path / "text.gguf", use_gpu=False)
    with pytest.raises(RuntimeError, match=r"cannot tell the memory of .*it is a model of architecture"):
        projector_memory(sight.folder / "model.gguf", use_gpu=False)
    path = write_random_projector(tmp_path / "mmproj.gguf", sight.kind, without=["v.patch_embd.weight"])
    with pytest.raises(RuntimeError, match=r"cannot tell the memory of .*a tensor is missing"):
        projector_memory(path, use_gpu=False)


def test_too_little_memory_is_an_error(tmp_path: Path, in_process: Callable[..., str]):
    """On a GPU where the model has taken all as well. mtmd would use a buffer that it could not allocate."""
    with LlamaModel(TINY_CHAT) as model:
        path = write_random_projector(tmp_path / "mmproj.gguf", "llava", n_embd=model.n_embd, n_ff=2**17)
    code = f"""
import resource
logging.disable()
def limit(mib):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    most = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (most if mib is None else size + (mib << 20), most))
def start():
    return LlamaProjector(model, {str(path)!r}, n_threads=1)
model = load()
limit(32)
print(raised(start))
print(raised(lambda: projector_memory({str(path)!r}, use_gpu=False)))
limit(None)
projector = start()
image = projector.prepare(bytes(3 * 40 * 30), 40, 30)
limit(4)
for _ in range(2): print(raised(projector.encode, image))
limit(None)
print(len(projector.encode(image)))
"""
    load, measure, first, second, whole = in_process(code).splitlines()
    assert load.startswith("RuntimeError: cannot load the projector")
    assert measure.startswith("MemoryError: cannot tell the memory of the projector")
    assert "no memory for its tensors on CPU" in load
    assert first == second
    assert first.startswith("RuntimeError: the image cannot be encoded: ")
    assert first.endswith("no memory for an image on CPU")
    assert int(whole) == n_image_tokens("llava")
