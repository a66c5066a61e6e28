"""Samplers of grammars: what they allow, when they begin, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cyllama.llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler, LlamaVocab

from ...support.contexts import BatchOf
from ...support.random_models import N_VOCAB


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
    grammar = LlamaSampler.grammar(model.vocab, 'root ::= "{\\"age\\": " [1-9] [0-9] "}"')
    text = write(told, model.vocab, LlamaSampler.chain([grammar, LlamaSampler.greedy()]), batch_of)
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
    grammar = LlamaSampler.grammar(vocab, GRAMMARS[name])
    for _ in range(6):
        fits = {token for token in range(N_VOCAB) if not refuses(grammar, token)}
        others = sorted(set(range(N_VOCAB)) - fits)
        assert fits
        for token in rng.choice(sorted(fits), min(len(fits), 60), replace=False).tolist():
            if not others:
                break
            wrong = [(int(rng.choice(others)), 2000.0), (token, 1000.0)]  # what it would be, and what is next to that
            assert (
                LlamaSampler.chain(
                    [grammar.clone(), LlamaSampler.logit_bias(N_VOCAB, wrong), LlamaSampler.greedy()]
                ).sample(told)
                == token
            )
        for token in rng.choice(others, min(len(others), 60), replace=False).tolist():
            chain = LlamaSampler.chain(
                [grammar.clone(), LlamaSampler.logit_bias(N_VOCAB, [(token, 1000.0)]), LlamaSampler.greedy()]
            )
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
    for learning in (
        LlamaSampler.mirostat(N_VOCAB, 1, 5.0, 0.1),
        LlamaSampler.mirostat_v2(1, 5.0, 0.1),
        LlamaSampler.adaptive_p(0.3, 0.9, 1),
    ):
        chain = LlamaSampler.chain(
            [LlamaSampler.grammar(model.vocab, "root ::= [0-9]{10}"), LlamaSampler.temp(temperature), learning]
        )
        for _ in range(10):
            assert model.vocab.token_to_piece(chain.sample(told)).isdigit()


def test_a_lazy_grammar_waits_for_its_trigger(told: LlamaContext, model: LlamaModel, batch_of: BatchOf):
    fox = model.vocab.tokenize(" fox", False)
    lazy = LlamaSampler.grammar_lazy(model.vocab, 'root ::= " fox" "!!!"', "root", ["[\\s\\S]*?( fox)[\\s\\S]*"], [])
    chain = LlamaSampler.chain([lazy, LlamaSampler.greedy()])
    chain.accept(model.vocab.tokenize("There is no animal yet, anything goes", False))
    chain.accept(fox)
    assert write(told, model.vocab, chain, batch_of) == "!!!"


def test_tokens_that_do_not_fit_are_refused_and_nothing_is_lost(
    told: LlamaContext, model: LlamaModel, batch_of: BatchOf
):
    vocab = model.vocab
    chain = LlamaSampler.chain([LlamaSampler.grammar(vocab, 'root ::= "abc"'), LlamaSampler.greedy()])
    for token in (vocab.tokenize("x", False)[0], vocab.eos):
        with pytest.raises(RuntimeError, match=f"token {token} does not fit the grammar"):
            chain.accept([token])
    assert write(told, vocab, chain, batch_of) == "abc"
    with pytest.raises(RuntimeError, match="does not fit"):
        chain.accept([5])
    chain.reset()
    assert write(told, vocab, chain, batch_of) == "abc"


def test_a_grammar_whose_trigger_does_not_fit_needs_a_reset(told: LlamaContext, model: LlamaModel):
    lazy = LlamaSampler.grammar_lazy(model.vocab, 'root ::= "abc"', "root", ["(x)"], [])
    with pytest.raises(RuntimeError):
        lazy.accept(model.vocab.tokenize("x", False))
    for use in (
        lambda: lazy.accept([5]),
        lambda: LlamaSampler.chain([lazy.clone(), LlamaSampler.greedy()]).sample(told),
    ):
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
def test_grammars_that_are_not_valid(grammar: str, in_process: Callable[..., str]):
    code = f"""
logging.disable()
print(raised(LlamaSampler.grammar, load().vocab, {grammar!r}))
"""
    assert in_process(code).startswith("ValueError: ")


def test_repetitions_in_text_are_text(told: LlamaContext, model: LlamaModel, batch_of: BatchOf):
    grammar = 'root ::= "{5,2}" [{5,2}]{2,3} # {5,2}'
    text = write(
        told,
        model.vocab,
        LlamaSampler.chain([LlamaSampler.grammar(model.vocab, grammar), LlamaSampler.greedy()]),
        batch_of,
    )
    assert text.startswith("{5,2}")


def test_an_empty_grammar_allows_everything(told: LlamaContext, model: LlamaModel):
    chain = LlamaSampler.chain([LlamaSampler.grammar(model.vocab, ""), LlamaSampler.greedy()])
    assert chain.sample(told) == LlamaSampler.greedy().sample(told)
    chain.reset()
    assert chain.clone().sample(told) == LlamaSampler.greedy().sample(told)


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


def test_trigger_patterns_that_are_not_valid(model: LlamaModel):
    for pattern in ("(", "[", "a{2,1}", "a" * 200_000):
        with pytest.raises(ValueError, match="trigger pattern cannot be parsed"):
            LlamaSampler.grammar_lazy(model.vocab, 'root ::= "a"', "root", [pattern], [])
    with pytest.raises(ValueError, match="ids 0 to"):
        LlamaSampler.grammar_lazy(model.vocab, 'root ::= "a"', "root", [], [N_VOCAB])


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
    assert (
        0
        <= LlamaSampler.chain(
            [LlamaSampler.top_k(40), LlamaSampler.top_p(0.9), LlamaSampler.infill(model.vocab), LlamaSampler.greedy()]
        ).sample(told)
        < N_VOCAB
    )
