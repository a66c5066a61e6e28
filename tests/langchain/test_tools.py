"""Tools through LangChain: choices, calls in streams, and calls that were cut."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import Any, TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    ToolMessage,
)
from pydantic import BaseModel

from cyllama import LLM, ToolError
from langchain_cyllama import ChatCyllama

from ..support.chats import (
    Seen,
    add,
    add_up,
    collect,
    get_weather,
)


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("any", True),
        ("required", True),
        (True, True),
        ("add", True),
        ({"type": "function", "function": {"name": "add"}}, True),
        ("none", False),
    ],
)
def test_the_model_calls_the_tools_of_the_choice(chat: ChatCyllama, choice: Any, called: bool) -> None:
    answer = chat.bind_tools([add, get_weather], tool_choice=choice).invoke("Hello!")
    assert bool(answer.tool_calls) == called
    if choice not in ("any", "required", True, "none"):
        assert [call["name"] for call in answer.tool_calls] == ["add"]


@pytest.mark.parametrize("choice", [None, "auto", False])
def test_the_model_decides_whether_to_call(chat: ChatCyllama, choice: Any) -> None:
    bound = chat.bind_tools([add, get_weather], tool_choice=choice)
    assert [call["args"] for call in bound.invoke("What is the weather in Paris?").tool_calls] == [{"city": "Paris"}]
    assert bound.invoke("Hello!").tool_calls == []


def test_a_tool_that_does_not_exist_cannot_be_chosen(chat: ChatCyllama) -> None:
    with pytest.raises(ToolError, match="'multiply', but the tools are add, get_weather"):
        chat.bind_tools([add, get_weather], tool_choice="multiply")


def test_several_tools_are_called_at_once_where_that_is_allowed(chat: ChatCyllama) -> None:
    question = "What is the weather in Paris and what is the weather in Rome?"
    one = chat.bind_tools([get_weather], tool_choice="any").invoke(question)
    many = chat.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=True).invoke(question)
    assert len(one.tool_calls) == 1 <= len(many.tool_calls)
    assert len({call["id"] for call in many.tool_calls}) == len(many.tool_calls)


def test_a_result_is_answered_in_words(chat: ChatCyllama) -> None:
    bound = chat.bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris?")
    call = bound.invoke([question])
    result = get_weather.invoke(call.tool_calls[0])
    assert isinstance(result, ToolMessage)
    assert bound.invoke([question, call, result]).text == "It is sunny in Paris."


def test_everything_that_langchain_takes_for_a_tool_is_one(chat: ChatCyllama) -> None:
    class GetWeather(BaseModel):
        """Get the weather in a city."""

        city: str

    class Where(TypedDict):
        """Get the weather in a city."""

        city: str

    def weather(city: str) -> str:
        """Get the weather in a city."""
        return city

    schema = {
        "title": "get_weather",
        "description": "Get it.",
        "type": "object",
        "properties": {"city": {"type": "string"}},
    }
    anthropic = {"name": "get_weather", "description": "Get it.", "input_schema": GetWeather.model_json_schema()}
    for each in (GetWeather, Where, weather, get_weather, schema, anthropic):
        (call,) = chat.bind_tools([each], tool_choice="any").invoke("What is the weather in Paris?").tool_calls
        assert call["args"].keys() <= {"city"}


# -------------------- calls in pieces, and calls that were cut


def test_a_call_is_streamed_in_pieces(chat: ChatCyllama) -> None:
    bound = chat.bind_tools([get_weather], tool_choice="any")
    chunks: list[Any] = list(bound.stream("What is the weather in Paris?"))
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert len(pieces) > 2
    assert [piece["name"] for piece in pieces if piece["name"]] == ["get_weather"]
    assert json.loads("".join(piece["args"] or "" for piece in pieces)) == {"city": "Paris"}
    total = add_up(iter(chunks))
    assert [(call["name"], call["args"]) for call in total.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert total.response_metadata["finish_reason"] == "tool_calls"


def test_a_call_that_is_cut_off_is_invalid(chat: ChatCyllama) -> None:
    answer = (
        chat.bind_tools([get_weather], tool_choice="any").bind(max_tokens=19).invoke("What is the weather in Paris?")
    )
    assert answer.response_metadata["finish_reason"] == "length"
    assert answer.tool_calls == []
    (cut,) = answer.invalid_tool_calls
    assert (cut["name"], cut["args"]) == ("get_weather", '{"city": "Par')


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize("cut", [{"max_tokens": 19}, {"stop": ["ris"]}], ids=["max_tokens", "stop"])
def test_a_call_that_was_cut_is_not_repaired_in_a_stream(llm: LLM, cut: dict[str, Any], version: Any) -> None:
    question = "What is the weather in Paris?"
    seen = Seen()
    for streaming in (False, True):
        chat = ChatCyllama(llm=llm, output_version=version, streaming=streaming, cache=InMemoryCache(), **cut)
        bound = chat.bind_tools([get_weather])
        whole = bound.invoke(question, {"callbacks": [seen]})
        cached = bound.invoke(question)
        total = add_up(bound.stream(question, {"callbacks": [seen]}))
        atotal = add_up(iter(asyncio.run(collect(bound.astream(question)))))
        told = [result.generations[0][0].message for result in seen.ended]
        for answer in (whole, cached, total, atotal, *told):
            assert answer.tool_calls == []
            (broken,) = answer.invalid_tool_calls
            assert (broken["name"], broken["args"]) == ("get_weather", '{"city": "Pa' + "r" * ("max_tokens" in cut))
            assert "max_tokens" in (broken["error"] or "")
            assert not [block for block in answer.content_blocks if block["type"] == "tool_call"]
        assert type(whole) is AIMessage


def test_the_last_chunk_of_a_call_that_was_cut_can_be_saved(chat: ChatCyllama) -> None:
    *_, last = chat.bind_tools([get_weather], max_tokens=19).stream("What is the weather in Paris?")
    saved = dumpd(last)
    assert saved["id"] == dumpd(AIMessageChunk(content=""))["id"]
    assert pickle.loads(pickle.dumps(last)) == last
