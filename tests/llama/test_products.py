"""Products with repacked matrices: as many tokens as there may be in a batch, the same as with matrices as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, LlamaModelParams

from ..support.contexts import make_params
from ..support.random_models import write_one_layer

N_VOCAB = 504  # in blocks of 8 columns, not in chunks of equal size


def assert_same_products(repacked: np.ndarray, plain: np.ndarray) -> None:
    """Compare logits that were computed with the same matrices in two layouts.

    Both round activations to 8 bits. Where two sums differ in their last bit, a value may be rounded the other way, by
    a step of 1/127 of the largest in its block of 32, and the products after it inherit that. So single logits may
    differ by a few such steps, on any processor. A wrong column, block or row would change its
    logits by their whole size.
    """
    size = plain.std()
    assert size > 0.5
    difference = np.abs(repacked - plain)
    assert difference.max() < size * 8 / 127
    assert np.sqrt((difference**2).mean(axis=1)).max() < size * 2 / 127


def logits(path: Path, tokens: list[int], *, repacked: bool, n_threads: int) -> np.ndarray:
    """Return the logits after every token."""
    model_params = LlamaModelParams()
    model_params.use_extra_bufts = repacked
    params = make_params(n_outputs_max=len(tokens), n_threads=n_threads, n_threads_batch=n_threads)
    with LlamaModel(path, model_params) as model, LlamaContext(model, params) as context:
        batch = LlamaBatch(len(tokens))
        for position, token in enumerate(tokens):
            batch.add(token, position, logits=True)
        assert context.decode(batch) == 0
        return np.array([context.get_logits_ith(i) for i in range(len(tokens))])


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 4, 5, 7, 8, 11, 12, 15, 16, 17, 31, 50])
def test_repacked_matrices_multiply_like_others(tmp_path: Path, n_tokens: int, n_threads: int):
    path = write_one_layer(tmp_path / "llama.gguf", n_vocab=N_VOCAB, n_head=4, head_width=24, n_ff=320, quantized=True)
    tokens = np.random.default_rng(n_tokens).integers(0, N_VOCAB, n_tokens).tolist()
    repacked = logits(path, tokens, repacked=True, n_threads=n_threads)
    plain = logits(path, tokens, repacked=False, n_threads=n_threads)
    assert_same_products(repacked, plain)


def test_rows_too_long_for_the_kernels_are_left_to_llama_cpp(tmp_path: Path):
    path = write_one_layer(
        tmp_path / "llama.gguf", n_vocab=N_VOCAB, n_head=4, head_width=24, n_ff=512 * 32 + 32, quantized=True
    )
    tokens = list(range(1, 10))
    repacked = logits(path, tokens, repacked=True, n_threads=2)
    assert_same_products(repacked, logits(path, tokens, repacked=False, n_threads=2))
