"""Saving and restoring: a conversation carried over, and every state that must be refused."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import (
    LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY,
    GGMLType,
    LlamaContext,
    LlamaFlashAttnType,
    LlamaModel,
    LlamaSampler,
)

from ..support.contexts import BatchOf, NewContext
from ..support.random_models import write_one_layer, write_random_model


def continue_with(context: LlamaContext, batch_of: BatchOf, seq_id: int = 0) -> np.ndarray:
    assert context.decode(batch_of([5], context.seq_pos_max(seq_id) + 1, seq_id)) == 0
    return np.asarray(context.get_logits_ith())


@pytest.fixture
def told(new_context: NewContext, batch_of: BatchOf, story: list[int]) -> LlamaContext:
    """A context that has read a story."""
    context = new_context()
    context.decode(batch_of(story))
    return context


def test_a_whole_context_is_carried_over(told: LlamaContext, new_context: NewContext, batch_of: BatchOf):
    other = new_context()
    other.decode(batch_of([9] * 50))
    other.state_set_data(told.state_get_data())
    np.testing.assert_array_equal(continue_with(other, batch_of), continue_with(told, batch_of))


def test_one_sequence_is_carried_over_to_another_id(told: LlamaContext, new_context: NewContext, batch_of: BatchOf):
    other = new_context(n_seq_max=3, n_ctx=768, kv_unified=True)
    other.decode(batch_of([9] * 50, 0, 1))
    other.state_seq_set_data(told.state_seq_get_data(0), 2)
    assert (other.seq_pos_max(1), other.seq_pos_max(2)) == (49, told.seq_pos_max(0))
    np.testing.assert_allclose(continue_with(other, batch_of, 2), continue_with(told, batch_of), atol=0.05)


def test_a_state_in_memory_is_the_same_as_its_bytes(told: LlamaContext, new_context: NewContext, batch_of: BatchOf):
    state = told.state_seq_copy(0)
    assert bytes(state) == told.state_seq_get_data(0)
    assert len(state) == len(bytes(state))
    told.kv_cache_clear()
    other = new_context(n_seq_max=3, n_ctx=768, kv_unified=True)
    other.state_seq_set_data(state, 1)
    other.state_seq_set_data(bytes(state), 2)
    np.testing.assert_allclose(continue_with(other, batch_of, 1), continue_with(other, batch_of, 2), atol=0.05)


def test_a_state_in_memory_is_used_only_where_it_belongs(
    told: LlamaContext, tmp_path: Path, new_context: NewContext, batch_of: BatchOf
):
    state = told.state_seq_copy(0)
    with (
        LlamaModel(write_one_layer(tmp_path / "llama.gguf")) as foreign,
        pytest.raises(ValueError, match="another model"),
    ):
        new_context(foreign).state_seq_set_data(state, 0)
    with pytest.raises(ValueError, match="other flags"):
        told.state_seq_set_data(state, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    with pytest.raises(ValueError, match="out of range"):
        told.state_seq_copy(99)
    with pytest.raises(ValueError, match="flags"):
        told.state_seq_copy(0, 8)
    told.close()
    with pytest.raises(RuntimeError, match="closed"):
        told.state_seq_set_data(state, 0)
    assert bytes(state)


def test_a_state_of_a_model_of_the_same_shape_is_refused(
    tmp_path: Path, new_context: NewContext, batch_of: BatchOf, story: list[int]
):
    paths = [write_random_model(tmp_path / f"{seed}.gguf", "llama", seed) for seed in (0, 1)]
    paths.append(tmp_path / "copy.gguf")
    paths[2].write_bytes(paths[0].read_bytes())
    with LlamaModel(paths[0]) as one, LlamaModel(paths[1]) as other, LlamaModel(paths[2]) as copy:
        context = new_context(one)
        context.decode(batch_of(story))
        states = (context.state_get_data(), context.state_seq_get_data(0), context.state_seq_copy(0))
        foreign, same = new_context(other), new_context(copy)
        for state, restore in zip(states, ("state_set_data", "state_seq_set_data", "state_seq_set_data"), strict=True):
            args = (state,) if restore == "state_set_data" else (state, 0)
            with pytest.raises(ValueError, match="another model"):
                getattr(foreign, restore)(*args)
            getattr(same, restore)(*args)
            assert same.seq_pos_max(0) == len(story) - 1


def test_files_carry_tokens_too(
    told: LlamaContext, story: list[int], new_context: NewContext, batch_of: BatchOf, tmp_path: Path
):
    told.state_save_file(tmp_path / "whole", story)
    told.state_seq_save_file(str(tmp_path / "sequence"), 0, story[:3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sequence", "whole"]
    other = new_context()
    assert other.state_load_file(os.fsencode(tmp_path / "whole")) == story  # type: ignore[arg-type]
    assert other.state_seq_load_file(tmp_path / "sequence", 0) == story[:3]
    np.testing.assert_array_equal(continue_with(other, batch_of), continue_with(told, batch_of))


def test_an_old_file_is_replaced_only_by_a_complete_one(told: LlamaContext, tmp_path: Path):
    path = tmp_path / "state"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as a disk that is full
    try:
        with pytest.raises(OSError, match="File too large"):
            told.state_save_file(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_after_a_restore_there_is_nothing_to_sample_from(told: LlamaContext, batch_of: BatchOf):
    state = told.state_get_data()
    assert told.get_logits_ith()
    told.state_set_data(state)
    with pytest.raises(IndexError, match="0 tokens"):
        LlamaSampler.greedy().sample(told)
    with pytest.raises(IndexError, match="0 tokens"):
        told.get_logits_ith()
    continue_with(told, batch_of)
    LlamaSampler.greedy().sample(told)


def test_an_empty_context_can_be_saved(new_context: NewContext, told: LlamaContext):
    empty = new_context()
    told_before = told.state_get_data()
    told.state_seq_set_data(empty.state_seq_get_data(0), 0)
    assert told.seq_pos_max(0) == -1
    told.state_set_data(told_before)
    assert told.seq_pos_max(0) > 0
    told.state_set_data(empty.state_get_data())
    assert told.seq_pos_max(0) == -1


def test_damaged_states_are_refused_and_change_nothing(told: LlamaContext, batch_of: BatchOf):
    state = told.state_get_data()
    last = told.seq_pos_max(0)
    rng = random.Random(4)
    for _ in range(100):
        damaged = bytearray(state)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError, match="not a usable state"):
            told.state_set_data(bytes(damaged))
    for size in [0, 1, 39, 40, 41, *range(100, len(state), len(state) // 20)]:
        with pytest.raises(ValueError, match="not a usable state"):
            told.state_set_data(state[:size])
    with pytest.raises(ValueError, match="not a usable state"):
        told.state_set_data(state + b"x")
    assert told.seq_pos_max(0) == last
    continue_with(told, batch_of)


def test_states_of_another_model_are_refused(told: LlamaContext, tmp_path: Path, new_context: NewContext):
    other = new_context(LlamaModel(write_one_layer(tmp_path / "llama.gguf")))
    with pytest.raises(ValueError, match="another model"):
        other.state_set_data(told.state_get_data())


def test_each_kind_of_state_goes_back_where_it_came_from(told: LlamaContext):
    whole, one = told.state_get_data(), told.state_seq_get_data(0)
    partial = told.state_seq_get_data(0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    with pytest.raises(ValueError, match="holds a whole context"):
        told.state_seq_set_data(whole, 0)
    with pytest.raises(ValueError, match="holds one sequence"):
        told.state_set_data(one)
    with pytest.raises(ValueError, match="saved with other flags"):
        told.state_seq_set_data(partial, 0)
    with pytest.raises(ValueError, match="saved with other flags"):
        told.state_seq_set_data(one, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    told.state_seq_set_data(partial, 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
    for flags in (2, 3, 2**32 - 1):
        with pytest.raises(ValueError, match="flags can only be"):
            told.state_seq_get_data(0, flags)
        with pytest.raises(ValueError, match="flags can only be"):
            told.state_seq_set_data(one, 0, flags)


@pytest.mark.parametrize("seq_id", [-1, 1, 300])
def test_sequences_that_do_not_exist(seq_id: int, told: LlamaContext, tmp_path: Path):
    for use in (
        lambda: told.state_seq_get_data(seq_id),
        lambda: told.state_seq_set_data(b"", seq_id),
        lambda: told.state_seq_save_file(tmp_path / "x", seq_id),
        lambda: told.state_seq_load_file(tmp_path / "x", seq_id),
    ):
        with pytest.raises(ValueError, match="n_seq_max=1"):
            use()


def test_contexts_of_every_shape_restore_each_others_states_or_refuse(new_context: NewContext, batch_of: BatchOf):
    contexts = [
        new_context(),
        new_context(n_ctx=1024),
        new_context(n_ctx=1024, n_seq_max=4),
        new_context(n_ctx=1024, n_seq_max=4, kv_unified=True),
        new_context(n_ctx=512, n_seq_max=2, kv_unified=True),
        new_context(type_k=GGMLType.Q8_0),
        new_context(type_v=GGMLType.F32),
        new_context(flash_attn_type=LlamaFlashAttnType.DISABLED),
        new_context(embeddings=True),
    ]
    for context in contexts:
        for seq_id in range(context.n_seq_max):
            context.decode(batch_of([1 + seq_id, 2, 3], 0, seq_id))
    states = [(c.state_get_data(), c.state_seq_get_data(c.n_seq_max - 1)) for c in contexts]
    restored = 0
    for whole, one in states:
        for context in contexts:
            for restore in (lambda: context.state_set_data(whole), lambda: context.state_seq_set_data(one, 0)):  # noqa: B023
                try:
                    restore()
                    restored += 1
                except RuntimeError as error:
                    if "cannot restore the state" not in str(error):
                        raise
                for seq_id in range(context.n_seq_max):
                    continue_with(context, batch_of, seq_id)
    assert restored > 2 * len(contexts)


def test_pipes_devices_and_folders_are_neither_read_nor_replaced(told: LlamaContext, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        with pytest.raises(OSError, match="Invalid argument"):
            told.state_save_file(path)
        with pytest.raises(OSError, match="Invalid argument"):
            told.state_load_file(path)
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()
    with pytest.raises(IsADirectoryError):
        told.state_save_file(tmp_path)
    with pytest.raises(IsADirectoryError):
        told.state_seq_load_file(tmp_path, 0)
    with pytest.raises(FileNotFoundError):
        told.state_save_file(tmp_path / "missing" / "state")
    with pytest.raises(FileNotFoundError):
        told.state_load_file(tmp_path / "missing")
    with pytest.raises(ValueError, match="null"):
        told.state_save_file("a\0b")


def test_a_recurrent_model_can_be_carried_over(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    model = LlamaModel(write_random_model(tmp_path / "mamba.gguf", "mamba"))
    a, b = new_context(model), new_context(model)
    a.decode(batch_of([1, 2, 3, 4]))
    b.state_seq_set_data(a.state_seq_get_data(0), 0)
    np.testing.assert_allclose(continue_with(a, batch_of), continue_with(b, batch_of), atol=1e-5)
