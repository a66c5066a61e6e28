"""Chains that keep few of the tokens of a large vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaSampler

BIASES = st.lists(
    st.tuples(st.integers(0, 19_999), st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 3.0, np.inf])),
    max_size=8,
    unique_by=lambda bias: bias[0],
).filter(lambda biases: [bias for _, bias in biases].count(np.inf) <= 1)  # probabilities of two are inf - inf
PENALTIES = st.tuples(
    st.sampled_from([0, 1, 64, 5000]), st.sampled_from([0.5, 1.0, 1.5]), st.sampled_from([-0.5, 0.0, 0.5]), st.just(0.0)
)
LAST = st.one_of(
    st.just([("greedy",)]),
    st.tuples(st.tuples(st.just("top_k"), st.integers(1, 200)), st.just(("temp", 0.8)), st.just(("dist", 1))),
)


def logits_after(context: LlamaContext, token: int) -> np.ndarray:
    """Decode a token into the emptied context; return the logits of the next."""
    batch = LlamaBatch(1)
    context.kv_cache_clear(clear_data=False)
    batch.add(token, 0, logits=True)
    context.decode(batch)
    return np.array(context.get_logits_ith())


@settings(max_examples=300, deadline=None)
@given(BIASES, st.none() | PENALTIES, LAST, st.lists(st.integers(0, 19_999), max_size=40), st.data())
def test_a_chain_that_keeps_few_tokens_selects_as_if_it_saw_all(
    large_vocabulary: LlamaContext,
    biases: list[tuple[int, float]],
    penalties: tuple[int, float, float, float] | None,
    last: Sequence[tuple[Any, ...]],
    accepted: list[int],
    data: st.DataObject,
):
    context = large_vocabulary
    logits = logits_after(context, data.draw(st.integers(0, 19_999)))
    likely = logits.argsort()[::-1]
    unlikely = {int(likely[rank]): -np.inf for rank in data.draw(st.sets(st.integers(0, 60)))}
    biases = [*(unlikely | dict(biases)).items()]
    accepted += [int(likely[rank]) for rank in data.draw(st.lists(st.integers(0, 60)))]

    def chain(*first: LlamaSampler) -> LlamaSampler:
        samplers = [*first, LlamaSampler.logit_bias(20_000, biases)]
        samplers += [LlamaSampler.penalties(20_000, *penalties)] if penalties else []
        chain = LlamaSampler.chain([*samplers, *(getattr(LlamaSampler, name)(*arguments) for name, *arguments in last)])
        chain.accept(accepted)
        return chain

    few, all_of_them = chain(), chain(LlamaSampler.top_n_sigma(0))  # which does nothing, but might do anything
    tokens, expected = ([sampler.sample(context) for _ in range(4)] for sampler in (few, all_of_them))
    assert logits[tokens].tolist() == logits[expected].tolist(), "tokens with the same logit are in any order"


def test_several_biases_of_a_token_add_up(large_vocabulary: LlamaContext):
    context = large_vocabulary
    first, second = logits_after(context, 7).argsort()[::-1][:2].tolist()
    for biases, expected in (([0.5, -np.inf], second), ([-100.0, 100.0], first), ([-100.0, 99.5, 0.5], first)):
        chain = LlamaSampler.chain(
            [LlamaSampler.logit_bias(20_000, [(first, bias) for bias in biases]), LlamaSampler.greedy()]
        )
        assert chain.sample(context) == expected
