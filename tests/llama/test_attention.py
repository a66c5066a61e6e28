"""Flash attention: every token attends to its own sequence, whatever shares the batch and the KV cache with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import GGMLType, LlamaBatch, LlamaContext, LlamaFlashAttnType, LlamaModel

from ..support.contexts import make_params
from ..support.random_models import write_one_layer

N_SEQUENCES, N_CTX, ROUNDING = 5, 1024, 0.03


class Shape(NamedTuple):
    n_head: int
    n_head_kv: int
    head_width: int


SHAPES = (Shape(4, 4, 8), Shape(14, 2, 16), Shape(6, 1, 20), Shape(72, 1, 4), Shape(1, 1, 80))


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = tmp_path_factory.mktemp("attention") / "llama.gguf"
    write_one_layer(path, n_vocab=500, **request.param._asdict())
    with LlamaModel(path) as model:
        yield model


class Step(NamedTuple):
    """What happens to the sequences: a rollback of one, a copy of one over another, tokens for each."""

    rollback: int
    source: int
    target: int
    n_tokens: list[int]


STEPS = st.lists(
    st.builds(
        Step,
        rollback=st.integers(0, 30),
        source=st.integers(0, N_SEQUENCES - 1),
        target=st.integers(0, N_SEQUENCES - 1),
        n_tokens=st.lists(st.sampled_from([0, 1, 1, 1, 2, 9, 70]), min_size=N_SEQUENCES, max_size=N_SEQUENCES),
    ),
    min_size=1,
    max_size=6,
)


def outputs(
    model: LlamaModel, flash_attn: LlamaFlashAttnType, n_threads: int, kv: GGMLType, steps: list[Step]
) -> np.ndarray:
    """Return the logits after each sequence's part of each batch."""
    params = make_params(n_ctx=N_CTX, n_batch=N_CTX, n_ubatch=N_CTX, n_seq_max=N_SEQUENCES, n_outputs_max=N_SEQUENCES)
    params.kv_unified, params.flash_attn_type = True, flash_attn
    params.n_threads = params.n_threads_batch = n_threads
    params.type_k, params.type_v = kv, kv
    tokens, lengths, logits = np.random.default_rng(0), [0] * N_SEQUENCES, []
    with LlamaContext(model, params) as context:
        batch = LlamaBatch(N_CTX)
        for step in steps:
            lengths[step.source] = max(0, lengths[step.source] - step.rollback)
            context.seq_rm(step.source, lengths[step.source])
            if step.source != step.target:
                context.seq_rm(step.target)
                context.seq_cp(step.source, step.target)
                lengths[step.target] = lengths[step.source]
            batch.clear()
            last = []
            for sequence, n in enumerate(step.n_tokens):
                if n and sum(lengths) + n < N_CTX:
                    batch.add_sequence(tokens.integers(0, 500, n).tolist(), lengths[sequence], sequence)
                    lengths[sequence] += n
                    last.append(len(batch) - 1)
            if last:
                assert context.decode(batch) == 0
                logits += [np.asarray(context.get_logits_ith(i)) for i in last]
    return np.array(logits)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(1, 3), st.sampled_from([GGMLType.F16, GGMLType.F16, GGMLType.F32]))
def test_attention_is_what_it_is_without_flash(model: LlamaModel, steps: list[Step], n_threads: int, kv: GGMLType):
    flash = outputs(model, LlamaFlashAttnType.ENABLED, n_threads, kv, steps)
    plain = outputs(model, LlamaFlashAttnType.DISABLED, n_threads, kv, steps)
    assert flash.shape == plain.shape
    np.testing.assert_allclose(flash, plain, atol=ROUNDING)


def test_a_quantized_kv_cache_is_left_to_llama_cpp(tmp_path: Path):
    steps = [Step(0, 0, 0, [70, 9, 1, 0, 2]), Step(3, 0, 3, [1, 1, 1, 1, 1])]
    with LlamaModel(
        write_one_layer(tmp_path / "llama.gguf", n_vocab=500, n_head=4, n_head_kv=2, head_width=32)
    ) as model:
        quantized = outputs(model, LlamaFlashAttnType.ENABLED, 2, GGMLType.Q8_0, steps)
        plain = outputs(model, LlamaFlashAttnType.DISABLED, 2, GGMLType.F16, steps)
    np.testing.assert_allclose(quantized, plain, atol=3 * ROUNDING)
