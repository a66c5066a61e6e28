"""Samplers that run in the graph of a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaBatch, LlamaModel, LlamaSampler

from ...support.contexts import BatchOf, NewContext
from ...support.random_models import N_VOCAB


def test_a_sampler_in_the_graph_selects_as_outside(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    outside = new_context()
    outside.decode(batch_of(story))
    for samplers in (
        [LlamaSampler.greedy()],
        [LlamaSampler.min_p(0.1), LlamaSampler.greedy()],
        [LlamaSampler.temp(0.5), LlamaSampler.greedy()],
        [LlamaSampler.top_k(1), LlamaSampler.dist(1)],
        [LlamaSampler.top_k(5), LlamaSampler.temp(0.0), LlamaSampler.dist(1)],
        [LlamaSampler.top_p(0.0001), LlamaSampler.dist(1)],
        [LlamaSampler.temp(2.0), LlamaSampler.logit_bias(N_VOCAB, [(9, 50.0)]), LlamaSampler.greedy()],
        [LlamaSampler.penalties(N_VOCAB, 8, 1.1), LlamaSampler.greedy()],
    ):
        expected = LlamaSampler.chain([sampler.clone() for sampler in samplers]).sample(outside)
        inside = LlamaSampler.chain(samplers)
        context = new_context(samplers=[(0, inside)])
        context.decode(batch_of(story))
        assert inside.sample(context) == expected
        status, tokens, _ = context.decode_and_sample(batch_of([5], len(story)), [(0, inside)])
        assert status == 0
        assert len(tokens) == 1


def test_what_cannot_run_in_the_graph_runs_on_what_it_left(
    model: LlamaModel, new_context: NewContext, batch_of: BatchOf, story: list[int]
):
    outside = new_context()
    outside.decode(batch_of(story))
    top = np.argsort(np.asarray(outside.get_logits_ith()))[-3:]
    chain = LlamaSampler.chain([LlamaSampler.top_k(3), LlamaSampler.typical(0.9), LlamaSampler.dist(1)])
    context = new_context(samplers=[(0, chain)])
    for _ in range(3):
        context.kv_cache_clear()
        context.decode(batch_of(story))
        assert chain.sample(context) in top
    incomplete = LlamaSampler.chain([LlamaSampler.top_k(3)])
    context = new_context(samplers=[(0, incomplete)])
    context.decode(batch_of(story))
    with pytest.raises(RuntimeError, match="selects no token"):
        incomplete.sample(context)


def test_logits_that_stayed_in_the_graph_are_not_read(new_context: NewContext, batch_of: BatchOf):
    chain, other = (
        LlamaSampler.chain([LlamaSampler.greedy()]),
        LlamaSampler.chain([LlamaSampler.top_k(1), LlamaSampler.dist(1)]),
    )
    context = new_context(n_seq_max=3, n_ctx=768, kv_unified=True, samplers=[(0, chain), (1, other)])
    batch = LlamaBatch(3, n_seq_max=2)
    for seq_id in range(3):
        batch.add(1, 0, [seq_id], logits=True)
    context.decode(batch)
    for sampler, i in ((LlamaSampler.greedy(), 0), (chain, 1), (other, 0), (chain, 2), (chain.clone(), 0)):
        with pytest.raises(RuntimeError, match=r"in the graph|context's graph"):
            sampler.sample(context, i)
    with pytest.raises(RuntimeError, match="its logits stayed there"):
        context.get_logits_ith(0)
    assert {chain.sample(context, 0), other.sample(context, 1), LlamaSampler.greedy().sample(context, 2)} == {
        LlamaSampler.greedy().sample(context, 2)
    }
    batch.clear()
    batch.add(1, 1, logits=True)
    batch.add(1, 2, logits=True)
    with pytest.raises(ValueError, match="at most 1 outputs per sequence"):
        context.decode(batch)
    batch.clear()
    batch.add(1, 1, [0, 2], logits=True)
    with pytest.raises(ValueError, match="belongs to several sequences"):
        context.decode(batch)


@pytest.mark.parametrize(
    ("samplers", "why"),
    [
        (lambda: [], "at least one"),
        (lambda: [LlamaSampler.dist(1), LlamaSampler.dist(2)], "dist in the graph must be the last"),
        (
            lambda: [LlamaSampler.top_k(5), LlamaSampler.logit_bias(N_VOCAB, [(1000, 1.0)]), LlamaSampler.dist(1)],
            "logit-bias in the graph cannot follow",
        ),
        (
            lambda: [LlamaSampler.temp(0.0), LlamaSampler.logit_bias(N_VOCAB, [(1000, 1.0)]), LlamaSampler.dist(1)],
            "logit-bias in the graph cannot follow",
        ),
        (lambda: [LlamaSampler.top_k(5), LlamaSampler.greedy()], "greedy in the graph cannot follow"),
        (lambda: [LlamaSampler.top_p(0.5), LlamaSampler.greedy()], "greedy in the graph cannot follow"),
        (lambda: [LlamaSampler.top_k(N_VOCAB + 1), LlamaSampler.dist(1)], "top_k in the graph"),
        (lambda: [LlamaSampler.top_k(5), LlamaSampler.top_k(6), LlamaSampler.dist(1)], "top_k in the graph"),
        (lambda: [LlamaSampler.temp(0.0), LlamaSampler.top_k(2), LlamaSampler.dist(1)], "top_k in the graph"),
        (lambda: [LlamaSampler.penalties(5000, 64, 1.1), LlamaSampler.greedy()], "vocabulary of 5000"),
    ],
)
def test_chains_that_llama_cpp_would_abort_on_or_get_wrong(
    samplers: Callable[[], Sequence[LlamaSampler]], why: str, new_context: NewContext
):
    with pytest.raises(ValueError, match=why):
        new_context(samplers=[(0, LlamaSampler.chain(list(samplers())))])


def test_a_chain_serves_one_context_and_one_sequence(new_context: NewContext):
    chain = LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.dist(1)])
    with pytest.raises(ValueError, match="of its own"):
        new_context(n_seq_max=2, samplers=[(0, chain), (1, chain)])
    with pytest.raises(ValueError, match="of its own"):
        new_context(samplers=[(0, chain), (0, LlamaSampler.chain([LlamaSampler.greedy()]))])
    with pytest.raises(ValueError, match="sequence id"):
        new_context(samplers=[(1, chain)])
    context = new_context(samplers=[(0, chain)])
    context.close()
    with pytest.raises(ValueError, match="one context only"):
        new_context(samplers=[(0, chain)])
    with pytest.raises(RuntimeError, match="cannot change any more"):
        chain.add(LlamaSampler.greedy())
    new_context(samplers=[(0, chain.clone())])


def test_context_and_sampler_may_go_in_any_order(tiny_chat: Path, in_process: Callable[..., str]):
    code = """
make = lambda: LlamaSampler.chain([LlamaSampler.penalties(1280, 8, 1.1), LlamaSampler.top_k(5), LlamaSampler.dist(1)])
model, chain = load(), make()
samplers = [(0, chain)]
context = LlamaContext(model, params(samplers=samplers))
samplers.clear()
del chain, samplers
gc.collect()
for pos in range(20):
    assert context.decode(batch_of([1], pos)) == 0
context.close()
chain = make()
context = LlamaContext(model, params(samplers=[(0, chain)]))
context.decode(batch_of())
del context
gc.collect()
chain.accept([1, 2])
chain.reset()
chain = make()
context = LlamaContext(model, params(samplers=[(0, chain)]))
context.decode(batch_of())
model.close()
chain.accept([1])
print(raised(chain.sample, context), chain.clone())
"""
    assert in_process(code) == "RuntimeError: the context is closed <LlamaSampler penalties top-k dist>\n"


def test_a_sampler_in_the_graph_is_not_changed_while_it_computes(in_process: Callable[..., str]):
    code = """
chain = LlamaSampler.chain([LlamaSampler.penalties(1280, 64, 1.1), LlamaSampler.top_k(5), LlamaSampler.dist(1)])
context, done = LlamaContext(load(), params(samplers=[(0, chain)])), threading.Event()
def disturb():
    while not done.is_set():
        chain.accept(list(range(50)))
        chain.reset()
threads = [threading.Thread(target=disturb) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(300):
    context.kv_cache_clear(False)
    context.decode(batch_of([1]))
done.set()
for thread in threads:
    thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"
