"""Drafted tokens: evaluated together, sampled one after the other for as long as the draft is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, LlamaSampler

from ...support.contexts import BatchOf, NewContext

EVERY_LOGIT = {"n_outputs_max": 64, "n_seq_max": 2, "kv_unified": True}
SAMPLERS: dict[str, Callable[[LlamaModel], LlamaSampler]] = {
    "greedy": lambda _: LlamaSampler.greedy(),
    "a chain": lambda _: LlamaSampler.chain([LlamaSampler.top_k(20), LlamaSampler.temp(1.5), LlamaSampler.dist(7)]),
    "penalties": lambda model: LlamaSampler.chain(
        [LlamaSampler.penalties(model.vocab.n_tokens, 64, 1.5, 0.5, 0.5), LlamaSampler.dist(3)]
    ),
    "mirostat": lambda _: LlamaSampler.chain([LlamaSampler.mirostat_v2(5, 5.0, 0.1)]),
    "a grammar": lambda model: LlamaSampler.chain(
        [LlamaSampler.grammar(model.vocab, "root ::= [a-z ]*"), LlamaSampler.dist(3)]
    ),
}


def evaluated(context: LlamaContext, tokens: list[int]) -> LlamaBatch:
    """Return a batch of tokens that have a logit each, in a context that holds nothing else."""
    context.kv_cache_clear(clear_data=False)
    batch = LlamaBatch(64)
    batch.add_sequence(tokens, logits_all=True)
    return batch


@pytest.mark.parametrize("kind", SAMPLERS)
def test_it_samples_what_sampling_one_after_the_other_does(
    kind: str, model: LlamaModel, new_context: NewContext, story: list[int]
):
    context = new_context(**EVERY_LOGIT)

    @settings(max_examples=20)
    @given(n_right=st.integers(0, 6), n_wrong=st.integers(0, 3), n_before=st.integers(1, 5))
    def check(n_right: int, n_wrong: int, n_before: int) -> None:
        drafts: list[int] = []
        while True:  # until the draft has so many tokens that are sampled after the batch with just these tokens
            batch = evaluated(context, [*story[:n_before], *drafts, *[5] * n_wrong])
            assert context.decode(batch) == 0
            sampler = SAMPLERS[kind](model)
            expected = [sampler.sample(context, n_before - 1 + i) for i in range(len(drafts) + 1)]
            if expected[:-1] != drafts or len(drafts) == n_right or expected[-1] in model.vocab.eog_tokens():
                break
            drafts.append(expected[-1])
        if expected[:-1] != drafts:  # rounding decided between two tokens that were nearly tied
            return
        sampler = SAMPLERS[kind](model)
        status, [tokens], errors = context.decode_and_verify(
            evaluated(context, [*story[:n_before], *drafts, *[5] * n_wrong]),
            [(n_before - 1, sampler, len(drafts) + n_wrong)],
        )
        assert (status, errors) == (0, {})
        assert tokens[: len(expected)] == expected
        assert len(tokens) == len(expected) or tokens[len(expected) - 1] == 5  # the wrong one was right

    check()


def test_sequences_beside_each_other_stop_each_at_its_own_first_wrong_token(
    model: LlamaModel, new_context: NewContext, story: list[int]
):
    context = new_context(**EVERY_LOGIT)
    batch = LlamaBatch(64)
    batch.add_sequence(story, logits_all=True)
    assert context.decode(batch) == 0
    likeliest = [LlamaSampler.greedy().sample(context, i) for i in range(len(story))]
    context.kv_cache_clear()
    batch.clear()
    batch.add_sequence(story, seq_id=0, logits_all=True)
    batch.add_sequence(story, seq_id=1, logits_all=True)
    samplers = [(i, LlamaSampler.greedy(), len(story) - 1 - i) for i in range(len(story))]
    samplers += [(len(story) + i, sampler, n) for i, sampler, n in samplers]
    status, sampled, _ = context.decode_and_verify(batch, samplers)
    assert status == 0
    assert sampled[: len(story)] == sampled[len(story) :]
    for i, tokens in enumerate(sampled[: len(story)]):
        n_right = next((n for n, (a, b) in enumerate(zip(likeliest[i:], story[i + 1 :], strict=False)) if a != b), None)
        assert tokens == likeliest[i:][: len(story) if n_right is None else n_right + 1]


def test_tokens_before_a_failure_are_returned(model: LlamaModel, new_context: NewContext, story: list[int]):
    context = new_context(**EVERY_LOGIT)
    only = model.vocab.tokenize("a", add_special=False)
    grammar = LlamaSampler.chain([LlamaSampler.grammar(model.vocab, 'root ::= "a"'), LlamaSampler.greedy()])
    end = next(iter(model.vocab.eog_tokens()))
    batch = evaluated(context, [*story, *only, end, end])
    status, [tokens], errors = context.decode_and_verify(batch, [(len(story) - 1, grammar, 3)])
    assert status == 0
    assert tokens[:1] == only
    assert len(tokens) < 4
    assert all(isinstance(error, RuntimeError) for error in errors.values())


def test_it_checks_before_it_computes(context: LlamaContext, batch_of: BatchOf):
    batch = batch_of()  # of three tokens, the last of which has logits
    for index, n_drafted in ((2, 1), (1, 1), (0, 2), (2, 2**30 - 1), (2**31 - 1, 2**30 - 1), (-1, 1)):
        with pytest.raises(IndexError, match="no logits to sample from"):
            context.decode_and_verify(batch, [(index, LlamaSampler.greedy(), n_drafted)])
    with pytest.raises(ValueError, match="n_drafted"):
        context.decode_and_verify(batch, [(2, LlamaSampler.greedy(), -1)])
    with pytest.raises(TypeError):
        context.decode_and_verify(batch, [(2, None, 0)])  # type: ignore[list-item]
    assert context.seq_pos_max(0) == -1


def test_an_abort_samples_nothing(context: LlamaContext, batch_of: BatchOf):
    context.abort()
    assert context.decode_and_verify(batch_of(), [(2, LlamaSampler.greedy(), 0)]) == (2, [], {})
