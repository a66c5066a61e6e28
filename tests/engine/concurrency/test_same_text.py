"""Many callers, one context: each gets what it would get alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cyllama import LLM, Stream

from ...support.callers import check
from ...support.harness import (
    ANIMALS,
    EXACT,
    Reference,
    Step,
    held,
    in_threads,
    settled,
    story,
    together,
    turn,
)


@pytest.mark.parametrize(("n_threads", "n_parallel"), [(8, 4), (8, 8), (32, 8), (32, 3)])
def test_callers_in_many_threads_get_the_text_that_they_would_get_alone(
    n_threads: int, n_parallel: int, reference: Reference, steps: list[Step]
):
    with LLM(**EXACT, n_parallel=n_parallel) as llm:

        def ask(animal: str) -> Stream:
            stream = llm(story(animal), stream=True, max_tokens=60)
            stream.read()
            return stream

        calls = [partial(ask, animal) for animal in ANIMALS[:n_threads]]
        streams = together(llm, n_threads, lambda: in_threads(calls))
    for stream in streams:
        check(reference, stream, stream.response)
    assert max(len(step.generated) for step in steps) == n_parallel


def test_short_answers_are_the_same_to_the_letter(eight: LLM):
    """Facts leave no two tokens nearly tied, unlike stories."""
    questions = ["What is the capital of France?", "What is 7 + 5?", "Count from 3 to 15.", "Say the alphabet."]
    alone = [eight(turn(question)) for question in questions]
    assert alone[:2] == ["The capital of France is Paris.", "7 + 5 = 12."]
    answers = in_threads(partial(eight, turn(question)) for question in questions * 8)
    assert answers == alone * 8


def test_sampled_text_depends_on_the_seed_and_not_on_the_neighbours(eight: LLM):
    options: dict[str, Any] = {"temperature": 0.6, "max_tokens": 12, "top_k": 5}
    alone = [eight(turn("Tell me a joke."), seed=seed, **options) for seed in range(16)]
    beside = in_threads(partial(eight, turn("Tell me a joke."), seed=seed, **options) for seed in range(16))
    assert len(set(alone)) > 3
    # Rounding may decide between two tokens where a draw falls on the border between them.
    assert sum(a == b for a, b in zip(alone, beside, strict=True)) >= 10


def test_alone_again_the_text_is_the_same_to_the_bit(eight: LLM):
    before = eight(story())
    in_threads(partial(eight, story(animal), max_tokens=30) for animal in ANIMALS[:16])
    session = eight.session()
    session(turn("My name is Ada."), max_tokens=20)
    assert eight(story()) == before
    session.close()


def test_what_one_caller_wants_is_not_given_to_another(eight: LLM):
    """Every request has its own sampler, stop strings, limits and statistics."""
    whole = eight(story(), max_tokens=40)
    stop = whole[30:42]
    with held(eight):
        cut = eight(story(), stream=True, stop_sequences=[stop])
        short = eight(story(), stream=True, max_tokens=5)
        forced = eight(story(), stream=True, max_tokens=5, logit_bias={300: 1000.0})
        nothing = eight(story(), stream=True, max_tokens=0)
        plain = eight(story(), stream=True, max_tokens=40)
    assert cut.read() == whole[:30]
    assert short.read().usage.completion_tokens == 5
    assert whole.startswith(short.response)
    assert forced.read() == eight.detokenize([300] * 5)
    assert nothing.read() == ""
    assert plain.read() == whole


def test_answers_to_the_same_prompt_are_those_of_their_seeds(eight: LLM):
    options: dict[str, Any] = {"temperature": 0.7, "max_tokens": 12, "top_k": 5}
    alone = [eight(turn("Tell me a joke."), seed=7 + i, **options) for i in range(6)]
    before = eight.stats
    together = eight(turn("Tell me a joke."), seed=7, n=6, **options)
    evaluated = eight.stats.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    assert evaluated == together[0].usage.prompt_tokens, "the prompt is evaluated once"
    assert sum(a == b for a, b in zip(alone, together, strict=True)) >= 3


def test_groups_streams_and_sessions_share_the_steps(eight: LLM, reference: Reference):
    def group() -> None:
        answers = eight(turn("What is the capital of France?"), n=5, max_tokens=20)
        assert answers == ["The capital of France is Paris."] * 5

    def conversation(name: str) -> None:
        with eight.session() as session:
            session(turn(f"My name is {name}."), max_tokens=20)
            assert session("\n" + turn("What is my name?"), max_tokens=20) == f"Your name is {name}."

    def single(animal: str) -> None:
        check(reference, eight(story(animal), stream=True, max_tokens=40))

    names = ["Ada", "Bob", "Kimbo", "Zorblax"]
    in_threads([*[group] * 4, *(partial(conversation, n) for n in names), *(partial(single, a) for a in ANIMALS[:8])])
    settled(eight)
    assert (eight.stats.running, eight.stats.kv_cells_used) == (0, 0)
