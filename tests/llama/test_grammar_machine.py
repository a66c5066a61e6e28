"""Grammars followed through texts: the same as by llama.cpp's stacks, without their number, and within a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, LlamaSampler, check_grammar

ALPHABET = "abc"

# ------------------------------------------------------------------------ a reference: every way of reading has a stack


class Ref(NamedTuple):
    rule: int


Rules = list[list[list["str | Ref"]]]  # alternates of each rule: sets of characters, and rules


def is_left_recursive(rules: Rules) -> bool:
    empty: set[int] = set()
    while True:
        known = {Ref(i) for i in empty}
        more = {i for i, rule in enumerate(rules) if any(all(part in known for part in alt) for alt in rule)}
        if more == empty:
            break
        empty = more
    begins: dict[int, set[int]] = {}
    for i, rule in enumerate(rules):
        begins[i] = set()
        for alternate in rule:
            for part in alternate:
                if isinstance(part, Ref):
                    begins[i].add(part.rule)
                if not (isinstance(part, Ref) and part.rule in empty):
                    break
    for _ in rules:
        for i in begins:
            begins[i] |= {k for j in begins[i] for k in begins[j]}
    return any(i in begins[i] for i in begins)


def as_gbnf(rules: Rules) -> str:
    def part(x: str | Ref) -> str:
        return f"r{x.rule}" if isinstance(x, Ref) else f"[{x}]"

    lines = [
        f"r{i} ::= " + " | ".join(" ".join(map(part, alt)) or '""' for alt in rule) for i, rule in enumerate(rules)
    ]
    return "\n".join(["root ::= r0", *lines])


Stack = tuple["str | Ref", ...]  # what is left to read, the next part last


def expand(rules: Rules, stacks: set[Stack]) -> set[Stack]:
    """Return the stacks whose next part is a character, or that are empty."""
    done: set[Stack] = set()
    todo, seen = list(stacks), set(stacks)
    while todo:
        stack = todo.pop()
        if not stack or isinstance(stack[-1], str):
            done.add(stack)
            continue
        for alternate in rules[stack[-1].rule]:
            longer = stack[:-1] + tuple(reversed(alternate))
            if longer not in seen:
                seen.add(longer)
                todo.append(longer)
    return done


def read(rules: Rules, stacks: set[Stack], character: str) -> set[Stack]:
    return expand(rules, {stack[:-1] for stack in stacks if stack and character in str(stack[-1])})


# ----------------------------------------------------------------------------------------------------------- comparison


@st.composite
def grammars(draw: st.DrawFn) -> Rules:
    n = draw(st.integers(1, 5))
    characters = st.sampled_from(["a", "b", "c", "ab", "bc", "abc"])
    part = st.one_of(characters, st.builds(Ref, st.integers(0, n - 1)))
    alternate = st.lists(part, max_size=4)
    return draw(st.lists(st.lists(alternate, min_size=1, max_size=3), min_size=n, max_size=n))


@pytest.fixture(scope="module")
def tokens(model: LlamaModel) -> dict[str, int]:
    found = {model.vocab.token_to_piece(token): token for token in range(model.vocab.n_tokens)}
    return {character: found[character.encode()] for character in ALPHABET + "()[]x0"}


def allowed(sampler: LlamaSampler, tokens: dict[str, int], eos: int) -> set[str]:
    def allows(token: int) -> bool:
        try:
            sampler.clone().accept([token])
        except RuntimeError:
            return False
        return True

    characters = {character for character in ALPHABET if allows(tokens[character])}
    return characters | ({"end"} if allows(eos) else set())


@settings(deadline=None, max_examples=150)
@given(rules=grammars(), choices=st.lists(st.integers(0, 2), max_size=7))
def test_what_may_follow_is_what_a_stack_for_every_way_of_reading_says(
    rules: Rules, choices: list[int], model: LlamaModel, tokens: dict[str, int]
):
    text = as_gbnf(rules)
    if is_left_recursive(rules):
        with pytest.raises(ValueError, match="begin with itself"):
            check_grammar(text)
        return
    sampler = LlamaSampler.grammar(model.vocab, text)
    stacks = expand(rules, {(Ref(0),)})
    for choice in [*choices, 0]:
        if len(stacks) > 2000:  # what the reference cannot afford
            return
        following = {c for c in ALPHABET if read(rules, stacks, c)}
        assert allowed(sampler, tokens, model.vocab.eos) == following | ({"end"} if () in stacks else set())
        if not following:
            return
        character = sorted(following)[choice % len(following)]
        stacks = read(rules, stacks, character)
        sampler.accept([tokens[character]])
        if choice == 2:
            sampler = sampler.clone()


PERSON = r"""
root ::= "{" ws "\"name\":" ws string "," ws "\"age\":" ws [0-9]{1,3} "}"
string ::= "\"" ([^"\\] | "\\" ["\\bn])* "\""
ws ::= " "?
"""


@pytest.mark.parametrize(
    ("grammar", "texts"),
    [
        (PERSON, ["", "{", '{ "name": "A', '{ "name": "Ada", "age": 1', '{"name":"x\\']),
        ('root ::= ("a" | "ab" | "abc" | [^x] "b")* "é"', ["", "a", "ab", "é"]),
        ("root ::= [^é]* [à-ï]", ["", "abc"]),
        ("root ::= (<[5]> | !<[6]> | [a-f])+", ["", "a"]),
    ],
)
def test_many_tokens_at_once_are_judged_as_one_by_one(
    grammar: str, texts: list[str], model: LlamaModel, context: LlamaContext, batch_of: Callable[..., LlamaBatch]
):
    context.decode(batch_of())
    n = model.vocab.n_tokens
    for text in texts:
        asked = LlamaSampler.grammar(model.vocab, grammar)
        asked.accept(model.vocab.tokenize(text, add_special=False))

        def fits(token: int, asked: LlamaSampler = asked) -> bool:
            try:
                asked.clone().accept([token])
            except RuntimeError:
                return False
            return True

        for token in range(n):
            # The bias makes the token the likeliest of all that the grammar, which comes second, allows.
            chain = LlamaSampler.chain(
                [LlamaSampler.logit_bias(n, [(token, 1000.0)]), asked.clone(), LlamaSampler.greedy()]
            )
            assert (chain.sample(context) == token) == fits(token), (text, token)


# -------------------------------------------------------------------------------------------------------------- budgets


def chain_of_rules(n: int, rule: str, last: str) -> str:
    lines = [f"r{i} ::= " + rule.format(next=f"r{i + 1}") for i in range(n)]
    return "\n".join(["root ::= r0", *lines, f"r{n} ::= {last}"])


AMBIGUOUS = {
    "brackets": 'root ::= "(" root ")" | "(" root "]" | "x"',
    "sixteen rules": chain_of_rules(16, '{next} "a" | {next} "b"', '"x"'),
    "a thousand rules": chain_of_rules(1000, '{next} "a" | {next} "b"', '"x"'),
    "optional": "root ::= " + '"a"? ' * 1500 + '"x"',
    "empty": chain_of_rules(16, "{next} {next}", '"" | "x"'),
    "many empty": chain_of_rules(300, "{next} {next}", '"" | "x"'),
    "detection": chain_of_rules(40, "{next} {next} | {next} {next}", '"" | "x"'),
    "backwards": "\n".join(["root ::= r2000", 'r0 ::= "x" | ""', *(f"r{i} ::= r{i - 1}" for i in range(1, 2001))]),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_grammars_with_exponentially_many_stacks_are_followed(name: str, model: LlamaModel, tokens: dict[str, int]):
    sampler = LlamaSampler.grammar(model.vocab, AMBIGUOUS[name])
    if name == "brackets":
        sampler.accept([tokens["("]] * 200)
    sampler.accept([tokens["x"]])
    if name == "brackets":
        for i in range(200):
            sampler.accept([tokens[")" if i % 2 else "]"]])
    assert sampler.clone()


# Every letter can be a part of any number of rules that began before it.
NESTED = 'root ::= rule*\nrule ::= "a" rule "a" rule | "a" rule rule | "a"'


def test_what_takes_too_much_work_is_refused_and_names_the_limit(model: LlamaModel, tokens: dict[str, int]):
    sampler = LlamaSampler.grammar(model.vocab, NESTED)
    with pytest.raises(RuntimeError, match=r"ways of reading.*4194304 steps.*262144 .*Write"):
        sampler.accept([tokens["a"]] * 5000)
    sampler.reset()
    sampler.accept([tokens["a"]] * 10)
    cheap = LlamaSampler.grammar(model.vocab, 'root ::= "a"*')
    cheap.accept([tokens["a"]] * 5000)


def test_what_takes_too_much_work_from_the_beginning_is_refused_there(model: LlamaModel):
    grammar = chain_of_rules(3000, "{next} {next}", '"" | "x"')
    with pytest.raises(ValueError, match=r"ways of reading.*4194304 steps"):
        check_grammar(grammar)
    with pytest.raises(ValueError, match=r"ways of reading.*4194304 steps"):
        LlamaSampler.grammar(model.vocab, grammar)


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "' + "a" * 2000 + '"{1999}',
        "root ::= " + ('"' + "a" * 100 + '"{0,1999} ') * 10,
        "root ::= " + "[abcdefghij]{1500} " * 100,
    ],
)
def test_repetitions_that_would_fill_the_memory_are_refused(grammar: str):
    with pytest.raises(ValueError, match="more than 1048576 elements"):
        check_grammar(grammar)


def test_a_long_text_leaves_no_traces(model: LlamaModel, tokens: dict[str, int], in_process: Callable[..., str]):
    code = """
import resource
model = load()
tokens = {model.vocab.token_to_piece(t): t for t in range(model.vocab.n_tokens)}
# Opened and closed again at another depth each time: the states are never the same.
brackets = 'brackets ::= "(" brackets ")" | "(" "a" brackets "]" | ""'
sampler = LlamaSampler.grammar(model.vocab, 'root ::= (brackets "x")*\\n' + brackets)
def turn(i):
    depth = 20 + i % 300
    sampler.accept([tokens[b"("]] * depth + [tokens[b")"]] * depth + [tokens[b"x"]])
for i in range(300):
    turn(i)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for i in range(2000):
    turn(i)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print("fine" if grown < 100_000 else grown)
"""
    assert in_process(code) == "fine\n"
