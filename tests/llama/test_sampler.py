"""Sampling: the mathematics against numpy, chains, grammars, samplers in the graph, and misuse of all of them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LLAMA_DEFAULT_SEED, LlamaBatch, LlamaContext, LlamaModel, LlamaSampler, LlamaVocab

from ..support.random_models import write_one_layer

S = LlamaSampler
BatchOf = Callable[..., LlamaBatch]
NewContext = Callable[..., LlamaContext]
N_VOCAB = 1280


@pytest.fixture
def told(context: LlamaContext, batch_of: BatchOf, story: list[int]) -> LlamaContext:
    """A context with one output."""
    context.decode(batch_of(story))
    return context


@pytest.fixture
def logits(told: LlamaContext) -> np.ndarray:
    return np.asarray(told.get_logits_ith()).astype(np.float64)


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def draw(context: LlamaContext, *samplers: LlamaSampler, n: int = 400) -> Counter[int]:
    """Draw tokens from one output, without telling the samplers of each other's choices."""
    chain = S.chain([*samplers, S.dist(seed=1)])
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


# --------------------------------------------------------------------------------------------------------- mathematics


def test_greedy_selects_the_largest(told: LlamaContext, logits: np.ndarray):
    assert S.greedy().sample(told) == logits.argmax()
    assert S.chain([S.greedy()]).sample(told) == logits.argmax()
    assert S.chain([S.top_k(5), S.greedy()]).sample(told) == logits.argmax()


def test_dist_draws_by_probability(told: LlamaContext, logits: np.ndarray):
    assert_drawn_from(draw(told, S.temp(2.0)), softmax(logits / 2.0))


def test_temperature_zero_is_greedy(told: LlamaContext, logits: np.ndarray):
    assert draw(told, S.temp(0.0), n=20) == {logits.argmax(): 20}


@pytest.mark.parametrize("k", [1, 3, 40])
def test_top_k(k: int, told: LlamaContext, logits: np.ndarray):
    smallest = np.sort(logits)[-k]
    assert_drawn_from(draw(told, S.temp(3.0), S.top_k(k)), kept(softmax(logits / 3.0), logits >= smallest))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_top_p(p: float, told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    order = np.argsort(-probabilities)
    n = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
    keep = np.zeros(N_VOCAB, bool)
    keep[order[:n]] = True
    assert_drawn_from(draw(told, S.temp(3.0), S.top_p(p)), kept(probabilities, keep))


@pytest.mark.parametrize("p", [0.05, 0.3, 1.0])
def test_min_p(p: float, told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    keep = probabilities >= p * probabilities.max()
    assert_drawn_from(draw(told, S.temp(3.0), S.min_p(p)), kept(probabilities, keep))


def test_top_n_sigma(told: LlamaContext, logits: np.ndarray):
    keep = logits >= logits.max() - 1.0 * logits.std()
    assert_drawn_from(draw(told, S.top_n_sigma(1.0), S.temp(3.0)), kept(softmax(logits / 3.0), keep))


def test_min_keep_keeps_more(told: LlamaContext):
    assert len(draw(told, S.temp(50.0), S.top_p(0.0001), n=100)) == 1
    assert len(draw(told, S.temp(50.0), S.top_p(0.0001, 4), n=100)) == 4


def test_penalties(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    second = int(np.argsort(logits)[-2])
    history = [best, best, second, 7]
    expected = logits.copy()
    for token, count in Counter(history).items():
        expected[token] = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
        expected[token] -= count * 0.4 + 0.2
    sampler = S.penalties(N_VOCAB, 64, 1.3, 0.4, 0.2)
    sampler.accept(history)
    assert S.chain([sampler, S.greedy()]).sample(told) == expected.argmax() != best
    sampler = S.penalties(N_VOCAB, 2, 1.0, 100.0, 0.0)
    sampler.accept([best, 7, 8])  # the best one is too long ago
    assert S.chain([sampler, S.greedy()]).sample(told) == best


def test_logit_bias(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    assert S.chain([S.logit_bias(N_VOCAB, [(best, -np.inf)]), S.greedy()]).sample(told) == np.argsort(logits)[-2]
    assert S.chain([S.logit_bias(N_VOCAB, [(77, 1e6)]), S.greedy()]).sample(told) == 77


def test_xtc_drops_what_everybody_expects(told: LlamaContext, logits: np.ndarray):
    probabilities = softmax(logits / 3.0)
    order = np.argsort(-probabilities)
    threshold = float(probabilities[order[1]]) * 0.999  # the two most likely are above it
    assert int(order[0]) not in draw(told, S.temp(3.0), S.xtc(1.0, threshold, 0, 1))


def test_dry_breaks_a_loop(told: LlamaContext, model: LlamaModel, logits: np.ndarray):
    best = int(logits.argmax())
    loop = [5, 6, 7, best] * 4 + [5, 6, 7]
    dry = S.dry(model.vocab, 50.0, seq_breakers=[])
    dry.accept(loop)
    assert S.chain([dry, S.greedy()]).sample(told) != best


@pytest.mark.parametrize(
    "make",
    [lambda: S.mirostat(N_VOCAB, 1, 3.0, 0.1), lambda: S.mirostat_v2(1, 3.0, 0.1), lambda: S.adaptive_p(0.3, 0.5, 1)],
)
def test_samplers_that_select_by_themselves(make: Callable[[], LlamaSampler], told: LlamaContext):
    first = [make().sample(told) for _ in range(3)]
    assert len(set(first)) == 1, "the same seed makes the same choice"
    again = make()
    drawn = [again.sample(told) for _ in range(30)]
    assert len(set(drawn)) > 1
    again.reset()
    assert [again.sample(told) for _ in range(30)] == drawn


def test_the_seed_decides(told: LlamaContext):
    def sequence(seed: int) -> list[int]:
        sampler = S.chain([S.temp(3.0), S.dist(seed)])
        return [sampler.sample(told) for _ in range(20)]

    assert sequence(1) == sequence(1)
    assert sequence(1) != sequence(2)
    assert S.dist(7).seed == 7
    assert S.dist(LLAMA_DEFAULT_SEED).seed != LLAMA_DEFAULT_SEED
    assert S.greedy().seed == LLAMA_DEFAULT_SEED


# -------------------------------------------------------------------------------------------------------------- chains


def test_a_chain_takes_its_samplers_over(told: LlamaContext):
    greedy = S.greedy()
    chain = S.chain([S.top_k(5)])
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
    top_k, greedy = S.top_k(1), S.greedy()
    for samplers, error in (
        ([top_k, greedy, greedy], ValueError),
        ([top_k, greedy, S.chain()], TypeError),
        ([top_k, greedy, None], TypeError),
        ([top_k, S.penalties(5, 1, 2.0), S.penalties(6, 1, 2.0)], ValueError),
    ):
        with pytest.raises(error):
            S.chain(samplers)  # type: ignore[arg-type]
    assert S.chain([top_k, greedy]).sample(told) == S.greedy().sample(told)
    chain = S.chain()
    with pytest.raises(ValueError, match="itself"):
        chain.add(chain)
    with pytest.raises(TypeError, match="only a chain"):
        S.greedy().add(S.greedy())


def test_a_chain_that_selects_nothing_says_so(told: LlamaContext):
    for sampler in (S.top_k(5), S.chain(), S.chain([S.temp(1.0)])):
        with pytest.raises(RuntimeError, match="selects no token"):
            sampler.sample(told)


def test_a_clone_goes_its_own_way(told: LlamaContext):
    chain = S.chain([S.penalties(N_VOCAB, 64, 2.0, 1.0), S.temp(2.0), S.dist(3)])
    for _ in range(5):
        chain.sample(told)
    clone = chain.clone()
    ahead = [clone.sample(told) for _ in range(10)]
    assert [chain.sample(told) for _ in range(10)] == ahead
    del chain
    gc.collect()
    clone.sample(told)


def test_a_clone_after_a_selection_that_was_never_accepted(told: LlamaContext, model: LlamaModel):
    adaptive = [S.adaptive_p(0.5, 0.5, 1), S.grammar(model.vocab, 'root ::= "zzzzzz"')]
    chain = S.chain([S.logit_bias(N_VOCAB, [(token, -np.inf) for token in range(1, N_VOCAB)]), *reversed(adaptive)])
    with pytest.raises(RuntimeError, match="does not fit the grammar"):
        chain.sample(told)
    clone = chain.clone()
    for token in range(0, N_VOCAB, 50):
        with pytest.raises(RuntimeError, match="does not fit"):
            clone.accept([token])


@pytest.mark.parametrize(
    "make",
    [
        lambda: S.temp(float("nan")),
        lambda: S.top_p(float("inf")),
        lambda: S.temp_ext(1.0, float("nan"), 1.0),
        lambda: S.penalties(N_VOCAB, 64, 0.0),
        lambda: S.penalties(N_VOCAB, -1),
        lambda: S.penalties(0, 1),
        lambda: S.penalties(N_VOCAB, 2**31 - 1),
        lambda: S.mirostat(N_VOCAB, 1, 1.0, 1.0, 1),
        lambda: S.mirostat(-1, 1, 1.0, 1.0),
        lambda: S.adaptive_p(0.5, 1.0),
        lambda: S.logit_bias(N_VOCAB, [(N_VOCAB, 1.0)]),
        lambda: S.logit_bias(N_VOCAB, [(-1, 1.0)]),
        lambda: S.logit_bias(N_VOCAB, [(1, float("nan"))]),
    ],
)
def test_parameters_out_of_range(make: Callable[[], LlamaSampler]):
    with pytest.raises(ValueError, match=r"must be|out of range"):
        make()


def test_tokens_out_of_range(model: LlamaModel):
    sampler = S.penalties(N_VOCAB, 64, 1.1)
    for token in (-1, N_VOCAB, 2**31 - 1):
        with pytest.raises(ValueError, match="out of range"):
            sampler.accept([1, token])


def test_samplers_of_another_vocabulary(told: LlamaContext):
    for sampler in (S.penalties(100, 64, 1.1), S.chain([S.logit_bias(100, [(1, 1.0)]), S.greedy()])):
        with pytest.raises(ValueError, match="vocabulary of 100 tokens, not of 1280"):
            sampler.sample(told)


def test_a_model_that_computes_nan_is_reported(tmp_path: Path, new_context: NewContext, batch_of: BatchOf):
    context = new_context(LlamaModel(write_one_layer(tmp_path / "llama.gguf", nan=True)))
    context.decode(batch_of())
    for sampler in (S.greedy(), S.dist(1), S.chain([S.top_k(40), S.top_p(0.9), S.dist(1)]), S.mirostat_v2(1, 5.0, 0.1)):
        with pytest.raises(RuntimeError, match="not numbers"):
            sampler.sample(context)


def test_parameters_that_make_nan_are_reported(told: LlamaContext, logits: np.ndarray):
    best = int(logits.argmax())
    both = [S.logit_bias(N_VOCAB, [(best, np.inf)]), S.logit_bias(N_VOCAB, [(best, -np.inf)])]
    with pytest.raises(RuntimeError, match="not numbers"):
        S.chain([*both, S.typical(0.5), S.dist(1)]).sample(told)


def test_samplers_keep_what_they_need(tiny_chat: Path, told: LlamaContext):
    sampler = S.chain([S.grammar(LlamaModel(tiny_chat).vocab, "root ::= [a-z ]+"), S.greedy()])
    gc.collect()
    assert sampler.sample(told) >= 0
    model = LlamaModel(tiny_chat)
    grammar = S.grammar(model.vocab, "root ::= [a-z]+")
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


# ------------------------------------------------------------------------------------ few tokens of a large vocabulary


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
        samplers = [*first, S.logit_bias(20_000, biases)]
        samplers += [S.penalties(20_000, *penalties)] if penalties else []
        chain = S.chain([*samplers, *(getattr(S, name)(*arguments) for name, *arguments in last)])
        chain.accept(accepted)
        return chain

    few, all_of_them = chain(), chain(S.top_n_sigma(0))  # which does nothing, but might do anything
    tokens, expected = ([sampler.sample(context) for _ in range(4)] for sampler in (few, all_of_them))
    assert logits[tokens].tolist() == logits[expected].tolist(), "tokens with the same logit are in any order"


def test_several_biases_of_a_token_add_up(large_vocabulary: LlamaContext):
    context = large_vocabulary
    first, second = logits_after(context, 7).argsort()[::-1][:2].tolist()
    for biases, expected in (([0.5, -np.inf], second), ([-100.0, 100.0], first), ([-100.0, 99.5, 0.5], first)):
        chain = S.chain([S.logit_bias(20_000, [(first, bias) for bias in biases]), S.greedy()])
        assert chain.sample(context) == expected


# ------------------------------------------------------------------------------------------------------------- grammar


def write(context: LlamaContext, vocab: LlamaVocab, sampler: LlamaSampler, batch_of: BatchOf, n: int = 60) -> str:
    """Generate until the end."""
    tokens: list[int] = []
    while len(tokens) < n:
        token = sampler.sample(context)
        if vocab.is_eog(token):
            break
        tokens.append(token)
        assert context.decode(batch_of([token], context.seq_pos_max(0) + 1)) == 0
    return vocab.detokenize(tokens).decode()


def test_a_grammar_decides_the_form(told: LlamaContext, model: LlamaModel, batch_of: BatchOf):
    grammar = S.grammar(model.vocab, 'root ::= "{\\"age\\": " [1-9] [0-9] "}"')
    text = write(told, model.vocab, S.chain([grammar, S.greedy()]), batch_of)
    assert text[:8] == '{"age": '
    assert text[8:10].isdecimal()
    assert text[10:] == "}"


GRAMMARS = {
    "json": r"""root ::= "{" space pair ("," space pair)* "}"
pair ::= "\"" [^"\\]* "\"" space ":" space ("\"" [^"\\]* "\"" | [0-9]+ | "true" | "null")
space ::= " "?""",
    "words": 'root ::= ([a-z]+ " ")* "."',
    "any": "root ::= .*",
    "other scripts": "root ::= [\\u0080-\\uFFFF]+ [^a-z]",
    "emoji": 'root ::= [\\U0001F600-\\U0001F64F]{2,} | "\\U0001F600 no"',
    "either": 'root ::= "fox" | "fo" [a-z]+ "y" | "f"? [0-9]{1,3} ("th" | "st")*',
    "nothing more": 'root ::= ""',
    "tokens": 'root ::= <[300]> [a-z]+ | !<[301]> "!"',
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_what_is_left_of_all_tokens_is_what_fits_one_by_one(told: LlamaContext, model: LlamaModel, name: str):
    """Tokens are found by following the grammar through their texts, and tested here each by itself."""
    vocab, rng = model.vocab, np.random.default_rng(sum(name.encode()))
    grammar = S.grammar(vocab, GRAMMARS[name])
    for _ in range(6):
        fits = {token for token in range(N_VOCAB) if not refuses(grammar, token)}
        others = sorted(set(range(N_VOCAB)) - fits)
        assert fits
        for token in rng.choice(sorted(fits), min(len(fits), 60), replace=False).tolist():
            if not others:
                break
            wrong = [(int(rng.choice(others)), 2000.0), (token, 1000.0)]  # what it would be, and what is next to that
            assert S.chain([grammar.clone(), S.logit_bias(N_VOCAB, wrong), S.greedy()]).sample(told) == token
        for token in rng.choice(others, min(len(others), 60), replace=False).tolist():
            chain = S.chain([grammar.clone(), S.logit_bias(N_VOCAB, [(token, 1000.0)]), S.greedy()])
            assert chain.sample(told) in fits
        grammar.accept([int(rng.choice(sorted(fits)))])


def refuses(grammar: LlamaSampler, token: int) -> bool:
    try:
        grammar.clone().accept([token])
    except RuntimeError:
        return True
    return False


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_grammar_and_what_learns_from_its_choices(told: LlamaContext, model: LlamaModel, temperature: float):
    for learning in (S.mirostat(N_VOCAB, 1, 5.0, 0.1), S.mirostat_v2(1, 5.0, 0.1), S.adaptive_p(0.3, 0.9, 1)):
        chain = S.chain([S.grammar(model.vocab, "root ::= [0-9]{10}"), S.temp(temperature), learning])
        for _ in range(10):
            assert model.vocab.token_to_piece(chain.sample(told)).isdigit()


def test_a_lazy_grammar_waits_for_its_trigger(told: LlamaContext, model: LlamaModel, batch_of: BatchOf):
    fox = model.vocab.tokenize(" fox", False)
    lazy = S.grammar_lazy(model.vocab, 'root ::= " fox" "!!!"', "root", ["[\\s\\S]*?( fox)[\\s\\S]*"], [])
    chain = S.chain([lazy, S.greedy()])
    chain.accept(model.vocab.tokenize("There is no animal yet, anything goes", False))
    chain.accept(fox)
    assert write(told, model.vocab, chain, batch_of) == "!!!"


def test_tokens_that_do_not_fit_are_refused_and_nothing_is_lost(
    told: LlamaContext, model: LlamaModel, batch_of: BatchOf
):
    vocab = model.vocab
    chain = S.chain([S.grammar(vocab, 'root ::= "abc"'), S.greedy()])
    for token in (vocab.tokenize("x", False)[0], vocab.eos):
        with pytest.raises(RuntimeError, match=f"token {token} does not fit the grammar"):
            chain.accept([token])
    assert write(told, vocab, chain, batch_of) == "abc"
    with pytest.raises(RuntimeError, match="does not fit"):
        chain.accept([5])
    chain.reset()
    assert write(told, vocab, chain, batch_of) == "abc"


def test_a_grammar_whose_trigger_does_not_fit_needs_a_reset(told: LlamaContext, model: LlamaModel):
    lazy = S.grammar_lazy(model.vocab, 'root ::= "abc"', "root", ["(x)"], [])
    with pytest.raises(RuntimeError):
        lazy.accept(model.vocab.tokenize("x", False))
    for use in (lambda: lazy.accept([5]), lambda: S.chain([lazy.clone(), S.greedy()]).sample(told)):
        with pytest.raises(RuntimeError, match=r"reset\(\)"):
            use()
    lazy.reset()
    lazy.accept(model.vocab.tokenize("abc", False))


@pytest.mark.parametrize(
    "grammar",
    [
        "root",
        "root ::= (",
        'root ::= "a',
        "root ::= [a",
        "root ::= undefined",
        "root ::= *",
        "root ::= root",
        'root ::= root "a" | "b"',
        'a ::= ""\nb ::= a\nroot ::= b root "x" | "y"',  # left recursion behind what is empty in two steps
        'a ::= ""\nb ::= a\nroot ::= b root',
        'root ::= "a"{5,2}',
        'root ::= "a"{ 5 , #\n 2 }',
        'root ::= "a"{99999999999999999999}',
        'root ::= (("a"{1000}){1000}){1000}',
        "root ::= <nothing>",
        "x ::= [a-z]",
        "%llguidance {}",
    ],
)
def test_grammars_that_are_none(grammar: str, in_process: Callable[..., str]):
    code = f"""
logging.disable()
print(raised(LlamaSampler.grammar, load().vocab, {grammar!r}))
"""
    assert in_process(code).startswith("ValueError: ")


def test_repetitions_in_text_are_text(told: LlamaContext, model: LlamaModel, batch_of: BatchOf):
    grammar = 'root ::= "{5,2}" [{5,2}]{2,3} # {5,2}'
    text = write(told, model.vocab, S.chain([S.grammar(model.vocab, grammar), S.greedy()]), batch_of)
    assert text.startswith("{5,2}")


def test_an_empty_grammar_allows_everything(told: LlamaContext, model: LlamaModel):
    chain = S.chain([S.grammar(model.vocab, ""), S.greedy()])
    assert chain.sample(told) == S.greedy().sample(told)
    chain.reset()
    assert chain.clone().sample(told) == S.greedy().sample(told)


@pytest.mark.parametrize("depth", [1000, 50_000])
def test_deep_grammars_do_not_overflow_the_stack(depth: int, in_process: Callable[..., str]):
    code = f"""
vocab, n = load().vocab, {depth}
for text in ("root ::= " + "(" * n + '"a"' + ")" * n,
             "root ::= r0\\n" + "".join(f"r{{i}} ::= r{{i + 1}}\\n" for i in range(n)) + f'r{{n}} ::= "a"\\n'):
    sampler = LlamaSampler.grammar(vocab, text)
    sampler.accept(vocab.tokenize("a", False))
    sampler.reset()
    sampler.clone().accept(vocab.tokenize("a", False))
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_trigger_patterns_that_are_none(model: LlamaModel):
    for pattern in ("(", "[", "a{2,1}", "a" * 200_000):
        with pytest.raises(ValueError, match="trigger pattern cannot be parsed"):
            S.grammar_lazy(model.vocab, 'root ::= "a"', "root", [pattern], [])
    with pytest.raises(ValueError, match="ids 0 to"):
        S.grammar_lazy(model.vocab, 'root ::= "a"', "root", [], [N_VOCAB])


def test_a_trigger_pattern_searched_for_in_a_long_text(in_process: Callable[..., str]):
    code = """
vocab = load().vocab
sampler = LlamaSampler.grammar_lazy(vocab, 'root ::= "a"', "root", [r"begin([\\s\\S])*?(zzz)"], [])
def feed():
    sampler.accept(vocab.tokenize("begin" + " and so on" * 800, False))
    print("fine")
threading.stack_size(1 << 20)  # std::regex recurses for each character, and this thread has no room for 8000
thread = threading.Thread(target=feed)
thread.start()
thread.join()
"""
    assert in_process(code) == "fine\n"


def test_infill(told: LlamaContext, model: LlamaModel):
    assert 0 <= S.chain([S.top_k(40), S.top_p(0.9), S.infill(model.vocab), S.greedy()]).sample(told) < N_VOCAB


# ------------------------------------------------------------------------------------------------- decode and sample


def test_decode_and_sample_is_decode_then_sample(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    one, two = new_context(), new_context()
    status, tokens, _ = one.decode_and_sample(batch_of(story), [(len(story) - 1, S.greedy())])
    two.decode(batch_of(story))
    assert (status, tokens) == (0, [S.greedy().sample(two)])
    one.abort()
    assert one.decode_and_sample(batch_of([1], len(story)), [(0, S.greedy())]) == (2, [], {})


def test_decode_and_sample_checks_before_it_computes(context: LlamaContext, batch_of: BatchOf):
    for index in (-1, 0, 3, 2**31 - 1):
        with pytest.raises(IndexError, match="no logits to sample from"):
            context.decode_and_sample(batch_of(), [(index, S.greedy())])
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


# ----------------------------------------------------------------------------------------------------------- in graph


def test_a_sampler_in_the_graph_selects_as_outside(new_context: NewContext, batch_of: BatchOf, story: list[int]):
    outside = new_context()
    outside.decode(batch_of(story))
    for samplers in (
        [S.greedy()],
        [S.min_p(0.1), S.greedy()],
        [S.temp(0.5), S.greedy()],
        [S.top_k(1), S.dist(1)],
        [S.top_k(5), S.temp(0.0), S.dist(1)],
        [S.top_p(0.0001), S.dist(1)],
        [S.temp(2.0), S.logit_bias(N_VOCAB, [(9, 50.0)]), S.greedy()],
        [S.penalties(N_VOCAB, 8, 1.1), S.greedy()],
    ):
        expected = S.chain([sampler.clone() for sampler in samplers]).sample(outside)
        inside = S.chain(samplers)
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
    chain = S.chain([S.top_k(3), S.typical(0.9), S.dist(1)])
    context = new_context(samplers=[(0, chain)])
    for _ in range(3):
        context.kv_cache_clear()
        context.decode(batch_of(story))
        assert chain.sample(context) in top
    incomplete = S.chain([S.top_k(3)])
    context = new_context(samplers=[(0, incomplete)])
    context.decode(batch_of(story))
    with pytest.raises(RuntimeError, match="selects no token"):
        incomplete.sample(context)


def test_logits_that_stayed_in_the_graph_are_not_read(new_context: NewContext, batch_of: BatchOf):
    chain, other = S.chain([S.greedy()]), S.chain([S.top_k(1), S.dist(1)])
    context = new_context(n_seq_max=3, n_ctx=768, kv_unified=True, samplers=[(0, chain), (1, other)])
    batch = LlamaBatch(3, n_seq_max=2)
    for seq_id in range(3):
        batch.add(1, 0, [seq_id], logits=True)
    context.decode(batch)
    for sampler, i in ((S.greedy(), 0), (chain, 1), (other, 0), (chain, 2), (chain.clone(), 0)):
        with pytest.raises(RuntimeError, match=r"in the graph|context's graph"):
            sampler.sample(context, i)
    with pytest.raises(RuntimeError, match="its logits stayed there"):
        context.get_logits_ith(0)
    assert {chain.sample(context, 0), other.sample(context, 1), S.greedy().sample(context, 2)} == {
        S.greedy().sample(context, 2)
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
        (lambda: [S.dist(1), S.dist(2)], "dist in the graph must be the last"),
        (
            lambda: [S.top_k(5), S.logit_bias(N_VOCAB, [(1000, 1.0)]), S.dist(1)],
            "logit-bias in the graph cannot follow",
        ),
        (
            lambda: [S.temp(0.0), S.logit_bias(N_VOCAB, [(1000, 1.0)]), S.dist(1)],
            "logit-bias in the graph cannot follow",
        ),
        (lambda: [S.top_k(5), S.greedy()], "greedy in the graph cannot follow"),
        (lambda: [S.top_p(0.5), S.greedy()], "greedy in the graph cannot follow"),
        (lambda: [S.top_k(N_VOCAB + 1), S.dist(1)], "top_k in the graph"),
        (lambda: [S.top_k(5), S.top_k(6), S.dist(1)], "top_k in the graph"),
        (lambda: [S.temp(0.0), S.top_k(2), S.dist(1)], "top_k in the graph"),
        (lambda: [S.penalties(5000, 64, 1.1), S.greedy()], "vocabulary of 5000"),
    ],
)
def test_chains_that_llama_cpp_would_abort_on_or_get_wrong(
    samplers: Callable[[], Sequence[LlamaSampler]], why: str, new_context: NewContext
):
    with pytest.raises(ValueError, match=why):
        new_context(samplers=[(0, S.chain(list(samplers())))])


def test_a_chain_serves_one_context_and_one_sequence(new_context: NewContext):
    chain = S.chain([S.top_k(5), S.dist(1)])
    with pytest.raises(ValueError, match="of its own"):
        new_context(n_seq_max=2, samplers=[(0, chain), (1, chain)])
    with pytest.raises(ValueError, match="of its own"):
        new_context(samplers=[(0, chain), (0, S.chain([S.greedy()]))])
    with pytest.raises(ValueError, match="sequence id"):
        new_context(samplers=[(1, chain)])
    context = new_context(samplers=[(0, chain)])
    context.close()
    with pytest.raises(ValueError, match="one context only"):
        new_context(samplers=[(0, chain)])
    with pytest.raises(RuntimeError, match="cannot change any more"):
        chain.add(S.greedy())
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
