"""What a draft model costs where it is never right, and gains where it always is, by simulated times.

The engine, the models and the policy are real. Only the clock is simulated: a step takes as long as its number of
tokens says, so the result does not depend on the machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from cyllama import LLM
from cyllama.engine import model_drafts
from cyllama.engine.batch import Batch
from cyllama.engine.draft_context import DraftContext
from cyllama.engine.model_drafter import ModelDrafter
from cyllama.engine.model_drafts import DraftTimes
from cyllama.models import TINY_CHAT

from ..support.harness import settled, turn
from ..support.random_models import write_random_model

STEP, TOKEN = 0.1, 0.025  # seconds of a step of the large model, and of each further token in it
SIZE = 0.18  # of the draft model, compared with the large one
MAX_TOKENS = 100
PROMPTS = [
    "What is a fox?",
    "Write a long story about a fox who learns to swim.",
    "Say it in other words: the fox looked at the river for a long time, and then it went home.",
]


class SimulatedClock:
    """Seconds that all steps so far would have taken."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_step(self, n_tokens: int, size: float = 1.0) -> float:
        """Let a step pass, and return how long it took."""
        seconds = size * (STEP + TOKEN * (n_tokens - 1))
        self.now += seconds
        return seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimulatedClock:
    """A simulated clock for the steps of both models."""
    clock, run, decode = SimulatedClock(), Batch.run, DraftContext._decode

    def run_by_clock(batch: Batch, *arguments: Any) -> int:
        status = run(batch, *arguments)
        batch.seconds = clock.pass_step(batch.n_tokens)
        return status

    def decode_by_clock(context: DraftContext, *arguments: Any) -> Any:
        clock.pass_step(len(context._batch), SIZE)
        return decode(context, *arguments)

    monkeypatch.setattr(Batch, "run", run_by_clock)
    monkeypatch.setattr(DraftContext, "_decode", decode_by_clock)
    monkeypatch.setattr(model_drafts, "perf_counter", clock)
    monkeypatch.setattr(model_drafts, "DraftTimes", lambda size: DraftTimes(SIZE))
    return clock


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says noise."""
    return write_random_model(tmp_path_factory.mktemp("models") / "noise", "llama", 0)


def answers(llm: LLM, clock: SimulatedClock, how: Literal["off", "draft"], n: int) -> Iterator[float]:
    """Yield the seconds of ``n`` answers, one after the other."""
    for i in range(n):
        started = clock.now
        llm(turn(PROMPTS[i % len(PROMPTS)]), max_tokens=MAX_TOKENS, ignore_eos=True, temperature=0, speculation=how)
        settled(llm)
        yield clock.now - started


def test_a_draft_model_that_is_never_right_costs_little(clock: SimulatedClock, noise: Path):
    """In each answer, with what the draft model evaluates of prompts, and less in the long run."""
    with LLM(TINY_CHAT, draft_model=noise, n_threads=1) as llm:
        plain = list(answers(llm, clock, "off", len(PROMPTS)))
        drafted = list(answers(llm, clock, "draft", 4 * len(PROMPTS)))
        assert llm.stats.model_tokens_drafted > 0
    assert all(a <= 1.03 * b for a, b in zip(drafted, plain * 4, strict=True))
    assert sum(drafted) <= 1.01 * 4 * sum(plain)


def test_a_draft_model_that_is_always_right_makes_answers_faster(clock: SimulatedClock):
    with LLM(TINY_CHAT, draft_model=TINY_CHAT, n_threads=1) as llm:
        plain = list(answers(llm, clock, "off", len(PROMPTS)))
        drafted = list(answers(llm, clock, "draft", 4 * len(PROMPTS)))
    assert all(a <= 1.03 * b for a, b in zip(drafted, plain * 4, strict=True))
    assert 1.6 * sum(drafted[-len(PROMPTS) :]) < sum(plain)


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_draft_model_that_is_often_right_goes_on(clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch, seed: int):
    """Wrong drafts are no reason to try it less while it saves time on the whole."""
    expect, rng = ModelDrafter.expect, random.Random(seed)

    def expect_another_one(drafter: ModelDrafter, token: int, probability: float) -> bool:
        return expect(drafter, token if rng.random() < 0.75 else token ^ 1, probability)

    monkeypatch.setattr(ModelDrafter, "expect", expect_another_one)
    with LLM(TINY_CHAT, draft_model=TINY_CHAT, n_threads=1) as llm:
        plain = list(answers(llm, clock, "off", len(PROMPTS)))
        drafted = list(answers(llm, clock, "draft", 6 * len(PROMPTS)))
    assert 1.02 * sum(drafted[-2 * len(PROMPTS) :]) < 2 * sum(plain)
