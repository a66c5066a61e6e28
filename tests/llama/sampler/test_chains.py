"""Chains of samplers: what they own, copies of them, and what they refuse."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler

from ...support.contexts import BatchOf, NewContext
from ...support.random_models import N_VOCAB, write_one_layer


def test_a_chain_takes_its_samplers_over(told: LlamaContext):
    greedy = LlamaSampler.greedy()
    chain = LlamaSampler.chain([LlamaSampler.top_k(5)])
    chain.add(greedy)
    assert chain.names == ["top-k", "greedy"]
    assert len(chain) == 2
    assert repr(greedy) == "<LlamaSampler (part of a chain)>"
    for use in (
        lambda: greedy.sample(told),
        lambda: greedy.accept([1]),
        greedy.clone,
        greedy.reset,
        lambda: greedy.names,
        lambda: greedy.seed,
        lambda: chain.add(greedy),
    ):
        with pytest.raises(RuntimeError, match="belongs to a chain"):
            use()


def test_a_chain_is_made_whole_or_not_at_all(told: LlamaContext):
    top_k, greedy = LlamaSampler.top_k(1), LlamaSampler.greedy()
    for samplers, error in (
        ([top_k, greedy, greedy], ValueError),
        ([top_k, greedy, LlamaSampler.chain()], TypeError),
        ([top_k, greedy, None], TypeError),
        ([top_k, LlamaSampler.penalties(5, 1, 2.0), LlamaSampler.penalties(6, 1, 2.0)], ValueError),
    ):
        with pytest.raises(error):
            LlamaSampler.chain(samplers)  # type: ignore[arg-type]
    assert LlamaSampler.chain([top_k, greedy]).sample(told) == LlamaSampler.greedy().sample(told)
    chain = LlamaSampler.chain()
    with pytest.raises(ValueError, match="itself"):
        chain.add(chain)
    with pytest.raises(TypeError, match="only a chain"):
        LlamaSampler.greedy().add(LlamaSampler.greedy())


def test_a_chain_that_selects_nothing_says_so(told: LlamaContext):
    for sampler in (LlamaSampler.top_k(5), LlamaSampler.chain(), LlamaSampler.chain([LlamaSampler.temp(1.0)])):
        with pytest.raises(RuntimeError, match="selects no token"):
            sampler.sample(told)


def test_a_clone_goes_its_own_way(told: LlamaContext):
    chain = LlamaSampler.chain(
        [LlamaSampler.penalties(N_VOCAB, 64, 2.0, 1.0), LlamaSampler.temp(2.0), LlamaSampler.dist(3)]
    )
    for _ in range(5):
        chain.sample(told)
    clone = chain.clone()
    ahead = [clone.sample(told) for _ in range(10)]
    assert [chain.sample(told) for _ in range(10)] == ahead
    del chain
    gc.collect()
    clone.sample(told)


def test_a_clone_after_a_selection_that_was_never_accepted(told: LlamaContext, model: LlamaModel):
    adaptive = [LlamaSampler.adaptive_p(0.5, 0.5, 1), LlamaSampler.grammar(model.vocab, 'root ::= "zzzzzz"')]
    chain = LlamaSampler.chain(
        [LlamaSampler.logit_bias(N_VOCAB, [(token, -np.inf) for token in range(1, N_VOCAB)]), *reversed(adaptive)]
    )
    with pytest.raises(RuntimeError, match="does not fit the grammar"):
        chain.sample(told)
    clone = chain.clone()
    for token in range(0, N_VOCAB, 50):
        with pytest.raises(RuntimeError, match="does not fit"):
            clone.accept([token])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaSampler.temp(float("nan")),
        lambda: LlamaSampler.top_p(float("inf")),
        lambda: LlamaSampler.temp_ext(1.0, float("nan"), 1.0),
        lambda: LlamaSampler.penalties(N_VOCAB, 64, 0.0),
        lambda: LlamaSampler.penalties(N_VOCAB, -1),
        lambda: LlamaSampler.penalties(0, 1),
        lambda: LlamaSampler.penalties(N_VOCAB, 2**31 - 1),
        lambda: LlamaSampler.mirostat(N_VOCAB, 1, 1.0, 1.0, 1),
        lambda: LlamaSampler.mirostat(-1, 1, 1.0, 1.0),
        lambda: LlamaSampler.adaptive_p(0.5, 1.0),
        lambda: LlamaSampler.logit_bias(N_VOCAB, [(N_VOCAB, 1.0)]),
        lambda: LlamaSampler.logit_bias(N_VOCAB, [(-1, 1.0)]),
        lambda: LlamaSampler.logit_bias(N_VOCAB, [(1, float("nan"))]),
    ],
)
def test_parameters_out_of_range(make: Callable[[], LlamaSampler]):
    with pytest.raises(ValueError, match=r"must be|out of range"):
        make()


def test_tokens_out_of_range(model: LlamaModel):
    sampler = LlamaSampler.penalties(N_VOCAB, 64, 1.1)
    for token in (-1, N_VOCAB, 2**31 - 1):
        with pytest.raises(ValueError, match="out of range"):
            sampler.accept([1, token])


def test_samplers_of_another_vocabulary(told: LlamaContext):
    for sampler in (
        LlamaSampler.penalties(100, 64, 1.1),
        LlamaSampler.chain([LlamaSampler.logit_bias(100, [(1, 1.0)]), LlamaSampler.greedy()]),
    ):
        with pytest.raises(ValueError, match="vocabulary of 100 tokens, not of 1280"):
            sampler.sample(told)


def test_a_model_that_computes_nan_is_reported(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    context = new_context(LlamaModel(write_one_layer(tmp_path / "llama.gguf", nan=True)))
    context.decode(batch_of())
    for sampler in (
        LlamaSampler.greedy(),
        LlamaSampler.dist(1),
        LlamaSampler.chain([LlamaSampler.top_k(40), LlamaSampler.top_p(0.9), LlamaSampler.dist(1)]),
        LlamaSampler.mirostat_v2(1, 5.0, 0.1),
    ):
        with pytest.raises(RuntimeError, match="not numbers"):
            sampler.sample(context)


def test_parameters_that_make_nan_are_reported(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    both = [LlamaSampler.logit_bias(N_VOCAB, [(best, np.inf)]), LlamaSampler.logit_bias(N_VOCAB, [(best, -np.inf)])]
    with pytest.raises(RuntimeError, match="not numbers"):
        LlamaSampler.chain([*both, LlamaSampler.typical(0.5), LlamaSampler.dist(1)]).sample(told)


def test_samplers_keep_what_they_need(tiny_chat: Path, told: LlamaContext):
    sampler = LlamaSampler.chain(
        [LlamaSampler.grammar(LlamaModel(tiny_chat).vocab, "root ::= [a-z ]+"), LlamaSampler.greedy()]
    )
    gc.collect()
    assert sampler.sample(told) >= 0
    model = LlamaModel(tiny_chat)
    grammar = LlamaSampler.grammar(model.vocab, "root ::= [a-z]+")
    model.close()
    for use in (lambda: grammar.sample(told), lambda: grammar.accept([1]), grammar.clone, grammar.reset):
        with pytest.raises(RuntimeError, match="the model is closed"):
            use()
    assert grammar.names == ["grammar"]


def test_random_chains_never_take_the_process_along(in_process: Callable[..., str]):
    code = """
import random
rng, model = random.Random(5), load()
vocab, n, S = model.vocab, model.vocab.n_tokens, LlamaSampler
context = LlamaContext(model, params())
context.decode(batch_of())
f = lambda: rng.choice([0, 1e-9, 0.1, 0.9, 1.0, 5, 1e5, 3e38, -1, -3e38, 1e-45])
k = lambda: rng.choice([0, 1, 2, 1280, 2**63])
seed = lambda: rng.choice([0, 1, 0xFFFFFFFF])
makers = [
    S.greedy, lambda: S.dist(seed()), lambda: S.top_k(rng.choice([-5, 0, 1, 40, 2**31 - 1])), lambda: S.top_p(f(), k()),
    lambda: S.min_p(f(), k()), lambda: S.typical(f(), k()), lambda: S.temp(f()), lambda: S.temp_ext(f(), f(), f()),
    lambda: S.xtc(f(), f(), k(), seed()), lambda: S.top_n_sigma(f()), lambda: S.mirostat(n, seed(), f(), f(), 2),
    lambda: S.mirostat_v2(seed(), f(), f()),
    lambda: S.grammar(vocab, rng.choice(['root ::= [a-z]*', 'root ::= "a" | ""', ''])),
    lambda: S.grammar_lazy(vocab, 'root ::= [a-z]+', 'root', ['[abc](x)'], [5]), lambda: S.infill(vocab),
    lambda: S.penalties(n, rng.choice([0, 1, 5000]), f(), f(), f()), lambda: S.adaptive_p(f(), 0.5, seed()),
    lambda: S.dry(vocab, f(), f(), rng.choice([0, 5, 2**24]), rng.choice([0, 1, 5000]), ["", "a" * 100, "\\0"]),
    lambda: S.logit_bias(n, [(rng.randrange(n), rng.choice([f(), float("inf"), -float("inf")])) for _ in range(300)]),
]
sampled = 0
for _ in range(600):
    samplers = []
    for _ in range(rng.randrange(1, 5)):
        raised(lambda: samplers.append(rng.choice(makers)()))
    chain = S.chain(samplers + rng.choice([[], [S.dist(1)], [S.greedy()]]))
    for _ in range(3):
        sampled += raised(chain.sample, context) == "nothing"
        raised(rng.choice([chain.reset, chain.clone, lambda: chain.accept([rng.randrange(n) for _ in range(20)])]))
print(sampled > 300)
"""
    assert in_process(code) == "True\n"
