"""Decoding and sampling in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cyllama.llama.llama_cpp import LlamaContext, LlamaSampler

from ...support.contexts import BatchOf, NewContext


def test_decode_and_sample_is_decode_then_sample(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    one, two = new_context(), new_context()
    status, tokens, _ = one.decode_and_sample(batch_of(story), [(len(story) - 1, LlamaSampler.greedy())])
    two.decode(batch_of(story))
    assert (status, tokens) == (0, [LlamaSampler.greedy().sample(two)])
    one.abort()
    assert one.decode_and_sample(batch_of([1], len(story)), [(0, LlamaSampler.greedy())]) == (2, [], {})


def test_decode_and_sample_checks_before_it_computes(context: LlamaContext, batch_of: BatchOf):
    for index in (-1, 0, 3, 2**31 - 1):
        with pytest.raises(IndexError, match="no logits to sample from"):
            context.decode_and_sample(batch_of(), [(index, LlamaSampler.greedy())])
    with pytest.raises(TypeError):
        context.decode_and_sample(batch_of(), [(2, None)])  # type: ignore[list-item]
    assert context.seq_pos_max(0) == -1


def test_samplers_dropped_from_the_list_while_it_is_in_use(in_process: Callable[..., str]):
    code = """
context = LlamaContext(load(), params())
make = lambda: (0, LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.dist(1)]))
samplers, done = [make()], threading.Event()
def replace():
    while not done.is_set():
        samplers[0] = make()
thread = threading.Thread(target=replace)
thread.start()
for _ in range(500):
    context.kv_cache_clear(False)
    context.decode_and_sample(batch_of([1]), samplers)
done.set()
thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"
