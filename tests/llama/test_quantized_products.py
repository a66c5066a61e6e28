"""Products of quantized matrices: kernels of cyllama's own multiply as ggml's functions do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..support.products import N_EMBEDDED, logits, write_model

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q6_K")
#: Of each type, the bytes of a block, and where its 16-bit scales are.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208]}
#: Of each type, where the values are in a block.
VALUES = {
    "Q4_0": slice(2, 18),
    "Q4_1": slice(4, 20),
    "Q5_0": slice(2, 22),
    "Q8_0": slice(2, 34),
    "Q4_K": slice(16, 144),
    "Q6_K": slice(0, 192),
}


def random_matrix(kind: gguf.GGMLQuantizationType, n_columns: int, width: int, seed: int) -> np.ndarray:
    """Return the bytes of a matrix, a line for each column: any bits, with scales of a usual size."""
    rng = np.random.default_rng(seed)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (n_columns, width // block, size), np.uint8)
    for place in SCALES[kind.name]:
        scales = rng.uniform(-0.01, 0.01, (n_columns, width // block, 1)).astype(np.float16)
        blocks[:, :, place : place + 2] = scales.view(np.uint8)
    return blocks.reshape(n_columns, -1)


def extreme_matrix(kind: gguf.GGMLQuantizationType, n_columns: int, width: int) -> np.ndarray:
    """Return the bytes of a matrix whose columns have the least value of the type and the greatest in turn."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random_matrix(kind, n_columns, width, 0).reshape(n_columns, width // block, size)
    least, greatest = (0x80, 0x7F) if kind.name == "Q8_0" else (0x00, 0xFF)
    blocks[::2, :, VALUES[kind.name]] = least
    blocks[1::2, :, VALUES[kind.name]] = greatest
    return blocks.reshape(n_columns, -1)


def random_embeddings(width: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((N_EMBEDDED, width)).astype(np.float32)


def extreme_embeddings(width: int) -> np.ndarray:
    """Return embeddings whose values all are 127 or -127 in 8 bits: all of one sign, or of random signs."""
    embeddings = np.sign(random_embeddings(width))
    embeddings[::3] = 1
    embeddings[1::3] = -1
    return embeddings


def check(
    folder: Path,
    kind: gguf.GGMLQuantizationType,
    matrix: np.ndarray,
    embedded: np.ndarray,
    n_tokens: Collection[int],
    n_threads: int,
) -> None:
    """Compare products with a matrix without its last column with those of all, which no kernel of cyllama's handles.

    Both multiply the same integers; what differs is the order in which 32-bit floats are added.
    """
    width = embedded.shape[1]
    ours = write_model(folder / "ours.gguf", matrix[:-1], kind, width, embedded)
    ggml = write_model(folder / "ggml.gguf", matrix, kind, width, embedded)
    for mine, other in zip(logits(ours, n_tokens, n_threads), logits(ggml, n_tokens, n_threads), strict=True):
        assert other.std() > 0.01
        assert np.abs(mine - other[:, :-1]).max() < 1e-4 * np.abs(other).max()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models of all examples are written."""
    return tmp_path_factory.mktemp("products")


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(TYPES),
    n_columns=st.one_of(st.integers(2, 30).map(lambda n: 16 * n), st.integers(N_EMBEDDED, 400)),
    n_blocks=st.integers(1, 5),
    n_tokens=st.integers(1, 40),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_products_are_those_of_ggml(
    folder: Path, name: str, n_columns: int, n_blocks: int, n_tokens: int, n_threads: int, seed: int
):
    kind = gguf.GGMLQuantizationType[name]
    width = n_blocks * gguf.GGML_QUANT_SIZES[kind][0]
    matrix = random_matrix(kind, n_columns + 1, width, seed)
    check(folder, kind, matrix, random_embeddings(width), [n_tokens], n_threads)


@pytest.mark.parametrize("n_columns", [96, 88])
@pytest.mark.parametrize("name", TYPES)
def test_any_number_of_tokens(folder: Path, name: str, n_columns: int):
    kind = gguf.GGMLQuantizationType[name]
    check(folder, kind, random_matrix(kind, n_columns + 1, 768, 0), random_embeddings(768), range(1, 41), 2)


@pytest.mark.parametrize("name", TYPES)
def test_extreme_values_do_not_overflow(folder: Path, name: str):
    kind = gguf.GGMLQuantizationType[name]
    check(folder, kind, extreme_matrix(kind, 49, 512), extreme_embeddings(512), [1, 2, 4, 8, 16, 40], 1)


@pytest.mark.parametrize("name", TYPES)
def test_rows_longer_than_a_kernel_multiplies_at_once(folder: Path, name: str):
    kind = gguf.GGMLQuantizationType[name]
    width = 8192 + 512
    check(folder, kind, random_matrix(kind, 49, width, 0), random_embeddings(width), [6], 1)
