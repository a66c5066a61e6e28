"""Chats through LangChain: answers, options of calls, token counts, errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.runnables import ConfigurableField

from cyllama import LLM, ConfigTypeError, ContextSizeError, ModelNotFoundError
from langchain_cyllama import ChatCyllama

from ..support.chats import (
    CAPITAL,
    PARIS,
    add,
    add_up,
)


def test_without_any_argument_the_embedded_model_answers() -> None:
    with ChatCyllama() as chat:
        assert chat.invoke("Hello").text


def test_an_answer_is_what_the_model_itself_would_answer(chat: ChatCyllama) -> None:
    history = [SystemMessage("Be brief."), HumanMessage("My name is Ada."), AIMessage("Hello Ada."), ("human", CAPITAL)]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": CAPITAL},
    ]
    assert chat.invoke(history).text == chat.client.chat(messages, max_tokens=100).text


def test_a_stream_adds_up_to_the_answer(chat: ChatCyllama) -> None:
    chunks = list(chat.stream(CAPITAL))
    assert len(chunks) > 5
    total, whole = add_up(iter(chunks)), chat.invoke(CAPITAL)
    assert total.text == whole.text == PARIS
    assert total.usage_metadata == whole.usage_metadata
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"] == "stop"
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_an_event_loop_gets_the_same(chat: ChatCyllama) -> None:
    async def main() -> tuple[AIMessage, AIMessageChunk]:
        chunks = [chunk async for chunk in chat.astream(CAPITAL)]
        return await chat.ainvoke(CAPITAL), add_up(iter(chunks))

    answer, total = asyncio.run(main())
    assert answer.text == total.text == PARIS
    assert answer.usage_metadata == total.usage_metadata


def test_an_answer_says_why_it_ended(chat: ChatCyllama) -> None:
    def reason(**options: Any) -> tuple[str, str]:
        answer = chat.bind(**options).invoke("Count from 1 to 5.")
        return answer.text, answer.response_metadata["finish_reason"]

    assert reason() == ("1, 2, 3, 4, 5.", "stop")
    assert reason(max_tokens=4)[1] == "length"
    assert reason(stop=[", 4"]) == ("1, 2, 3", "stop")
    called = chat.bind_tools([add], tool_choice="any").invoke("What is the value of add(3, 4)? Use the tool.")
    assert called.response_metadata["finish_reason"] == "tool_calls"


def test_stop_words_of_a_call_come_before_those_of_the_object(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, stop=[", 4"])
    assert chat.invoke("Count from 1 to 5.").text == "1, 2, 3"
    assert chat.invoke("Count from 1 to 5.", stop=[", 3"]).text == "1, 2"
    assert chat.bind(stop=[", 2"]).invoke("Count from 1 to 5.").text == "1"


def test_bind_takes_every_option_by_every_name(chat: ChatCyllama) -> None:
    for options in ({"max_tokens": 3}, {"num_predict": 3}, {"options": {"num_predict": 3}}):
        answer = chat.bind(**options).invoke(CAPITAL)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == 3
    hot = chat.bind(temperature=2.0, seed=7, top_k=0, min_p=0.0, top_p=1.0)
    assert hot.invoke(CAPITAL).text == hot.invoke(CAPITAL).text != PARIS


def test_an_option_that_does_not_exist_is_an_error(chat: ChatCyllama) -> None:
    with pytest.raises(ConfigTypeError, match="no option 'temprature': did you mean 'temperature'"):
        chat.bind(temprature=1).invoke("Hello")


def test_options_can_be_configured_at_run_time(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, max_tokens=100).configurable_fields(max_tokens=ConfigurableField(id="length"))
    answer: Any = chat.invoke(CAPITAL, {"configurable": {"length": 2}})
    assert answer.usage_metadata["output_tokens"] == 2


def test_an_answer_fits_its_grammar(chat: ChatCyllama) -> None:
    assert chat.bind(grammar='root ::= "yes" | "no"').invoke("Is it late?").text in ("yes", "no")


def test_log_probabilities_are_reported_as_openai_does(chat: ChatCyllama) -> None:
    bound = chat.bind(logprobs=True, top_logprobs=2)
    answer, total = bound.invoke(CAPITAL), add_up(bound.stream(CAPITAL))
    content = answer.response_metadata["logprobs"]["content"]
    assert total.response_metadata["logprobs"]["content"] == content
    assert b"".join(bytes(each["bytes"]) for each in content).decode().startswith(PARIS)
    for each in content:
        assert each["logprob"] <= 0
        assert each["top_logprobs"][0]["token"] == each["token"]  # at temperature 0
        assert len(each["top_logprobs"]) == 2
    assert "logprobs" not in chat.invoke(CAPITAL).response_metadata


# -------------------- tokens


def test_token_counts_are_those_of_prompts(chat: ChatCyllama) -> None:
    history = [SystemMessage("Be brief."), HumanMessage(CAPITAL)]
    answer = chat.invoke(history)
    assert answer.usage_metadata is not None
    assert chat.get_num_tokens_from_messages(history) == answer.usage_metadata["input_tokens"]
    called = chat.bind_tools([add]).invoke(history)
    assert called.usage_metadata is not None
    assert chat.get_num_tokens_from_messages(history, tools=[add]) == called.usage_metadata["input_tokens"]
    assert chat.get_num_tokens("one two three") == len(chat.client.tokenize("one two three"))
    assert chat.get_num_tokens_from_messages([]) == 0


def test_an_incomplete_chat_is_counted_too(chat: ChatCyllama) -> None:
    assert chat.get_num_tokens_from_messages([ToolMessage("3", tool_call_id="one")]) > 1
    history = [HumanMessage("one " * 200), AIMessage("two"), HumanMessage("three")]
    trimmed = trim_messages(history, max_tokens=60, token_counter=chat, strategy="last", start_on="human")
    assert [message.content for message in trimmed] == ["three"]


def test_what_the_model_can_do_is_known(llm: LLM) -> None:
    profile = ChatCyllama(llm=llm).profile or {}
    assert (profile.get("max_input_tokens"), profile.get("tool_calling")) == (2048, True)
    assert (ChatCyllama(llm=llm, n_ctx=512).profile or {}).get("max_input_tokens") == 512


# -------------------- errors


def test_a_file_that_does_not_exist_is_named_at_once(tmp_path: Any) -> None:
    with pytest.raises(ModelNotFoundError, match=r"missing\.gguf"):
        ChatCyllama(model_path=tmp_path / "missing.gguf")


def test_a_conversation_that_is_too_long_is_refused_with_its_length(llm: LLM) -> None:
    from langchain_core.exceptions import ContextOverflowError

    chat = ChatCyllama(llm=llm, n_ctx=256)
    history = [HumanMessage("Hello"), AIMessage("Hello!")] * 100
    configs: list[Any] = [None, {"configurable": {"session_id": "ada"}}]
    for config in configs:
        with pytest.raises(ContextSizeError, match=r"conversation of 200 messages .* \d{4} tokens .* 256") as caught:
            chat.invoke(history, config)
        assert isinstance(caught.value, ContextOverflowError)
        with pytest.raises(ContextSizeError, match="conversation of 200 messages"):
            asyncio.run(chat.ainvoke(history, config))
    assert chat.invoke("Hello").text


def test_it_is_a_chat_model_of_langchain(chat: ChatCyllama) -> None:
    assert isinstance(chat, BaseChatModel)
    assert chat._llm_type == "chat-cyllama"
