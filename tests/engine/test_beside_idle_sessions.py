"""A call without a session costs the conversations beside it nothing, and says the same whatever they are."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM, Response, Session

from ..support.harness import story
from ..support.random_models import write_random_model

PROMPT = story("a fox")
OPTIONS: dict[str, Any] = {"max_tokens": 60, "logprobs": 3, "ignore_eos": True}


def ids(n: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(300, 1200) for _ in range(n)]


def same(one: Response, other: Response) -> bool:
    """Whether two generations are the same to the last bit of their log probabilities."""
    return (one, one.logprobs) == (other, other.logprobs)


@pytest.fixture(scope="module")
def cold() -> Response:
    with LLM(temperature=0, n_threads=1) as llm:
        return llm(PROMPT, **OPTIONS)


def test_idle_sessions_stay_where_they_are(cold: Response):
    with LLM(temperature=0, n_threads=1) as llm:
        sessions = [llm.session(f"{i}") for i in range(4)]
        for i, session in enumerate(sessions):
            session(ids(300 + i, i), max_tokens=1)
        before = llm.stats
        for _ in range(3):
            assert same(llm(PROMPT, **OPTIONS), cold)
        after = llm.stats
        assert (after.resident, after.swapped, after.host_bytes) == (4, 0, 0)
        assert after.contexts_created == before.contexts_created
        turn = sessions[0](" Go on.", max_tokens=1)
        assert turn.usage.cached_tokens == 300


@pytest.mark.parametrize("host_cache_mb", [64, 0])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_text_wherever_its_cells_lie(cold: Response, seed: int, host_cache_mb: int):
    """Sessions come, go on and go, so that cells are free here and there, and the next ones anywhere among them."""
    rng = random.Random(seed)
    with LLM(temperature=0, n_threads=1, kv_cells=2048, host_cache_mb=host_cache_mb) as llm:
        sessions: list[Session] = []
        for i in range(12):
            if sessions and rng.random() < 0.4:
                sessions.pop(rng.randrange(len(sessions))).close()
            if sessions and rng.random() < 0.5:
                rng.choice(sessions)(ids(rng.randrange(1, 200), i), max_tokens=rng.randrange(1, 20))
            else:
                sessions.append(llm.session())
                sessions[-1](ids(rng.randrange(1, 500), i), max_tokens=rng.randrange(1, 20))
            assert same(llm(PROMPT, **OPTIONS), cold)


def test_an_answer_that_outgrows_its_room_drives_sessions_out_and_stays_the_same():
    options: dict[str, Any] = {**OPTIONS, "max_tokens": 1500}
    with LLM(temperature=0, n_threads=1) as llm:
        expected = llm(PROMPT, **options)
    with LLM(temperature=0, n_threads=1, kv_cells=2048) as llm:
        for i in range(6):
            llm(ids(250, i), session=f"{i}", max_tokens=1)
        assert same(llm(PROMPT, **options), expected)


def test_a_session_that_is_closed_meanwhile_changes_nothing(cold: Response):
    with LLM(temperature=0, n_threads=1) as llm:
        first, second = llm.session(), llm.session()
        first(ids(300, 1), max_tokens=1)
        second(ids(200, 2), max_tokens=1)
        with llm(PROMPT, stream=True, **OPTIONS) as stream:
            for _ in range(10):
                next(stream)
            first.close()
            assert same(stream.read(), cold)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_models_of_other_memories_say_the_same_too(tmp_path: Path, kind: str):
    path = write_random_model(tmp_path / "model.gguf", kind)
    options: dict[str, Any] = {**OPTIONS, "max_tokens": 30}
    with LLM(path, temperature=0, n_threads=1) as llm:
        expected = llm(PROMPT, **options)
    with LLM(path, temperature=0, n_threads=1) as llm:
        sessions = [llm.session() for _ in range(3)]
        for i, session in enumerate(sessions):
            session(ids(150, i), max_tokens=2)
            assert same(llm(PROMPT, **options), expected)
        sessions[0].close()
        assert same(llm(PROMPT, **options), expected)
