"""Chains that keep few of the tokens of a large vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
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


KINDS = ["top_p", "min_p", "typical", "top_n_sigma"]
BEFORE = st.sampled_from(["nothing", "biases", "penalties"])


def in_order(kind: str, logits: np.ndarray) -> np.ndarray:
    """Return the token ids in the order in which a sampler leaves them."""
    if kind == "top_p":
        return np.argsort(-logits, kind="stable")
    if kind == "typical":
        p = np.exp(logits - logits.max())
        surprise = -np.log(p / p.sum())
        return np.argsort(np.abs(surprise - (p / p.sum() * surprise).sum()), kind="stable")
    return np.arange(len(logits))


def keeps(kind: str, value: float, logits: np.ndarray) -> np.ndarray:
    """Return which tokens a sampler keeps, computed in double precision, in the order of :func:`in_order`."""
    order = in_order(kind, logits)
    if kind == "min_p":
        return order[logits[order] >= logits.max() + np.log(value)]
    if kind == "top_n_sigma":
        return order[logits[order] >= logits.max() - value * logits.std()]
    p = np.exp(logits[order] - logits.max())
    return order[: int(np.searchsorted(np.cumsum(p) / p.sum(), value)) + 1]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.floats(0.02, 0.99),
    st.floats(0.2, 4),
    BEFORE,
    st.none() | st.floats(0.01, 0.3),
    st.integers(0, 19_999),
)
def test_what_is_kept_by_probability_is_drawn_as_by_llama_cpp(
    large_vocabulary: LlamaContext,
    kind: str,
    value: float,
    temperature: float,
    before: str,
    min_p: float | None,
    last: int,
):
    """The draws are compared by their place in the distribution: rounding may exchange neighbours of a large set.

    llama.cpp adds up probabilities, and the entropy, in 32 bits: of 20,000 tokens, to about 1e-4.
    """
    context = large_vocabulary
    min_p = None if kind == "typical" else min_p  # what it keeps depends on the most likely one of the typical tokens
    logits = logits_after(context, last).astype(np.float64)
    biases = [(int(token), 1.5) for token in logits.argsort()[:2000:100]] if before == "biases" else []
    for token, bias in biases:
        logits[token] += bias
    logits /= temperature

    def kept(slack: float) -> np.ndarray:
        """Return what is kept at least (slack < 0), about (0) or at most (slack > 0)."""
        ids = keeps(kind, min(value * (1 - slack if kind == "min_p" else 1 + slack), 1.0), logits)
        return ids if min_p is None else ids[logits[ids] >= logits[ids].max() + np.log(min_p * (1 - slack))]

    def chain(min_keep: int) -> LlamaSampler:
        """With a ``min_keep`` of 2, llama.cpp's own sampler decides."""
        samplers = [LlamaSampler.penalties(20_000, 64, 1.0, 0.0, 0.0)] if before == "penalties" else []
        samplers += [LlamaSampler.logit_bias(20_000, biases)] if biases else []
        arguments = (value,) if kind == "top_n_sigma" else (value, min_keep)
        samplers += [LlamaSampler.temp(temperature), getattr(LlamaSampler, kind)(*arguments)]
        samplers += [LlamaSampler.min_p(min_p, min_keep)] if min_p is not None else []
        return LlamaSampler.chain([*samplers, LlamaSampler.dist(1)])

    ids, least, possible = kept(0), kept(-0.01), set(kept(0.01).tolist())
    share = np.exp(logits[ids] - logits.max())
    ends = np.cumsum(share) / share.sum()
    place = dict(zip(ids.tolist(), zip((ends - share / share.sum()).tolist(), ends.tolist(), strict=True), strict=True))
    ours, reference = chain(0), chain(2)
    for _ in range(20):
        token, expected = ours.sample(context), reference.sample(context)
        assert token in possible
        if len(least) > 1 and len(possible) == len(least):
            assert logits[token] == logits[expected] or kind == "typical"
        if len(ids) > 1 and kind != "top_n_sigma":
            starts, ends_here = zip(*(place.get(each, (1.0, 1.0)) for each in (token, expected)), strict=True)
            assert max(starts) - min(ends_here) < (0.05 if kind == "typical" else 1e-3)


def test_a_forbidden_token_does_not_disturb_the_typical_ones(large_vocabulary: LlamaContext):
    context = large_vocabulary
    logits = logits_after(context, 7)
    forbidden = int(logits.argmax())
    logits[forbidden] = -np.inf
    allowed = np.flatnonzero(np.isfinite(logits))
    kept = set(allowed[keeps("typical", 0.21, logits[allowed].astype(np.float64))].tolist())
    bias = LlamaSampler.logit_bias(20_000, [(forbidden, -np.inf)])
    chain = LlamaSampler.chain([bias, LlamaSampler.typical(0.2), LlamaSampler.dist(1)])
    assert {chain.sample(context) for _ in range(50)} <= kept


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.1, 1),
    st.one_of(st.floats(0, 0.5), st.floats(0.001, 0.02)),
    st.floats(0.2, 4),
    st.booleans(),
    st.integers(0, 1000),
    st.integers(0, 19_999),
)
def test_xtc_excludes_what_llama_cpp_excludes(
    large_vocabulary: LlamaContext,
    p: float,
    threshold: float,
    temperature: float,
    is_sorted: bool,
    seed: int,
    last: int,
):
    context = large_vocabulary
    logits = logits_after(context, last).astype(np.float64) / temperature
    candidates = np.sort(logits)[-10_000:] if is_sorted else logits
    probabilities = np.exp(candidates - candidates.max())
    probabilities /= probabilities.sum()
    assume((probabilities < threshold).sum() > 1)  # a ``min_keep`` of 2 makes no difference
    assume(np.abs(probabilities / threshold - 1).min() > 1e-3)  # llama.cpp adds them up in 32 bits

    def chain(min_keep: int, *choice: LlamaSampler) -> LlamaSampler:
        """With a ``min_keep`` of 2, llama.cpp's own sampler decides."""
        first = [LlamaSampler.top_k(10_000)] if is_sorted else []
        xtc = LlamaSampler.xtc(p, threshold, min_keep, seed)
        return LlamaSampler.chain([*first, LlamaSampler.temp(temperature), xtc, *choice])

    ours, reference = chain(0, LlamaSampler.greedy()), chain(2, LlamaSampler.greedy())
    for _ in range(10):
        assert logits[ours.sample(context)] == logits[reference.sample(context)]


def test_xtc_leaves_the_other_tokens_their_shares(large_vocabulary: LlamaContext):
    context = large_vocabulary
    logits = logits_after(context, 7).astype(np.float64) * 2
    order = logits.argsort()[::-1]
    expected = np.exp(logits - logits.max())
    threshold = float(expected[order[2]] / expected.sum() * 0.999)
    expected[order[:2]] = 0  # of the three above the threshold, the least likely one stays
    expected /= expected.sum()
    chain = LlamaSampler.chain([LlamaSampler.temp(0.5), LlamaSampler.xtc(1.0, threshold, 0, 1), LlamaSampler.dist(1)])
    drawn = np.bincount([chain.sample(context) for _ in range(2000)], minlength=len(logits))
    assert not drawn[order[:2]].any()
    half = order[2 : 2 + int(np.searchsorted(np.cumsum(expected[order[2:]]), 0.5)) + 1]
    share = expected[half].sum()
    assert abs(drawn[half].sum() - 2000 * share) < 5 * np.sqrt(2000 * share * (1 - share))
