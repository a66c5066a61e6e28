"""Models that learned an embedding of every position: no conversation goes beyond the last one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cyllama import LLM, ContextSizeError

from ..support.random_models import write_random_gpt2

N_POSITIONS = 64


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    path = write_random_gpt2(tmp_path_factory.mktemp("models") / "gpt2.gguf", N_POSITIONS)
    with LLM(path, temperature=0, n_threads=1, n_parallel=4) as llm:
        yield llm


def test_an_answer_ends_at_the_last_position(gpt2: LLM):
    prompt = "Once upon a time"
    response = gpt2(prompt, max_tokens=1000)
    assert response.finish_reason == "length"
    assert response.usage.total_tokens == N_POSITIONS


def test_more_positions_than_there_are_cannot_be_asked_for(gpt2: LLM):
    with pytest.raises(ContextSizeError, match=r"n_ctx is 65 .*learned position embeddings of 64.*to 64 at most"):
        gpt2("Hi", n_ctx=N_POSITIONS + 1)
    assert gpt2("Hi", n_ctx=N_POSITIONS, max_tokens=1)


def test_a_prompt_beyond_them_is_refused_without_the_advice_to_raise_n_ctx(gpt2: LLM):
    with pytest.raises(ContextSizeError, match=r"65 tokens .*cannot go beyond: shorten the prompt$"):
        gpt2([5] * (N_POSITIONS + 1))


def test_conversations_together_may_have_more(gpt2: LLM):
    streams = [gpt2([5 + i] * 40, max_tokens=20, stream=True) for i in range(4)]
    assert all(list(stream) for stream in streams)
