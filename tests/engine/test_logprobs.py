"""Log probabilities of what was generated: in responses, streams and chats."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

import pytest

from cyllama import LLM, ConfigError, TextChunk, TokenLogprob
from cyllama.chat import add_up
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext

CAPITAL: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
START = "Once upon a time"


def test_there_are_no_log_probabilities_unless_asked_for(llm: LLM):
    assert llm(START, max_tokens=3).logprobs is None
    assert llm.chat(CAPITAL).logprobs is None
    with llm(START, max_tokens=3, stream=True) as stream:
        assert [chunk.logprobs for chunk in stream] == [(), (), ()]


def test_every_token_has_the_models_own_log_probability(llm: LLM):
    response = llm(START, max_tokens=5, logprobs=3)
    assert response.logprobs is not None
    ids = llm.tokenize(START)
    with LlamaContext(llm.model) as context:
        for entry in response.logprobs:
            batch = LlamaBatch(512)
            batch.add_sequence(ids)
            context.kv_cache_clear()
            context.decode(batch)
            logits = list(context.get_logits_ith(-1))
            norm = math.log(math.fsum(math.exp(x) for x in logits))
            likeliest = sorted(range(len(logits)), key=lambda i: -logits[i])[:3]
            assert [other.token_id for other in entry.top] == likeliest
            assert entry.logprob == pytest.approx(logits[entry.token_id] - norm, abs=1e-4)
            for other in entry.top:
                assert other.logprob == pytest.approx(logits[other.token_id] - norm, abs=1e-4)
            assert entry.token_id == likeliest[0]  # at temperature 0
            ids.append(entry.token_id)


def test_the_tokens_are_those_of_the_text_and_the_one_that_ended_it(llm: LLM):
    response = llm.chat(CAPITAL, logprobs=0)
    assert response.logprobs is not None
    assert len(response.logprobs) == response.usage.completion_tokens
    *said, last = response.logprobs
    assert b"".join(entry.bytes for entry in said).decode() == response.text
    assert last.token == "<|im_end|>"
    assert all(entry.top == () and entry.logprob <= 0 for entry in response.logprobs)


def test_temperature_and_penalties_do_not_change_them(llm: LLM):
    plain = llm(START, max_tokens=1, logprobs=5)
    other = llm(START, max_tokens=1, logprobs=5, temperature=2.0, top_k=1, presence_penalty=1.5, seed=3)
    assert plain.logprobs is not None
    assert other.logprobs is not None
    assert plain.logprobs[0].top == other.logprobs[0].top


def test_the_chunks_of_a_stream_have_them_all(llm: LLM):
    with llm(START, max_tokens=20, logprobs=2, stream=True) as stream:
        chunks = list(stream)
    assert all(isinstance(chunk, TextChunk) and chunk.logprobs for chunk in chunks)
    together = [entry for chunk in chunks for entry in chunk.logprobs]
    assert stream.response.logprobs is not None
    assert together == list(stream.response.logprobs)
    for chunk in chunks:
        assert "".join(entry.token for entry in chunk.logprobs) == chunk


def test_a_character_of_several_tokens_comes_with_all_of_them(llm: LLM):
    word = "Übermut 😀"
    with llm.chat([{"role": "user", "content": f'Repeat after me: "{word}"'}], logprobs=0, stream=True) as stream:
        deltas = list(stream)
    assert stream.response.text == word
    assert any(len(delta.logprobs) > 1 for delta in deltas)
    said = b"".join(entry.bytes for delta in deltas for entry in delta.logprobs)
    assert said.decode().startswith(word)


def test_the_deltas_of_a_chat_have_them_all(llm: LLM):
    with llm.chat(CAPITAL, logprobs=1, stream=True) as stream:
        deltas = list(stream)
    assert stream.response.logprobs is not None
    assert [entry for delta in deltas for entry in delta.logprobs] == list(stream.response.logprobs)
    assert add_up(deltas) == stream.response.message
    assert stream.response.logprobs == llm.chat(CAPITAL, logprobs=1).logprobs


@pytest.mark.usefixtures("lockstep")
def test_a_stream_that_is_closed_early_has_those_of_its_text(llm: LLM):
    with llm(START, max_tokens=500, ignore_eos=True, logprobs=0, stream=True) as stream:
        for _ in range(3):
            next(stream)
    response = stream.response
    assert response.finish_reason == "cancelled"
    assert response.logprobs is not None
    assert len(response.logprobs) == response.usage.completion_tokens
    assert "".join(entry.token for entry in response.logprobs) == response


def test_several_continuations_and_event_loops(llm: LLM):
    def check(response: Any) -> None:
        assert len(response.logprobs) == response.usage.completion_tokens == 4
        assert all(len(entry.top) == 2 for entry in response.logprobs)

    options: dict[str, Any] = {"max_tokens": 4, "logprobs": 2, "temperature": 1.0, "ignore_eos": True}
    for response in llm(START, n=3, **options):
        check(response)

    async def main() -> None:
        for response in await llm.agenerate(START, n=2, **options):
            check(response)
        assert [len(chunk.logprobs) async for chunk in llm.astream(START, **options)] == [1, 1, 1, 1]
        chat = await llm.achat(CAPITAL, logprobs=1)
        assert chat.logprobs == llm.chat(CAPITAL, logprobs=1).logprobs

    asyncio.run(main())


def test_a_grammar_shows_in_the_text_and_not_in_what_the_model_thought(llm: LLM):
    free = llm(START, max_tokens=1, logprobs=1)
    bound = llm(START, max_tokens=1, logprobs=1, grammar='root ::= "Z"')
    assert bound == "Z"
    assert free.logprobs is not None
    assert bound.logprobs is not None
    assert bound.logprobs[0].top == free.logprobs[0].top
    assert bound.logprobs[0].logprob < free.logprobs[0].logprob


def test_more_alternatives_than_tokens_are_all_tokens(llm: LLM):
    response = llm(START, max_tokens=1, logprobs=1000)
    assert response.logprobs is not None
    top = response.logprobs[0].top
    assert len(top) == 1000
    assert [entry.logprob for entry in top] == sorted((entry.logprob for entry in top), reverse=True)
    with pytest.raises(ConfigError, match="logprobs"):
        llm(START, logprobs=-1)
    with pytest.raises(ConfigError, match="logprobs"):
        llm(START, logprobs=100_000)


def test_those_of_a_stop_string_and_of_the_end_come_last_in_a_stream(llm: LLM):
    whole = llm(START, max_tokens=30)
    cut: dict[str, Any] = {"stop_sequences": [whole[30:36]]}
    ends: dict[str, Any] = {"max_tokens": 200}
    for options in (cut, ends):
        with llm(START, logprobs=1, stream=True, **options) as stream:
            chunks = list(stream)
        assert stream.response.finish_reason == "stop"
        together = [entry for chunk in chunks for entry in chunk.logprobs]
        assert stream.response.logprobs is not None
        assert together == list(stream.response.logprobs)
        assert "".join(chunks) == stream.response
        assert all(chunks[:-1])


def test_a_response_with_them_can_be_copied(llm: LLM):
    response = llm(START, max_tokens=2, logprobs=1)
    copy = pickle.loads(pickle.dumps(response))
    assert (copy, copy.logprobs) == (response, response.logprobs)
    assert isinstance(copy.logprobs[0], TokenLogprob)
    chunk = TextChunk("a", response.logprobs or ())
    assert pickle.loads(pickle.dumps(chunk)).logprobs == response.logprobs
