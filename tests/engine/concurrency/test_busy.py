"""How many generations may wait, and what one more is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Literal

import pytest
from pydantic import BaseModel, field_validator

from cyllama import LLM, AsyncStream, BusyError, Stream

from ...support.harness import ENDLESS, EXACT, held, settled, story

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def small() -> Iterator[LLM]:
    """A model with two places, and two more in its line."""
    with LLM(**EXACT, n_parallel=2, max_waiting=2) as llm:
        yield llm


def test_one_more_than_may_wait_is_refused_and_those_before_it_go_on(small: LLM):
    streams = [small(story(), stream=True, **ENDLESS) for _ in range(4)]
    with pytest.raises(BusyError, match=r"unfinished generations: 4, .* 4 are allowed, n_parallel=2 .* max_waiting=2"):
        small("Hello")
    assert (small.stats.running + small.stats.waiting) == 4
    streams[3].close()
    assert small("Hello", max_tokens=0).finish_reason == "length"
    for stream in streams:
        stream.close()
    settled(small)


def test_every_call_is_refused_with_an_error_that_is_known_before_the_first_chunk(small: LLM):
    async def refused() -> list[str]:
        with pytest.raises(BusyError):
            small.astream("Hello")
        with pytest.raises(BusyError):
            small.astream_chat(MESSAGES)
        with pytest.raises(BusyError):
            await small.agenerate("Hello")
        with pytest.raises(BusyError):
            await small.achat(MESSAGES)
        return small.sessions

    streams = [small(story(), stream=True, **ENDLESS) for _ in range(4)]
    for call in (
        lambda: small("Hello", stream=True),
        lambda: small("Hello", n=2),
        lambda: small.chat(MESSAGES, stream=True),
        lambda: small("Hello", session="ada"),
    ):
        with pytest.raises(BusyError):
            call()
    assert asyncio.run(refused()) == [], "a refused call leaves no session"
    for stream in streams:
        stream.close()


def test_a_caller_that_has_its_answer_finds_its_place_free():
    with LLM(**EXACT, n_parallel=1, max_waiting=0) as llm:
        for _ in range(200):
            assert llm("Hello", max_tokens=1).finish_reason == "length"
        with llm("Hello", stream=True, max_tokens=8) as stream:
            assert len("".join(stream)) > 0
        assert llm("Hello", max_tokens=1).finish_reason == "length"


def test_a_place_that_is_left_is_free_at_once(small: LLM):
    with held(small):  # the engine does not see what is cancelled meanwhile
        for _ in range(20):
            small(story(), stream=True, **ENDLESS).cancel()
        assert small("Hello", stream=True, max_tokens=1)
    settled(small)


def test_tasks_that_are_cancelled_make_room(small: LLM):
    async def crowd() -> list[str]:
        async def one(i: int) -> str:
            try:
                return (await small.agenerate(f"Number {i}", max_tokens=4, ignore_eos=True)).finish_reason
            except BusyError:
                return "busy"

        endless: list[AsyncStream] = [small.astream(story(), **ENDLESS) for _ in range(4)]
        busy = await asyncio.gather(*(one(i) for i in range(3)))
        for stream in endless:
            await stream.aclose()
        return busy + await asyncio.gather(*(one(i) for i in range(4)))

    assert asyncio.run(crowd()) == ["busy"] * 3 + ["length"] * 4


def test_continuations_of_one_prompt_need_one_place_and_take_all(small: LLM):
    with held(small):
        streams = [small(story(), stream=True, **ENDLESS) for _ in range(3)]
        for stream in streams[1:]:
            stream.cancel()
    assert len(small("Once upon a time", n=8, max_tokens=2, temperature=1.0)) == 8
    streams[0].close()


def test_a_model_without_a_limit_lets_any_number_wait():
    with LLM(**EXACT, n_parallel=1) as llm:
        streams = [llm(story(), stream=True, **ENDLESS) for _ in range(100)]
        assert llm.stats.waiting >= 99
        for stream in streams:
            stream.cancel()
        settled(llm)
        assert (llm.stats.running, llm.stats.waiting) == (0, 0)


def test_later_attempts_of_a_call_are_not_refused(small: LLM):
    """The call has an answer already, which would be lost. Between its attempts, other callers fill the line."""
    others: list[Stream] = []

    class Picky(BaseModel):
        """A letter that is valid once the line is full."""

        letter: Literal["a", "b"]

        @field_validator("letter")
        @classmethod
        def check(cls, letter: str) -> str:
            if not others:
                others.extend(small(story(), stream=True, **ENDLESS) for _ in range(4))
                with pytest.raises(BusyError):
                    small("Hello")
                raise ValueError("not yet")
            return letter

    answer = small("A letter:", response_format=Picky, max_attempts=2)
    assert answer.parsed.letter in ("a", "b")
    assert len(others) == 4
    for stream in others:
        stream.close()
