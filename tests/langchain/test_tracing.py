"""Callbacks, traces and caches of calls."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import (
    HumanMessage,
)

from cyllama import LLM, CyllamaError
from cyllama.errors import ConfigError
from langchain_cyllama import ChatCyllama

from ..support.chats import (
    CAPITAL,
    PARIS,
    Seen,
    add,
    add_up,
)


def test_callbacks_get_every_token(chat: ChatCyllama) -> None:
    seen = Seen()
    chunks = list(chat.stream(CAPITAL, {"callbacks": [seen]}))
    assert seen.tokens == [chunk.content for chunk in chunks]
    assert seen.ended[0].generations[0][0].text == PARIS


def test_with_streaming_callbacks_get_every_token_of_invoke(llm: LLM) -> None:
    seen = Seen()
    answer = ChatCyllama(llm=llm, streaming=True).invoke(CAPITAL, {"callbacks": [seen]})
    assert "".join(seen.tokens) == answer.text == PARIS
    assert len(seen.tokens) > 5


def test_callbacks_get_errors(chat: ChatCyllama) -> None:
    seen = Seen()
    with pytest.raises(CyllamaError):
        chat.bind(temperature=-1).invoke("Hello", {"callbacks": [seen]})
    assert isinstance(seen.errors[0], ConfigError)


def test_usage_is_added_up(chat: ChatCyllama) -> None:
    usage = UsageMetadataCallbackHandler()
    answers = [chat.invoke("Hello", {"callbacks": [usage]}), add_up(chat.stream("Hello", {"callbacks": [usage]}))]
    total = sum(answer.usage_metadata["total_tokens"] for answer in answers if answer.usage_metadata)
    assert usage.usage_metadata["tiny-chat"]["total_tokens"] == total
    result = chat.generate([[HumanMessage("Hello")], [HumanMessage("Hello")]])
    assert (result.llm_output or {})["token_usage"]["total_tokens"] == total


def test_traces_have_model_and_options_and_no_session(chat: ChatCyllama) -> None:
    seen = Seen()
    config: Any = {"callbacks": [seen], "configurable": {"thread_id": "ada"}}
    chat.bind(temperature=0.5).invoke("Hello", config, stop=["x"], session_id="ada")
    (start,) = seen.started
    assert start["metadata"]["ls_provider"] == "cyllama"
    assert start["metadata"]["ls_model_name"] == "tiny-chat"
    assert (start["metadata"]["ls_temperature"], start["metadata"]["ls_stop"]) == (0.5, ["x"])
    parameters = start["invocation_params"]
    assert parameters["_type"] == "chat-cyllama"
    assert (parameters["temperature"], parameters["stop"]) == (0.5, ["x"])
    assert not any("session" in name or "cyllama_" in name for name in parameters)


def test_an_answer_is_cached_for_all_sessions(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, cache=InMemoryCache())
    answer = chat.invoke(CAPITAL, {"configurable": {"session_id": "ada"}})
    generated = llm.stats.tokens_generated
    assert chat.invoke(CAPITAL, {"configurable": {"session_id": "ben"}}).text == answer.text
    assert chat.invoke(CAPITAL).text == answer.text
    assert llm.stats.tokens_generated == generated
    assert chat.bind(max_tokens=2).invoke(CAPITAL).text != answer.text
    assert chat.bind_tools([add], tool_choice="any").invoke(CAPITAL).tool_calls
    assert ChatCyllama(llm=llm, cache=chat.cache, max_tokens=2).invoke(CAPITAL).text != answer.text
