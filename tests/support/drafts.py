"""Answers with drafted tokens, compared with those without."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from cyllama import LLM, DecodeError, Response
from cyllama.engine import Request
from cyllama.engine.drafting import StepTimes

from .cold_start import NEARLY_TIED, ColdStart
from .harness import turn

IDS = list(range(10, 40))
sampling = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 40), "logprobs": st.integers(0, 3), "seed": st.integers(0, 2**32 - 2)},
    optional={
        "temperature": st.sampled_from([0.0, 0.2, 1.0, 3.0]),
        "top_p": st.floats(0.1, 1),
        "repeat_penalty": st.floats(0.7, 1.5),
        "presence_penalty": st.floats(-3, 3),
        "dry_multiplier": st.floats(0, 1),
        "xtc_probability": st.floats(0, 1),
        "mirostat": st.sampled_from([1, 2]),
        "ignore_eos": st.booleans(),
        "stop_sequences": st.lists(st.text("aeinorst ", min_size=1, max_size=2), max_size=3),
        "grammar": st.sampled_from(['root ::= "a" root | "b" root | " "', "root ::= [a-z ]{3,30}"]),
    },
)
MANY = settings(max_examples=40, deadline=None)
TEXTS = st.sampled_from(["Tell me a story about a fox.", "Count to 20.", "What is my name?", "Write fox fox fox."])


@contextmanager
def free_drafts() -> Iterator[pytest.MonkeyPatch]:
    """A machine on which drafts cost nothing, so that what is drafted does not depend on measured times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StepTimes, "costs", lambda self, width: lambda other: 1.0)
        yield patch


def outcome(call: Callable[..., Response], *arguments: Any, **options: Any) -> Response:
    """Return what a call returns, or else an error as a response."""
    try:
        return call(*arguments, **options)
    except DecodeError as error:
        return Response(f"{error}: {error.partial_text}", model="failed")


def check_same(drafted: Response, plain: Response) -> None:
    """Check that an answer with drafts is the same as one without."""
    assert drafted == plain
    assert drafted.logprobs == plain.logprobs
    assert (drafted.finish_reason, drafted.usage) == (plain.finish_reason, plain.usage)
    assert plain.timings.tokens_drafted == plain.timings.tokens_accepted == 0
    assert drafted.timings.tokens_accepted <= drafted.timings.tokens_drafted


def check_turns(llm: LLM, speculation: str, seed: int, n_turns: int, options: dict[str, Any]) -> None:
    """Check that the answers of a session with drafts are the same as those without."""
    rng = random.Random(seed)
    texts = [turn(rng.choice(["Tell me a story.", "Say it again.", "Why?", "fox fox"])) for _ in range(n_turns)]
    answers: list[list[Response]] = []
    for how in (speculation, "off"):
        with llm.session() as session:
            answers.append([outcome(session, text, speculation=how, **options) for text in texts])
    for drafted, plain in zip(*answers, strict=True):
        check_same(drafted, plain)


def check_all(llm: LLM, requests: list[Request], nearly_tied: float = NEARLY_TIED) -> None:
    """Check that greedy answers are those of a cold start, up to near ties."""
    assert requests
    cold = ColdStart(llm)
    for request in requests:
        cold.check(request, nearly_tied)
    cold.close()
