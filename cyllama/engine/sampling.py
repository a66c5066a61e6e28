"""A native sampler chain from a :class:`~cyllama.config.GenerationConfig`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from ..config import MAX_HISTORY, GenerationConfig, Sampler
from ..llama.llama_cpp import LLAMA_DEFAULT_SEED, LlamaSampler, LlamaVocab

MIROSTAT_M = 100  # tokens to estimate s_hat from, as in the paper and in llama.cpp's `common`


def sampler_maker(
    config: GenerationConfig, vocab: LlamaVocab, n_ctx: int, first: Sequence[LlamaSampler] = ()
) -> Callable[[Sequence[int]], LlamaSampler]:
    """Return a function that makes the sampler of one generation, in the order of llama.cpp's ``common_sampler_init``.

    Call the function once, with the token ids of the prompt: penalties count them as seen. It is fast; what takes time
    is done here.

    Args:
        config: The sampling options.
        vocab: The vocabulary of the model.
        n_ctx: Tokens that a look-back of -1 stands for.
        first: Samplers before all others, such as one that allows only the tokens of a grammar. They become parts of
            the sampler.
    """
    samplers = list(_samplers(config, vocab, n_ctx))
    look_back = _look_back(config, n_ctx)

    def make(prompt: Sequence[int]) -> LlamaSampler:
        if look_back:
            for sampler in samplers:
                sampler.accept(list(prompt[-look_back:]))
        return LlamaSampler.chain([*first, *samplers])  # those of first do not depend on the prompt, or have seen it

    return make


def _samplers(config: GenerationConfig, vocab: LlamaVocab, n_ctx: int) -> Iterator[LlamaSampler]:
    seed = _seed(config)
    biases = _biases(config, vocab)
    if biases:
        yield LlamaSampler.logit_bias(vocab.n_tokens, biases)
    if config.mirostat:
        yield LlamaSampler.temp(config.temperature)
        if config.mirostat == 1:
            yield LlamaSampler.mirostat(vocab.n_tokens, seed, config.mirostat_tau, config.mirostat_eta, MIROSTAT_M)
        else:
            yield LlamaSampler.mirostat_v2(seed, config.mirostat_tau, config.mirostat_eta)
        return
    for name in config.samplers:
        if config.temperature > 0 or name in (
            "penalties",
            "dry",
        ):  # no other changes which token is the most likely one
            yield from _METHODS[name](config, vocab, n_ctx)
    yield LlamaSampler.greedy() if config.temperature == 0 else LlamaSampler.dist(seed)


def _penalties(config: GenerationConfig, vocab: LlamaVocab, n_ctx: int) -> Iterator[LlamaSampler]:
    if _penalises(config):
        yield LlamaSampler.penalties(
            vocab.n_tokens,
            _resolve(config.penalty_last_n, n_ctx),
            config.repeat_penalty,
            config.frequency_penalty,
            config.presence_penalty,
        )


def _dry(config: GenerationConfig, vocab: LlamaVocab, n_ctx: int) -> Iterator[LlamaSampler]:
    if config.dry_multiplier > 0:
        yield LlamaSampler.dry(
            vocab,
            config.dry_multiplier,
            config.dry_base,
            config.dry_allowed_length,
            _resolve(config.dry_penalty_last_n, n_ctx),
            list(config.dry_sequence_breakers),
        )


def _top_n_sigma(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.top_n_sigma > 0:
        yield LlamaSampler.top_n_sigma(config.top_n_sigma)


def _top_k(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.top_k:
        yield LlamaSampler.top_k(config.top_k)


def _typical_p(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.typical_p < 1:
        yield LlamaSampler.typical(config.typical_p)


def _top_p(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.top_p < 1:
        yield LlamaSampler.top_p(config.top_p)


def _min_p(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.min_p > 0:
        yield LlamaSampler.min_p(config.min_p)


def _xtc(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    if config.xtc_probability > 0:
        yield LlamaSampler.xtc(config.xtc_probability, config.xtc_threshold, seed=_seed(config))


def _temperature(config: GenerationConfig, *_: object) -> Iterator[LlamaSampler]:
    yield LlamaSampler.temp(config.temperature)


_METHODS: dict[Sampler, Callable[[GenerationConfig, LlamaVocab, int], Iterator[LlamaSampler]]] = {
    "penalties": _penalties,
    "dry": _dry,
    "top_n_sigma": _top_n_sigma,
    "top_k": _top_k,
    "typ_p": _typical_p,
    "top_p": _top_p,
    "min_p": _min_p,
    "xtc": _xtc,
    "temperature": _temperature,
}


def _seed(config: GenerationConfig) -> int:
    return LLAMA_DEFAULT_SEED if config.seed is None else config.seed


def _penalises(config: GenerationConfig) -> bool:
    strengths = (config.repeat_penalty, config.frequency_penalty, config.presence_penalty)
    return "penalties" in config.samplers and config.penalty_last_n != 0 and strengths != (1.0, 0.0, 0.0)


def _look_back(config: GenerationConfig, n_ctx: int) -> int:
    """Return how many of the last tokens of the prompt the samplers need."""
    if config.mirostat:
        return 0
    penalties = _resolve(config.penalty_last_n, n_ctx) if _penalises(config) else 0
    repeats = "dry" in config.samplers and config.dry_multiplier > 0
    dry = _resolve(config.dry_penalty_last_n, n_ctx) if repeats else 0
    return max(penalties, dry)


def _resolve(last_n: int, n_ctx: int) -> int:
    return min(n_ctx, MAX_HISTORY) if last_n < 0 else last_n


def _biases(config: GenerationConfig, vocab: LlamaVocab) -> list[tuple[int, float]]:
    biases = dict.fromkeys(vocab.suppress_tokens(), -math.inf)
    biases |= config.logit_bias
    if config.ignore_eos:
        biases |= dict.fromkeys(vocab.eog_tokens(), -math.inf)
    return list(biases.items())
