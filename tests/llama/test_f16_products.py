"""Products of matrices of 16-bit floats: with many rows (tokens) at once as with each alone, which ggml computes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel

from ..support.contexts import make_params
from ..support.products import N_EMBEDDED, logits, write_model

KINDS = {"F16": gguf.GGMLQuantizationType.F16, "BF16": gguf.GGMLQuantizationType.BF16}


def write(path: Path, name: str, matrix: np.ndarray) -> Path:
    """Write a model whose logits are the normalized embedding of the token, times a matrix of 16-bit floats."""
    halves = matrix.astype(np.float16) if name == "F16" else (matrix.view(np.uint32) >> 16).astype(np.uint16)
    width = matrix.shape[1]
    embedded = np.random.default_rng(1).standard_normal((N_EMBEDDED, width))
    return write_model(path, halves.view(np.uint8), KINDS[name], width, embedded)


def logits_alone(path: Path) -> np.ndarray:
    """Return the logits after each token, evaluated alone."""
    with LlamaModel(path) as model, LlamaContext(model, make_params()) as context:
        result = []
        for token in range(N_EMBEDDED):
            batch = LlamaBatch(1)
            batch.add(token, token, logits=True)
            assert context.decode(batch) == 0
            result.append(np.array(context.get_logits_ith(0)))
        return np.array(result)


def check(path: Path, name: str, matrix: np.ndarray, counts: list[int], n_threads: int) -> None:
    """Compare products with those of each token alone.

    Both multiply the same numbers of 16 bits; what differs is the order in which 32-bit floats are added. Partial sums
    have random signs, so that the error is far below this bound, and the largest of all products is far above it.
    """
    write(path, name, matrix)
    alone = logits_alone(path)
    bound = 32 * 2.0**-24 * np.abs(matrix).sum(axis=1)
    for n_tokens, together in zip(counts, logits(path, counts, n_threads), strict=True):
        difference = np.abs(together - alone[np.arange(n_tokens) % N_EMBEDDED])
        assert (difference <= bound).all(), n_tokens


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model of each example is written."""
    return tmp_path_factory.mktemp("products") / "model.gguf"


def random_matrix(n_columns: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_columns, width)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(KINDS)),
    n_columns=st.integers(N_EMBEDDED, 300),
    width=st.one_of(st.integers(1, 40).map(lambda n: 8 * n), st.integers(8, 100)),
    n_tokens=st.integers(2, 100),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_tokens_together_get_the_products_of_each_alone(
    path: Path, name: str, n_columns: int, width: int, n_tokens: int, n_threads: int, seed: int
):
    check(path, name, random_matrix(n_columns, width, seed), [n_tokens], n_threads)


@pytest.mark.parametrize("n_columns", [96, 101])
@pytest.mark.parametrize("name", KINDS)
def test_any_number_of_tokens(path: Path, name: str, n_columns: int):
    check(path, name, random_matrix(n_columns, 608, 0), [*range(2, 41), 63, 64, 65, 96, 97, 130], 2)


@pytest.mark.parametrize("name", KINDS)
def test_rows_longer_than_what_is_fetched_ahead(path: Path, name: str):
    check(path, name, random_matrix(37, 16 * 1024 + 32, 0), [2, 7], 1)


@pytest.mark.parametrize("name", KINDS)
def test_numbers_that_are_not_finite_stay_in_their_columns(path: Path, name: str):
    matrix = random_matrix(64, 96, 0)
    for column, number in ((3, np.inf), (17, -np.inf), (42, np.nan), (63, np.inf)):
        matrix[column, 7 * column % 96] = number
    write(path, name, matrix)
    alone = logits_alone(path)
    assert np.flatnonzero(~np.isfinite(alone[0])).tolist() == [3, 17, 42, 63]
    for together in logits(path, (2, 5, 13), 1):
        np.testing.assert_allclose(together, alone[: len(together)], rtol=1e-4, atol=1e-4)
