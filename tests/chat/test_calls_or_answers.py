"""Tools and a response format in one chat: the answer is a call, or a text that fits the schema."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from cyllama import LLM, ChatResponse, ConfigError
from cyllama.chat import add_up

CAPITAL: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "get_weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Capital(BaseModel):
    """A city."""

    city: Literal["Paris", "Rome"]


def check_call(response: ChatResponse) -> None:
    assert response.finish_reason == "tool_calls"
    [call] = response.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert response.parsed is None


def check_answer(response: ChatResponse) -> None:
    assert response.finish_reason == "stop"
    assert response.message.tool_calls == []
    assert isinstance(response.parsed, Capital)


def test_a_call_where_one_is_needed_and_else_an_answer_of_the_schema(llm: LLM):
    check_call(llm.chat(WEATHER, tools=TOOLS, response_format=Capital))
    check_answer(llm.chat(CAPITAL, tools=TOOLS, response_format=Capital))


def test_in_a_stream_in_a_session_and_in_an_event_loop(llm: LLM):
    with llm.chat(CAPITAL, tools=TOOLS, response_format=Capital, stream=True) as stream:
        deltas = list(stream)
    assert add_up(deltas) == stream.response.message
    check_answer(stream.response)
    session = llm.session("calls or answers")
    check_call(session.chat(WEATHER, tools=TOOLS, response_format=Capital))
    check_call(asyncio.run(llm.achat(WEATHER, tools=TOOLS, response_format=Capital)))


def test_where_a_call_is_required_there_are_only_calls(llm: LLM):
    for choice in ("required", "get_weather"):
        response = llm.chat(CAPITAL, tools=TOOLS, tool_choice=choice, response_format=Capital)
        assert [call.function.name for call in response.message.tool_calls] == ["get_weather"]
        assert response.parsed is None


def test_where_no_tool_may_be_called_there_are_only_answers(llm: LLM):
    check_answer(llm.chat(WEATHER, tools=TOOLS, tool_choice="none", response_format=Capital))


def test_a_grammar_of_the_callers_stands_alone(llm: LLM):
    with pytest.raises(ConfigError, match="an answer fits one grammar"):
        llm.chat(CAPITAL, grammar='root ::= "x"', tools=TOOLS)
    with pytest.raises(ConfigError, match="an answer fits one grammar"):
        llm.chat(CAPITAL, grammar='root ::= "x"', response_format=Capital)
