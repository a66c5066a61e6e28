"""Batches: a fixed number of tokens, and nothing that llama.cpp would trip over."""

from __future__ import annotations

import pytest

from cyllama.llama.llama_cpp import LlamaBatch


def test_a_batch_fills_and_empties():
    batch = LlamaBatch(4, n_seq_max=2)
    assert (len(batch), batch.capacity, batch.n_seq_max) == (0, 4, 2)
    batch.add(7, 0, [0, 1], logits=True)
    batch.add_sequence([1, 2, 3], pos=1)
    assert len(batch) == 4
    with pytest.raises(ValueError, match="4 of 4 tokens: no space for 1 more"):
        batch.add(1, 5)
    batch.clear()
    assert len(batch) == 0


def test_what_does_not_fit_is_not_added_in_part():
    batch = LlamaBatch(3)
    batch.add(1, 0)
    with pytest.raises(ValueError, match="no space for 3 more"):
        batch.add_sequence([1, 2, 3])
    with pytest.raises(ValueError, match="belongs to 1 to 1 sequences"):
        batch.add(1, 1, [0, 1])
    with pytest.raises(ValueError, match="belongs to 1 to 1 sequences"):
        batch.add(1, 1, [])
    assert len(batch) == 1


@pytest.mark.parametrize("n_tokens", [0, -1, 2**24 + 1, 2**31 - 1])
def test_capacities_out_of_range(n_tokens: int):
    with pytest.raises(ValueError, match="n_tokens must be from 1"):
        LlamaBatch(n_tokens)


@pytest.mark.parametrize("n_seq_max", [0, -1, 257])
def test_sequence_counts_out_of_range(n_seq_max: int):
    with pytest.raises(ValueError, match="n_seq_max must be from 1 to 256"):
        LlamaBatch(1, n_seq_max)


@pytest.mark.parametrize("pos", [-1, -(2**31), 2**30 + 1, 2**31 - 1])
def test_positions_out_of_range(pos: int):
    batch = LlamaBatch(2)
    with pytest.raises(ValueError, match="positions must be from 0"):
        batch.add(1, pos)
    with pytest.raises(ValueError, match="positions must be from 0"):
        batch.add_sequence([1, 2], pos)
    with pytest.raises(ValueError, match="positions must be from 0"):
        batch.add_sequence([1, 2], 2**30)
    assert len(batch) == 0


def test_numbers_that_are_no_32_bit_integers():
    with pytest.raises(TypeError):
        LlamaBatch(1).add(2**40, 0)
    with pytest.raises(TypeError):
        LlamaBatch(1).add("1", 0)  # type: ignore[arg-type]


def test_a_batch_larger_than_anything_that_is_decoded_is_refused_and_not_allocated():
    with pytest.raises(ValueError, match=r"n_tokens \* n_seq_max must be at most 16777216, not 16777216 \* 256"):
        LlamaBatch(1 << 24, 256)
    assert LlamaBatch(1 << 16, 256).capacity == 1 << 16
