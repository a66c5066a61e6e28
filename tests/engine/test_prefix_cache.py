"""Calls without a session that keep what they evaluate for those that begin alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, ConfigError
from cyllama.engine import tuning

from ..support.harness import settled

IDS = np.random.default_rng(3).integers(300, 1200, 20_000).tolist()
SYSTEM = IDS[:1000]
OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 4, "ignore_eos": True}


def question(i: int) -> list[int]:
    return [300 + i, *IDS[2000 + 40 * i : 2030 + 40 * i]]


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM(n_threads=1, **OPTIONS) as llm:
        yield llm
        settled(llm)
        llm._runtime.running_engine().check_integrity()


def cached(llm: LLM, tokens: list[int], **options: Any) -> int:
    return llm(tokens, **options).usage.cached_tokens


def test_twenty_calls_evaluate_what_they_share_once(llm: LLM):
    prompts = [[*SYSTEM, *question(i)] for i in range(20)]
    known = [cached(llm, prompt, prefix_cache=True) for prompt in prompts]
    assert known == [0, *[len(SYSTEM)] * 19]
    assert llm.stats.prompt_tokens_evaluated <= 0.2 * sum(map(len, prompts))
    assert llm.stats.kept_prefixes <= tuning.KEPT_OF_KEY
    assert llm.sessions == []


def test_a_chat_has_its_system_message_evaluated_once(llm: LLM):
    system = {"role": "system", "content": "You answer questions about the sea and about ships. " * 20}
    questions = ({"role": "user", "content": text} for text in ("Hello", "What is a ship?"))
    first, second = (llm.chat([system, question], prefix_cache="sea") for question in questions)
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens > 0.9 * first.usage.prompt_tokens


def test_calls_of_other_keys_and_sessions_share_nothing(llm: LLM):
    prompt = [*SYSTEM, *question(0)]
    assert cached(llm, prompt, prefix_cache="ada") == 0
    assert cached(llm, prompt, prefix_cache="bob") == 0
    assert cached(llm, prompt, prefix_cache=True) == 0
    assert cached(llm, prompt, session="ada") == 0, "a session is of no key"
    assert cached(llm, prompt, session="ada again", prefix_cache="ada") == len(prompt) - 1, "it is known from a session"
    assert cached(llm, prompt, prefix_cache="carol") == 0
    assert cached(llm, prompt, prefix_cache="ada") == len(prompt) - 1


def test_a_call_that_does_not_ask_for_it_finds_nothing_and_leaves_nothing(llm: LLM):
    prompt = [*SYSTEM, *question(0)]
    assert cached(llm, prompt) == 0
    assert llm.stats.kept_prefixes == 0
    assert cached(llm, prompt, prefix_cache=True) == 0
    assert cached(llm, prompt) == 0


def test_an_option_of_the_llm_that_a_call_turns_off():
    with LLM(prefix_cache=True, **OPTIONS) as llm:
        llm(SYSTEM)
        assert cached(llm, SYSTEM, prefix_cache=False) == 0
        assert cached(llm, SYSTEM) == len(SYSTEM) - 1


def test_documents_stay_and_questions_about_them_go(llm: LLM):
    """Three documents behind one system prompt, asked about in turn: no question is asked twice."""
    documents = [[*SYSTEM[:300], *IDS[5000 + 1000 * i : 5500 + 1000 * i]] for i in range(3)]
    for i in range(12):
        known = cached(llm, [*documents[i % 3], *question(i)], prefix_cache="library")
        assert known == (0 if i == 0 else 300 if i < 3 else 800)


def test_what_is_kept_is_bounded(llm: LLM):
    for i in range(40):
        llm(IDS[100 * i : 100 * i + 90], max_tokens=1, prefix_cache=f"key {i // 10}")
    assert llm.stats.kept_prefixes == tuning.KEPT_PREFIXES
    for i in range(20):
        llm(IDS[100 * i : 100 * i + 90], max_tokens=1, prefix_cache=f"other key {i}")
    assert llm.stats.kept_prefixes == tuning.KEPT_PREFIXES


def test_a_call_that_goes_on_from_another_replaces_it(llm: LLM):
    prompt = list(SYSTEM[:200])
    for _ in range(5):
        answer = llm(prompt, prefix_cache=True, logprobs=0)
        prompt += [each.token_id for each in answer.logprobs or ()] + question(1)
    assert llm.stats.kept_prefixes == 1
    assert llm.stats.prompt_tokens_reused > 200 * 4


@pytest.mark.parametrize("host_cache_mb", [0, 1024])
def test_conversations_stay_longer_than_what_calls_have_left(host_cache_mb: int):
    with LLM(n_threads=1, kv_cells=2048, host_cache_mb=host_cache_mb, **OPTIONS) as llm:
        ada = llm.session("ada")
        ada(IDS[:600])
        llm(IDS[3000:3900], prefix_cache=True)  # later than the session
        llm(IDS[5000:6000])  # there is no room for all
        turn = ada(question(0))
        assert turn.usage.cached_tokens == 603, "the last token of an answer is evaluated with the next turn"
        assert llm.stats.dropped == 0
        found = cached(llm, IDS[3000:3900], prefix_cache=True)
        assert found == (899 if host_cache_mb else 0)
        settled(llm)
        llm._runtime.running_engine().check_integrity()


def test_host_memory_is_for_conversations_first():
    with LLM(n_threads=1, kv_cells=1024, host_cache_mb=1, **OPTIONS) as llm:
        llm(IDS[:500], session="ada")
        for i in range(3):
            llm(IDS[1000 * (i + 1) : 1000 * (i + 1) + 900], prefix_cache=f"{i}")
        assert llm.stats.dropped == 0
        assert cached(llm, IDS[:520], session="ada") >= 500


@pytest.mark.parametrize("give_back", [LLM.close, LLM.reset_context])
def test_it_is_given_back_with_the_context(llm: LLM, give_back: Any):
    llm(SYSTEM, prefix_cache=True)
    give_back(llm)
    assert (llm.stats.kept_prefixes, llm.stats.kv_cells_used, llm.stats.host_bytes) == (0, 0, 0)
    assert cached(llm, SYSTEM, prefix_cache=True) == 0


def test_a_call_that_is_cancelled_leaves_what_it_has_evaluated(llm: LLM):
    with llm(SYSTEM, stream=True, max_tokens=None, prefix_cache=True) as stream:
        next(stream)
    assert cached(llm, [*SYSTEM, *question(0)], prefix_cache=True) >= len(SYSTEM)


def test_several_answers_begin_where_another_call_ended(llm: LLM):
    llm(SYSTEM, prefix_cache=True)
    prompt = [*SYSTEM, *IDS[4000:4200]]
    answers = llm(prompt, n=4, prefix_cache=True)
    assert answers[0].usage.cached_tokens == len(SYSTEM)
    assert cached(llm, prompt, prefix_cache=True) == len(prompt) - 1


@pytest.mark.parametrize("key", ["", 1, None, ["a"]])
def test_a_key_is_a_text(llm: LLM, key: Any):
    with pytest.raises(ConfigError, match=r"GenerationConfig.prefix_cache: .*, not "):
        llm("Hello", prefix_cache=key)
