"""Drafted tokens change how fast an answer comes, and nothing else.

With ``n_ubatch=1`` llama.cpp computes every token of a step by itself, so that drafts change no rounding: what is
compared then is equal to the last bit, on every processor. Other answers are those of a cold start up to near ties.
"""

from __future__ import annotations

import asyncio
import math
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama import LLM, Response
from cyllama.engine import Request
from cyllama.models import TINY_CHAT

from ..support.cold_start import EXACT, NEARLY_TIED_EXACTLY
from ..support.drafts import IDS, MANY, TEXTS, check_all, check_same, check_turns, free_drafts, outcome, sampling
from ..support.harness import held, in_threads, settled, turn
from ..support.random_models import HYBRID, RECURRENT, write_random_adapter, write_random_model
from ..support.real_models import needs, path_of

ALONE: dict[str, Any] = {"n_ubatch": 1, "n_threads": 1, "speculation": "lookup"}


@pytest.fixture(scope="module", autouse=True)
def wide_steps_cost_nothing() -> Iterator[None]:
    with free_drafts():
        yield


@pytest.fixture(scope="module")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """A model that says noise."""
    path = write_random_model(tmp_path_factory.mktemp("models") / "llama", "llama")
    with LLM(path, **ALONE) as llm:
        yield llm


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """The embedded model."""
    with LLM(TINY_CHAT, **ALONE) as llm:
        yield llm


def both_ways(llm: LLM, prompt: str | list[int], **options: Any) -> Response:
    """Return an answer with drafts, or its error, which is the same without."""
    drafted, plain = (outcome(llm, prompt, **options, speculation=how) for how in ("lookup", "off"))
    check_same(drafted, plain)
    return drafted


@MANY
@given(part=st.lists(st.sampled_from(IDS), min_size=1, max_size=12), n=st.integers(1, 4), options=sampling)
def test_noise_is_the_same_with_drafts(random_llama: LLM, part: list[int], n: int, options: dict[str, Any]):
    both_ways(random_llama, part * n, **options)


@MANY
@given(text=TEXTS, options=sampling)
def test_text_is_the_same_with_drafts(tiny: LLM, text: str, options: dict[str, Any]):
    both_ways(tiny, turn(text), **options)


def test_drafts_are_right_and_wrong_here(tiny: LLM):
    before = tiny.stats
    for seed in range(4):
        tiny(turn("Write fox fox fox."), seed=seed, temperature=0.5, max_tokens=80)
    after = tiny.stats
    n_drafted = after.tokens_drafted - before.tokens_drafted
    n_accepted = after.tokens_accepted - before.tokens_accepted
    assert 0 < n_accepted < n_drafted
    assert after.tokens_generated - before.tokens_generated == after.steps - before.steps + n_accepted


def test_what_repeats_takes_fewer_steps(random_llama: LLM):
    """At temperature 0, with a penalty for all other tokens, the model repeats its prompt for ever."""
    bias = dict.fromkeys(IDS[:1], 1000.0)
    before = random_llama.stats.steps
    response = random_llama(IDS, max_tokens=64, temperature=0, logit_bias=bias)
    assert response.timings.tokens_accepted >= 50
    assert random_llama.stats.steps - before <= 16


@settings(MANY, max_examples=10)
@given(seed=st.integers(0, 1000), n_turns=st.integers(1, 4), options=sampling)
def test_turns_of_a_session_are_the_same(tiny: LLM, seed: int, n_turns: int, options: dict[str, Any]):
    check_turns(tiny, "lookup", seed, n_turns, options)


def test_sessions_are_forked_saved_and_restored_between_drafts(tiny: LLM, tmp_path: Path):
    answers: list[list[str]] = []
    options: dict[str, Any] = {"max_tokens": 40, "seed": 3, "temperature": 0.7}
    for how in ("lookup", "off"):
        with tiny.session() as session:
            first = session(turn("Write fox fox fox."), speculation=how, **options)
            session.save(tmp_path / how)
            with session.fork() as fork, tiny.load_session(tmp_path / how, f"restored {how}") as restored:
                after = [each(turn("Again."), speculation=how, **options) for each in (session, fork, restored)]
            assert after[0] == after[1] == after[2]
            answers.append([first, *after])
    assert answers[0] == answers[1]


def test_several_continuations_of_a_prompt_are_the_same(tiny: LLM):
    options: dict[str, Any] = {"n": 2, "max_tokens": 40, "seed": 11, "temperature": 0.8, "logprobs": 1}
    drafted, plain = (tiny(turn("Write fox fox fox."), speculation=how, **options) for how in ("lookup", "off"))
    assert drafted == plain


def test_callers_at_once_get_what_each_gets_alone(requests: list[Request]):
    with LLM(TINY_CHAT, n_parallel=4, **EXACT) as llm:
        prompts = [turn(f"Write {word} {word} {word}.") for word in ("fox", "owl", "bear", "cat", "dog", "goat")]
        for _ in range(2):
            in_threads([lambda p=p: llm(p, max_tokens=60, speculation="lookup") for p in prompts])
        assert llm.stats.tokens_accepted > 0
        check_all(llm, requests)


def test_drafts_of_a_reader_who_leaves_are_dropped(tiny: LLM):
    expected = tiny(turn("Write fox fox fox."), max_tokens=60, temperature=0, speculation="off")
    for n in range(1, 6):
        stream = tiny(turn("Write fox fox fox."), max_tokens=60, temperature=0, stream=True)
        text = "".join(next(stream) for _ in range(n))
        stream.cancel()
        text += "".join(stream)
        assert expected.startswith(text)
    settled(tiny)
    assert tiny(turn("Write fox fox fox."), max_tokens=60, temperature=0) == expected


def test_an_answer_in_an_event_loop_is_the_same(tiny: LLM):
    options: dict[str, Any] = {"max_tokens": 40, "seed": 4}

    async def stream() -> str:
        return "".join([chunk async for chunk in tiny.astream(turn("Write fox fox fox."), **options)])

    assert asyncio.run(stream()) == tiny(turn("Write fox fox fox."), speculation="off", **options)


def test_a_sampler_that_fails_after_drafts_leaves_the_same_text(tiny: LLM):
    """Behind the foxes, the grammar allows only tokens that are forbidden here."""
    sevens = {token: -math.inf for token in range(tiny.model.vocab.n_tokens) if "7" in tiny.detokenize([token])}
    for seed in range(3):
        options: dict[str, Any] = {"grammar": 'root ::= "fox fox fox fox fox fox fox fox7"', "seed": seed}
        assert (
            both_ways(tiny, turn("Write fox fox fox."), temperature=1, logit_bias=sevens, **options).model == "failed"
        )


def test_few_cells_are_not_taken_for_drafts(requests: list[Request]):
    """Callers who preempt each other, with hardly a cell for a draft, lose nothing."""
    with LLM(TINY_CHAT, n_parallel=3, kv_cells=256, **EXACT) as llm:
        prompts = [turn(f"Write {word} {word} {word}.") for word in ("fox", "owl", "bear", "cat")]
        with held(llm):
            streams = [llm(p, max_tokens=90, ignore_eos=True, speculation="lookup", stream=True) for p in prompts]
        assert [stream.read().usage.completion_tokens for stream in streams] == [90] * 4
        check_all(llm, requests)


def test_adapters_have_drafts_too(tmp_path: Path):
    path = write_random_model(tmp_path / "llama", "llama")
    with LLM(path, **ALONE) as llm:
        llm.load_lora("noise", write_random_adapter(tmp_path / "adapter", path, 2))
        few = dict.fromkeys(IDS[:4], 30.0)  # words that noise repeats
        options: dict[str, Any] = {"max_tokens": 60, "lora": {"noise": 1.0}, "logprobs": 0, "logit_bias": few}
        for seed in range(5):
            drafted = both_ways(llm, IDS * 2, seed=seed, **options)
            assert drafted.timings.tokens_drafted > 0


def test_a_prefix_that_is_kept_has_no_token_of_a_wrong_draft(requests: list[Request]):
    shared = IDS * 4
    with LLM(TINY_CHAT, prefix_cache=True, **EXACT) as llm:
        for i in range(4):
            prompt = [*shared, *IDS[i : i + 9]]
            llm(prompt, max_tokens=60, speculation="lookup", ignore_eos=True)
            evaluated = [*prompt, *requests[-1].answer.tokens[:-1]]
            assert llm([*evaluated, 10], max_tokens=2, ignore_eos=True).usage.cached_tokens == len(evaluated)
        assert llm.stats.tokens_drafted > llm.stats.tokens_accepted > 0
        check_all(llm, requests)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_memories_that_can_drop_drafts(kind: str, tmp_path: Path, requests: list[Request]):
    rng = random.Random(1)
    path = write_random_model(tmp_path / kind, kind)
    with LLM(path, n_parallel=3, **EXACT) as llm:
        for n in (3, 20, 70, 300):
            prompts = [[rng.choice(IDS) for _ in range(n)] * 2 for _ in range(4)]
            in_threads([lambda p=p: llm(p, max_tokens=80, speculation="lookup", ignore_eos=True) for p in prompts])
        assert llm.stats.tokens_accepted > 0
        check_all(llm, requests, NEARLY_TIED_EXACTLY)


@pytest.mark.parametrize("kind", [*RECURRENT[:1], *HYBRID[:1]])
def test_memories_that_cannot_drop_drafts_say_so_and_answer(kind: str, tmp_path: Path):
    with LLM(write_random_model(tmp_path / kind, kind), temperature=0, n_threads=1) as llm:
        with pytest.warns(UserWarning, match=r"speculation='lookup' has no effect: .* recurrent states") as caught:
            response = llm(IDS * 2, max_tokens=20, speculation="lookup")
        assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
        assert response.timings.tokens_drafted == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert llm(IDS * 2, max_tokens=20) == response


CODE = """class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        return self.items.pop()
"""


@pytest.mark.model
class TestSmolLM2:
    """A model that copies code."""

    pytestmark = needs("smollm2")

    def test_code_is_copied_in_fewer_steps(self, requests: list[Request]):
        question = f"Repeat this Python code, but call the class Pile:\n\n{CODE}"
        with LLM(path_of("smollm2"), **EXACT) as llm:
            before = llm.stats.steps
            response = llm.chat([{"role": "user", "content": question}], max_tokens=60, speculation="lookup")
            assert response.timings.tokens_accepted > 20
            assert llm.stats.steps - before < response.usage.completion_tokens - 15
            check_all(llm, requests)
