"""The KV cache: sequences copied, moved, cut and cleared, then decoded with again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import GGMLType, LlamaBatch, LlamaContext, LlamaModel

from ..support.contexts import BatchOf, NewContext
from ..support.random_models import write_random_model


def next_logits(context: LlamaContext, batch: LlamaBatch) -> np.ndarray:
    assert context.decode(batch) == 0
    return np.asarray(context.get_logits_ith()).copy()


@pytest.mark.parametrize("clear_data", [True, False])
def test_a_cleared_cache_is_as_good_as_new(
    clear_data: bool, new_context: NewContext, story: list[int], batch_of: BatchOf
):
    fresh, used = new_context(), new_context()
    used.decode(batch_of([7] * 200))
    used.kv_cache_clear(clear_data)
    assert used.seq_pos_max(0) == -1
    np.testing.assert_array_equal(next_logits(used, batch_of(story)), next_logits(fresh, batch_of(story)))


def test_a_removed_tail_is_forgotten(new_context: NewContext, story: list[int], batch_of: BatchOf):
    fresh, used = new_context(), new_context()
    n = len(story) - 1
    for context in (fresh, used):
        context.decode(batch_of(story[:n]))
    used.decode(batch_of([9, 9, 9], n))
    assert used.seq_rm(0, n, -1)
    assert used.seq_pos_max(0) == n - 1
    np.testing.assert_allclose(
        next_logits(used, batch_of(story[n:], n)), next_logits(fresh, batch_of(story[n:], n)), atol=1e-4
    )


@pytest.mark.parametrize("kv_unified", [True, False])
def test_a_forked_sequence_goes_on_by_itself(
    kv_unified: bool, new_context: NewContext, story: list[int], batch_of: BatchOf
):
    context = new_context(n_seq_max=2, n_ctx=512, kv_unified=kv_unified)
    n = len(story)
    context.decode(batch_of(story))
    context.seq_cp(0, 1)
    assert context.seq_pos_max(1) == n - 1
    ours = next_logits(context, batch_of([5], n, 1))
    context.seq_keep(1)
    assert context.seq_pos_max(0) == -1
    alone = new_context()
    alone.decode(batch_of(story))
    np.testing.assert_allclose(ours, next_logits(alone, batch_of([5], n)), atol=0.05)


def test_a_part_of_a_sequence_is_copied_only_in_a_unified_cache(new_context: NewContext, batch_of: BatchOf):
    streams = new_context(n_seq_max=2, n_ctx=512)
    streams.decode(batch_of())
    with pytest.raises(ValueError, match="kv_unified=True"):
        streams.seq_cp(0, 1, 0, 2)
    streams.seq_cp(0, 1, -1, 3)  # all of it, in other words
    assert streams.seq_pos_max(1) == 2
    streams.seq_cp(0, 0, 0, 1)  # to itself: nothing to do
    unified = new_context(n_seq_max=2, n_ctx=512, kv_unified=True)
    unified.decode(batch_of())
    unified.seq_cp(0, 1, 0, 2)
    assert unified.seq_pos_max(1) == 1


def test_positions_can_be_moved_and_divided(context: LlamaContext, batch_of: BatchOf):
    assert context.can_shift
    context.decode(batch_of([1, 2, 3, 4]))
    context.seq_rm(0, 0, 2)
    context.seq_add(0, 0, -1, 10)
    assert (context.seq_pos_min(0), context.seq_pos_max(0)) == (12, 13)
    context.seq_div(0, 0, -1, 2)
    assert (context.seq_pos_min(0), context.seq_pos_max(0)) == (6, 6)
    assert context.decode(batch_of([5], 7)) == 0
    for delta in (2**30, -(2**31)):
        with pytest.raises(ValueError, match="out of range"):
            context.seq_add(0, 0, -1, delta)
    for divisor in (0, -2):
        with pytest.raises(ValueError, match="positive"):
            context.seq_div(0, 0, -1, divisor)


@pytest.mark.parametrize("type_k", [GGMLType.BF16, GGMLType.Q8_0, GGMLType.Q4_0])
def test_a_cache_that_ggml_cannot_shift_says_so(type_k: GGMLType, new_context: NewContext, batch_of: BatchOf):
    context = new_context(type_k=type_k)
    context.decode(batch_of())
    assert not context.can_shift
    with pytest.raises(RuntimeError, match="cannot shift"):
        context.seq_add(0, 0, -1, 1)
    with pytest.raises(RuntimeError, match="cannot shift"):
        context.seq_div(0, 0, -1, 2)
    assert context.decode(batch_of([1], 3)) == 0


def test_a_recurrent_memory_cannot_drop_a_part(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    context = new_context(LlamaModel(write_random_model(tmp_path / "mamba.gguf", "mamba")), n_seq_max=2, n_ctx=512)
    context.decode(batch_of())
    assert not context.seq_rm(0, 2, -1)
    context.seq_cp(0, 1)
    assert context.seq_pos_max(1) == 2
    assert context.decode(batch_of([4], 3, 1)) == 0
    assert context.seq_rm(0)
    assert context.seq_pos_max(0) == -1


@pytest.mark.parametrize("seq_id", [-2, -1, 1, 2**31 - 1])
def test_sequences_that_do_not_exist(seq_id: int, context: LlamaContext, batch_of: BatchOf):
    context.decode(batch_of())
    if seq_id == -1:
        assert context.seq_rm(-1), "-1 is all sequences there"
        assert context.seq_pos_max(0) == -1
    else:
        with pytest.raises(ValueError, match="n_seq_max=1"):
            context.seq_rm(seq_id)
    for use in (
        lambda: context.seq_cp(0, seq_id),
        lambda: context.seq_cp(seq_id, 0),
        lambda: context.seq_keep(seq_id),
        lambda: context.seq_add(seq_id, 0, -1, 1),
        lambda: context.seq_div(seq_id, 0, -1, 2),
        lambda: context.seq_pos_min(seq_id),
        lambda: context.seq_pos_max(seq_id),
    ):
        with pytest.raises(ValueError, match="n_seq_max=1"):
            use()


def test_a_random_walk_over_all_operations(in_process: Callable[..., str]):
    code = """
import random
logging.disable()
model, rng = load(), random.Random(3)
bounds = [-1, 0, 1, 3, 10, 2**31 - 1, -2**31]
for kv_unified in (True, False):
    context = LlamaContext(model, params(n_seq_max=4, n_ctx=1024, kv_unified=kv_unified))
    for _ in range(700):
        a, b, p0, p1 = rng.randrange(4), rng.randrange(4), rng.choice(bounds), rng.choice(bounds)
        pos = context.seq_pos_max(a) + 1
        raised(rng.choice([
            lambda: context.seq_rm(a, p0, p1), lambda: context.seq_cp(a, b), lambda: context.seq_cp(a, b, p0, p1),
            lambda: context.seq_add(a, p0, p1, rng.choice([-3, 1, 100, 2**30, -2**31])),
            lambda: context.seq_div(a, p0, p1, rng.choice([1, 2, 7, 2**31 - 1])),
            lambda: context.seq_keep(a) if rng.random() < 0.1 else None,
            lambda: context.kv_cache_clear(rng.random() < 0.5) if rng.random() < 0.05 else None,
            lambda: context.decode(batch_of([rng.randrange(1280) for _ in range(rng.randrange(1, 6))], pos, a)),
            lambda: context.decode(batch_of([1], pos, a)),
        ]))
print("fine")
"""
    assert in_process(code) == "fine\n"
