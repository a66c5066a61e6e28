"""Sampling: the mathematics against numpy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LLAMA_DEFAULT_SEED, LlamaContext, LlamaModel, LlamaSampler

from ...support.random_models import N_VOCAB


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def draw(context: LlamaContext, *samplers: LlamaSampler, n: int = 400) -> Counter[int]:
    """Draw tokens from one output, without telling the samplers of each other's choices."""
    chain = LlamaSampler.chain([*samplers, LlamaSampler.dist(seed=1)])
    return Counter(chain.sample(context) for _ in range(n))


def assert_drawn_from(drawn: Counter[int], probabilities: np.ndarray) -> None:
    """Nothing impossible was drawn, everything likely was, about as often as it should."""
    n = drawn.total()
    assert all(probabilities[token] > 0 for token in drawn)
    for token in np.flatnonzero(probabilities > 0.05):
        deviation = 5 * np.sqrt(n * probabilities[token] * (1 - probabilities[token]))
        assert abs(drawn[int(token)] - n * probabilities[token]) <= deviation + 1


def kept(probabilities: np.ndarray, keep: np.ndarray) -> np.ndarray:
    result = np.where(keep, probabilities, 0.0)
    return result / result.sum()


def test_greedy_selects_the_largest(told: LlamaContext, logits: np.ndarray):
    assert LlamaSampler.greedy().sample(told) == logits.argmax()
    assert LlamaSampler.chain([LlamaSampler.greedy()]).sample(told) == logits.argmax()
    assert LlamaSampler.chain([LlamaSampler.top_k(5), LlamaSampler.greedy()]).sample(told) == logits.argmax()


def test_dist_draws_by_probability(told: LlamaContext, logits: np.ndarray):
    assert_drawn_from(draw(told, LlamaSampler.temp(2.0)), softmax(logits / 2.0))


def test_temperature_zero_is_greedy(told: LlamaContext, logits: np.ndarray):
    assert draw(told, LlamaSampler.temp(0.0), n=20) == {logits.argmax(): 20}


@pytest.mark.parametrize("k", [1, 3, 40])
def test_top_k(k: int, told: LlamaContext, logits: np.ndarray):
    smallest = np.sort(logits)[-k]
    assert_drawn_from(
        draw(told, LlamaSampler.temp(3.0), LlamaSampler.top_k(k)), kept(softmax(logits / 3.0), logits >= smallest)
    )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_top_p(p: float, told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    order = np.argsort(-probabilities)
    n = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
    keep = np.zeros(N_VOCAB, bool)
    keep[order[:n]] = True
    assert_drawn_from(draw(told, LlamaSampler.temp(3.0), LlamaSampler.top_p(p)), kept(probabilities, keep))


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
def test_min_p(p: float, told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    keep = probabilities >= p * probabilities.max()
    assert_drawn_from(draw(told, LlamaSampler.temp(3.0), LlamaSampler.min_p(p)), kept(probabilities, keep))


def test_top_n_sigma(told: LlamaContext, logits: np.ndarray):
    keep = logits >= logits.max() - 1.0 * logits.std()
    assert_drawn_from(
        draw(told, LlamaSampler.top_n_sigma(1.0), LlamaSampler.temp(3.0)), kept(softmax(logits / 3.0), keep)
    )


def test_min_keep_keeps_more(told: LlamaContext):
    assert len(draw(told, LlamaSampler.temp(50.0), LlamaSampler.top_p(0.0001), n=100)) == 1
    assert len(draw(told, LlamaSampler.temp(50.0), LlamaSampler.top_p(0.0001, 4), n=100)) == 4


def test_penalties(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    second = int(np.argsort(logits)[-2])
    history = [best, best, second, 7]
    expected = logits.copy()
    for token, count in Counter(history).items():
        expected[token] = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
        expected[token] -= count * 0.4 + 0.2
    sampler = LlamaSampler.penalties(N_VOCAB, 64, 1.3, 0.4, 0.2)
    sampler.accept(history)
    assert LlamaSampler.chain([sampler, LlamaSampler.greedy()]).sample(told) == expected.argmax() != best
    sampler = LlamaSampler.penalties(N_VOCAB, 2, 1.0, 100.0, 0.0)
    sampler.accept([best, 7, 8])  # the best one is too long ago
    assert LlamaSampler.chain([sampler, LlamaSampler.greedy()]).sample(told) == best


def test_logit_bias(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    assert (
        LlamaSampler.chain([LlamaSampler.logit_bias(N_VOCAB, [(best, -np.inf)]), LlamaSampler.greedy()]).sample(told)
        == np.argsort(logits)[-2]
    )
    assert LlamaSampler.chain([LlamaSampler.logit_bias(N_VOCAB, [(77, 1e6)]), LlamaSampler.greedy()]).sample(told) == 77


def test_xtc_drops_the_most_likely_token(told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    order = np.argsort(-probabilities)
    threshold = float(probabilities[order[1]]) * 0.999  # the two most likely are above it
    assert int(order[0]) not in draw(told, LlamaSampler.temp(3.0), LlamaSampler.xtc(1.0, threshold, 0, 1))


def test_dry_breaks_a_loop(told: LlamaContext, model: LlamaModel, logits: np.ndarray):
    best = int(logits.argmax())
    loop = [5, 6, 7, best] * 4 + [5, 6, 7]
    dry = LlamaSampler.dry(model.vocab, 50.0, seq_breakers=[])
    dry.accept(loop)
    assert LlamaSampler.chain([dry, LlamaSampler.greedy()]).sample(told) != best


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaSampler.mirostat(N_VOCAB, 1, 3.0, 0.1),
        lambda: LlamaSampler.mirostat_v2(1, 3.0, 0.1),
        lambda: LlamaSampler.adaptive_p(0.3, 0.5, 1),
    ],
)
def test_samplers_that_select_by_themselves(make: Callable[[], LlamaSampler], told: LlamaContext):
    first = [make().sample(told) for _ in range(3)]
    assert len(set(first)) == 1, "the same seed makes the same choice"
    again = make()
    drawn = [again.sample(told) for _ in range(30)]
    assert len(set(drawn)) > 1
    again.reset()
    assert [again.sample(told) for _ in range(30)] == drawn


def zipf_k(probabilities: np.ndarray, surprise: float, n: int, m: int = 100) -> float:
    """Return how many tokens Mirostat 1.0 keeps: Basu et al. 2020, algorithm 1."""
    p = np.sort(probabilities[probabilities > 0])[::-1][:m]
    t = np.log(np.arange(2, len(p) + 1) / np.arange(1, len(p)))
    s = (t * np.log(p[:-1] / p[1:])).sum() / (t * t).sum()
    return ((s - 1) * 2**surprise / (1 - float(n) ** (1 - s))) ** (1 / s)


@pytest.mark.parametrize(("temperature", "tau"), [(3.0, 2.0), (3.0, 3.5), (0.7, 3.0)])
def test_mirostat_keeps_what_the_paper_says(temperature: float, tau: float, told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / temperature)
    k = int(zipf_k(probabilities, 2 * tau, N_VOCAB) + 0.01)
    smallest = np.sort(probabilities)[-max(k, 1)]
    chain = LlamaSampler.chain([LlamaSampler.temp(temperature), LlamaSampler.mirostat(N_VOCAB, 1, tau, 0.0)])
    drawn = Counter(chain.sample(told) for _ in range(400))
    assert_drawn_from(drawn, kept(probabilities, probabilities >= smallest))


@pytest.mark.parametrize("flatness", [10.0, 100.0])
def test_mirostat_draws_from_the_few_that_are_possible(flatness: float, told: LlamaContext, logits: np.ndarray):
    possible = np.arange(N_VOCAB) % (N_VOCAB // 4) == 1
    biases = [(int(token), -np.inf) for token in np.flatnonzero(~possible)]
    samplers = [LlamaSampler.logit_bias(N_VOCAB, biases), LlamaSampler.temp(flatness)]
    chain = LlamaSampler.chain([*samplers, LlamaSampler.mirostat(N_VOCAB, 1, 20.0, 0.0)])
    drawn = Counter(chain.sample(told) for _ in range(400))
    assert len(drawn) > 1
    assert_drawn_from(drawn, kept(softmax(logits / flatness), possible))


def test_mirostat_has_a_seed():
    sampler = LlamaSampler.mirostat(N_VOCAB, 7, 5.0, 0.1)
    assert (sampler.seed, LlamaSampler.chain([sampler]).seed) == (7, 7)
    assert LlamaSampler.mirostat(N_VOCAB, LLAMA_DEFAULT_SEED, 5.0, 0.1).seed != LLAMA_DEFAULT_SEED


def test_the_seed_decides(told: LlamaContext):
    def sequence(seed: int) -> list[int]:
        sampler = LlamaSampler.chain([LlamaSampler.temp(3.0), LlamaSampler.dist(seed)])
        return [sampler.sample(told) for _ in range(20)]

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)
    assert LlamaSampler.dist(7).seed == 7
    assert LlamaSampler.dist(LLAMA_DEFAULT_SEED).seed != LLAMA_DEFAULT_SEED
    assert LlamaSampler.greedy().seed == LLAMA_DEFAULT_SEED
