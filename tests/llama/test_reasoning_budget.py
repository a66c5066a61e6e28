"""The sampler that ends reasoning: what it counts, and when nothing but the end may follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler, LlamaVocab

from ..support.contexts import BatchOf

S = LlamaSampler
START, END = "<think>", "</think>"


@pytest.fixture
def vocab(model: LlamaModel) -> LlamaVocab:
    return model.vocab


@pytest.fixture
def told(context: LlamaContext, batch_of: BatchOf, story: list[int]) -> LlamaContext:
    """A context with one output."""
    context.decode(batch_of(story))
    return context


def tokens_of(vocab: LlamaVocab, text: str) -> list[int]:
    return vocab.tokenize(text, add_special=False, parse_special=True)


def bytes_of(vocab: LlamaVocab, text: str) -> list[int]:
    """Return tokens of single bytes, which is how no tokenizer would write a text, and a model may."""
    single = {vocab.token_to_piece(token, special=False): token for token in range(vocab.n_tokens)}
    return [single[bytes([byte])] for byte in text.encode()]


def budget(vocab: LlamaVocab, tokens: int, **options: Any) -> LlamaSampler:
    arguments: dict[str, Any] = {"start": START, "ends": [END], "forced": tokens_of(vocab, END), **options}
    return S.reasoning_budget(vocab, budget=tokens, **arguments)


def forces(sampler: LlamaSampler, told: LlamaContext, vocab: LlamaVocab) -> bool:
    """Whether the next token has to be the first one of the end: not what the model finds most likely."""
    first, free = tokens_of(vocab, END)[0], S.greedy().sample(told)
    assert first != free
    token = S.chain([sampler.clone(), S.greedy()]).sample(told)
    assert token in (first, free)
    return token == first


def test_reasoning_ends_after_so_many_tokens(told: LlamaContext, batch_of: BatchOf, vocab: LlamaVocab):
    forced = tokens_of(vocab, END)
    chain = S.chain([budget(vocab, 3, inside=True), S.greedy()])
    tokens = [chain.sample(told) for _ in range(3 + len(forced) + 2)]
    assert tokens[3 : 3 + len(forced)] == forced
    free = S.greedy().sample(told)
    assert tokens[:3] == [free] * 3
    assert tokens[-2:] == [free] * 2


def test_every_kind_of_sampling_is_forced(told: LlamaContext, vocab: LlamaVocab):
    forced = tokens_of(vocab, END)
    forbidden = S.logit_bias(vocab.n_tokens, [(token, float("-inf")) for token in set(forced)])
    for rest in (
        [S.top_k(1), S.dist(1)],
        [S.temp(2.0), S.dist(1)],
        [S.mirostat_v2(1, 5.0, 0.1)],
        [S.mirostat(vocab.n_tokens, 1, 5.0, 0.1)],
        [forbidden, S.greedy()],
        [S.penalties(vocab.n_tokens, 64, 5.0), S.top_k(5), S.greedy()],
    ):
        chain = S.chain([budget(vocab, 0, inside=True), *rest])
        assert [chain.sample(told) for _ in forced] == forced
        assert chain.sample(told) >= 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tags_are_found_however_they_are_cut_into_tokens(data: st.DataObject, told: LlamaContext, vocab: LlamaVocab):
    def written(text: str) -> list[int]:
        parts, rest = [], text
        while rest:
            n = data.draw(st.integers(1, len(rest)))
            parts += data.draw(st.sampled_from([tokens_of, bytes_of]))(vocab, rest[:n])
            rest = rest[n:]
        return parts

    thought = data.draw(st.text("ab <", max_size=6))
    n = data.draw(st.integers(0, 12))
    sampler = budget(vocab, n)
    opening, tokens, closing = written(f"\n{START}"), written(thought), written(f"{END}\n\nYes.")
    for i, token in enumerate(opening):
        assert not forces(sampler, told, vocab), i
        sampler.accept([token])
    for i, token in enumerate(tokens):
        assert forces(sampler, told, vocab) == (i >= n)
        sampler.accept([token])
    assert forces(sampler, told, vocab) == (len(tokens) >= n)
    sampler.accept(closing)
    assert not forces(sampler, told, vocab)
    sampler.accept(written(f"{START} is a tag"))
    assert not forces(sampler, told, vocab)


def test_an_answer_that_does_not_begin_with_reasoning_is_not_limited(told: LlamaContext, vocab: LlamaVocab):
    sampler = budget(vocab, 0)
    sampler.accept(tokens_of(vocab, f"The tag {START} begins"))
    assert not forces(sampler, told, vocab)
    anywhere = budget(vocab, 0, anywhere=True)
    anywhere.accept(tokens_of(vocab, "The tag <thin"))
    assert not forces(anywhere, told, vocab)
    anywhere.accept(tokens_of(vocab, "k>"))
    assert forces(anywhere, told, vocab)


def test_several_parts_of_reasoning_share_the_budget(told: LlamaContext, vocab: LlamaVocab):
    sampler = budget(vocab, 4 + len(bytes_of(vocab, END)), anywhere=True)
    sampler.accept(bytes_of(vocab, f"{START}ab{END} so {START}"))
    assert not forces(sampler, told, vocab)
    sampler.accept(bytes_of(vocab, "ab"))
    assert not forces(sampler, told, vocab)
    sampler.accept(bytes_of(vocab, "c"))
    assert forces(sampler, told, vocab)
    sampler.accept(tokens_of(vocab, END))
    assert not forces(sampler, told, vocab)
    sampler.accept(bytes_of(vocab, START))
    assert forces(sampler, told, vocab)


def test_a_character_is_completed_before_the_end(told: LlamaContext, vocab: LlamaVocab):
    sampler = budget(vocab, 2, inside=True)
    first, second, third, fourth = bytes_of(vocab, "😀")
    for token, expected in ((first, False), (second, False), (third, False), (fourth, True)):
        sampler.accept([token])
        assert forces(sampler, told, vocab) == expected


def test_any_of_several_ends_is_natural(told: LlamaContext, vocab: LlamaVocab):
    for end in ("</think>", "[/T]"):
        sampler = budget(vocab, 30, inside=True, ends=["</think>", "[/T]"])
        sampler.accept(bytes_of(vocab, f"ab{end}"))
        sampler.accept(bytes_of(vocab, "x" * 40))
        assert not forces(sampler, told, vocab)


def test_a_grammar_has_the_last_word(told: LlamaContext, vocab: LlamaVocab):
    [a] = bytes_of(vocab, "a")
    chain = S.chain([S.grammar(vocab, 'root ::= "aaa" "</think>"'), budget(vocab, 1, inside=True), S.greedy()])
    tokens: list[int] = []
    for _ in range(20):
        tokens.append(chain.sample(told))
        if vocab.is_eog(tokens[-1]):
            break
    text = b"".join(vocab.token_to_piece(token, special=True) for token in tokens[:-1])
    assert text == b"aaa</think>"
    assert a


def test_reset_and_clone(told: LlamaContext, vocab: LlamaVocab):
    sampler = budget(vocab, 1, inside=True)
    sampler.accept(bytes_of(vocab, "a"))
    copy = sampler.clone()
    sampler.reset()
    assert (forces(copy, told, vocab), forces(sampler, told, vocab)) == (True, False)
    assert S.chain([copy, S.greedy()]).names == ["reasoning-budget", "greedy"]


def test_it_does_not_run_in_the_graph(new_context: Callable[..., LlamaContext], vocab: LlamaVocab):
    with pytest.raises(ValueError, match="cannot run in the graph"):
        new_context(samplers=[(0, S.chain([budget(vocab, 1), S.greedy()]))])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"start": ""}, "must not be empty"),
        ({"ends": []}, "must not be empty"),
        ({"ends": ["</think>", ""]}, "must not be empty"),
        ({"forced": []}, "at least one token"),
        ({"forced": [10**6]}, "out of range"),
        ({"forced": [-1]}, "out of range"),
        ({"budget": -1}, "0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], match: str, vocab: LlamaVocab):
    arguments: dict[str, Any] = {"start": START, "ends": [END], "forced": [1], "budget": 1, **options}
    with pytest.raises((ValueError, IndexError), match=match):
        S.reasoning_budget(vocab, **arguments)
