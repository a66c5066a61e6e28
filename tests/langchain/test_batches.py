"""Batches: decoded together, and ended early by Ctrl-C, an error, or a caller that stops reading."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from langchain_core.messages import AIMessage, RemoveMessage

from cyllama import LLM, MessageError
from langchain_cyllama import ChatCyllama

from ..support.chats import CAPITAL
from ..support.harness import held, settled, together

STORY = "Tell me a story about a fox."
ENDLESS: dict[str, Any] = {"max_tokens": None, "ignore_eos": True, "n_ctx": 8192}

INTERRUPTED = """
    import os, signal, threading, time
    from cyllama import LLM
    from langchain_cyllama import ChatCyllama
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a shell ignores it
    llm = LLM(temperature=0, n_parallel=4)
    chat = ChatCyllama(llm=llm, max_tokens=None, ignore_eos=True, n_ctx=8192, {more})
    stories = ["Tell me a story."] * 6
    text = dict(type="string", minLength=20_000)  # which does not end before it is interrupted
    schema = dict(type="object", properties=dict(story=text), required=["story"])
    statements = [
        lambda: chat.batch(stories),
        lambda: chat.batch(stories, return_exceptions=True),
        lambda: chat.batch(stories, dict(max_concurrency=2)),
        lambda: (chat | (lambda message: message)).batch(stories),
        lambda: chat.bind(temperature=0.5).batch(stories),
        lambda: list(chat.batch_as_completed(stories)),
        lambda: chat.with_structured_output(schema).batch(stories),
    ]
    for statement in statements:
        before = llm.stats.tokens_generated
        def interrupt():
            while not llm.stats.running or llm.stats.tokens_generated < before + 20:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            statement()
        except KeyboardInterrupt:
            print(llm.stats.tokens_generated - before < 8192, llm.stats.running, llm.stats.waiting)
        thread.join()
    print(chat.invoke("Hello", max_tokens=3).response_metadata["finish_reason"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to itself")
@pytest.mark.parametrize("more", ["", "sessions='exclusive', session_id='ada'"], ids=["plain", "exclusive"])
def test_ctrl_c_cancels_all_answers_of_a_batch(more: str) -> None:
    """A whole answer has 8,000 tokens, and six of them 48,000."""
    code = textwrap.dedent(INTERRUPTED).replace("{more}", more)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("True 0 0\n" * 7 + "length\n", "")


def test_an_error_cancels_the_other_answers_of_a_batch(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, **ENDLESS)
    before = llm.stats.tokens_generated
    with pytest.raises(MessageError, match="RemoveMessage"):
        chat.batch([[RemoveMessage(id="seven")], STORY, STORY])
    settled(llm)
    assert llm.stats.tokens_generated - before < 4000


def test_a_caller_that_stops_reading_cancels_the_rest(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, **ENDLESS)
    before = llm.stats.tokens_generated
    inputs: list[Any] = [[RemoveMessage(id="seven")], STORY, STORY]
    for i, answer in chat.batch_as_completed(inputs, return_exceptions=True):
        assert (i, type(answer)) == (0, MessageError)
        break
    settled(llm)
    assert llm.stats.tokens_generated - before < 4000


def test_a_batch_gives_all_answers_in_their_order(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, max_tokens=12)
    questions: list[Any] = [f"What is the capital of {country}?" for country in ("France", "Italy", "Spain")]
    answers = chat.batch(questions, {"max_concurrency": 2})
    assert [any(city in answer.text for city in ("Paris", "Rome", "Madrid")) for answer in answers] == [True] * 3
    assert [answer.text for answer in answers] == [chat.invoke(question).text for question in questions]
    seen = dict(chat.batch_as_completed(questions))
    assert [seen[i].text for i in range(3)] == [answer.text for answer in answers]
    assert chat.batch([]) == []
    assert list(chat.batch_as_completed([])) == []
    mixed = chat.batch([questions[0], [RemoveMessage(id="seven")]], return_exceptions=True)
    assert [type(answer) for answer in mixed] == [AIMessage, MessageError]


def test_each_answer_of_a_batch_has_its_own_session(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, max_tokens=4)
    configs: list[Any] = [{"configurable": {"session_id": name}} for name in ("ada", "ben")]
    chat.batch(["Hello", "Hello"], configs)
    assert sorted(llm.sessions) == ["ada", "ben"]


# -------------------- decoded together


def test_a_batch_is_one_batch_in_the_engine() -> None:
    with ChatCyllama(temperature=0, max_tokens=60) as chat:
        questions: list[Any] = [
            f"Tell me a story about {animal}." for animal in ("a fox", "an owl", "a bear", "a cat")
        ] * 2
        alone = [chat.invoke(question).text for question in questions]
        before = chat.client.stats
        answers = together(chat.client, 8, lambda: chat.batch(questions))
        after = chat.client.stats
        tokens = after.tokens_generated - before.tokens_generated
        assert [len(answer.text) > 50 for answer in answers] == [True] * 8
        assert tokens / (after.steps - before.steps) > 6
        assert sum(answer.text == text for answer, text in zip(answers, alone, strict=True)) >= 6  # rounding


def test_tasks_are_decoded_together_and_no_thread_waits_for_them() -> None:
    async def main(chat: ChatCyllama) -> int:
        with held(chat.client):
            calls = asyncio.gather(*(chat.ainvoke(f"Tell me a story about {i} owls.") for i in range(16)))
            while chat.client.stats.waiting < 16:
                await asyncio.sleep(0.001)
        most = 0
        while not calls.done():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.001)
        await calls
        return most

    with ChatCyllama(temperature=0, max_tokens=40) as chat:
        chat.invoke("Hello")
        n_threads, before = threading.active_count(), chat.client.stats
        assert asyncio.run(main(chat)) <= n_threads
        after = chat.client.stats
        assert (after.tokens_generated - before.tokens_generated) / (after.steps - before.steps) > 6


def test_an_error_of_one_call_does_not_end_the_others(chat: ChatCyllama) -> None:
    answers = chat.batch([CAPITAL, [RemoveMessage(id="seven")], CAPITAL], return_exceptions=True)
    assert [type(answer) for answer in answers] == [AIMessage, MessageError, AIMessage]
