"""Agents that answer with a value: by the model's own format, by a tool, with tools and without."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from cyllama import LLM
from langchain_cyllama import ChatCyllama

ASKED: Any = {"messages": [("human", "What is the weather in Paris?")]}


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(max_length=20)
    sky: Literal["sunny", "cloudy"]


@dataclass
class WeatherRecord:
    """The weather in a city."""

    city: Literal["Paris", "Rome"]
    sky: Literal["sunny", "cloudy"]


class WeatherDict(TypedDict):
    """The weather in a city."""

    city: Literal["Paris", "Rome"]
    sky: Literal["sunny", "cloudy"]


class Capital(BaseModel):
    """A city."""

    city: Literal["Paris", "Rome"]


class NoWeather(BaseModel):
    """Why there is no weather."""

    reason: str = Field(max_length=20)


class Part(BaseModel):
    """A part with parts."""

    name: Literal["a", "b"]
    parts: list[Part] = Field(max_length=1)


SCHEMAS: list[Any] = [Weather, WeatherRecord, WeatherDict, Weather.model_json_schema(), Part]
STRATEGIES: list[Callable[..., Any]] = [ProviderStrategy, ToolStrategy]


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


def is_value(value: Any, schema: Any) -> bool:
    """Whether a value is one of a schema."""
    if isinstance(schema, type) and schema is not WeatherDict:
        return isinstance(value, schema)
    return isinstance(value, dict) and value.keys() == {"city", "sky"} and value["sky"] in ("sunny", "cloudy")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: getattr(schema, "__name__", "JSON schema"))
def test_an_agent_without_tools_answers_with_a_value(chat: ChatCyllama, schema: Any, strategy: Any) -> None:
    agent = create_agent(chat, [], response_format=strategy(schema))
    *_, state = agent.stream(ASKED, stream_mode="values")
    for result in (agent.invoke(ASKED), asyncio.run(agent.ainvoke(ASKED)), state):
        assert is_value(result["structured_response"], schema)


def test_an_agent_chooses_among_several_schemas(chat: ChatCyllama) -> None:
    agent = create_agent(chat, [], response_format=ToolStrategy(Weather | NoWeather))
    assert isinstance(agent.invoke(ASKED)["structured_response"], (Weather, NoWeather))


@wrap_model_call
def answer_after_a_result(request: Any, handler: Any) -> Any:
    """Offer no tools but those of the format once there is a result."""
    found = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request.override(tools=[]) if found else request)


def test_an_agent_calls_a_tool_and_then_one_that_stands_for_the_format(chat: ChatCyllama) -> None:
    middleware = [answer_after_a_result]
    agent = create_agent(chat, [get_weather], response_format=ToolStrategy(Weather), middleware=middleware)
    result = agent.invoke(ASKED, {"recursion_limit": 12})
    assert isinstance(result["structured_response"], Weather)
    messages = [message for message in result["messages"] if isinstance(message, AIMessage)]
    called = [call["name"] for message in messages for call in message.tool_calls]
    assert called[-1] == "Weather"


@pytest.mark.parametrize("response_format", [ProviderStrategy(Weather), Weather], ids=["provider", "a plain schema"])
def test_an_agent_calls_a_tool_and_then_answers_with_a_value(chat: ChatCyllama, response_format: Any) -> None:
    # the embedded model, once it may not answer in words, goes on calling tools as long as there are some
    agent = create_agent(chat, [get_weather], response_format=response_format, middleware=[answer_after_a_result])
    result = agent.invoke(ASKED, {"recursion_limit": 12})
    assert isinstance(result["structured_response"], Weather)
    _, call, tool, answer = result["messages"]
    assert [called["name"] for called in call.tool_calls] == ["get_weather"]
    assert tool.content == "It is sunny in Paris."
    assert answer.tool_calls == []
    assert Weather.model_validate_json(answer.content) == result["structured_response"]


def test_an_agent_with_tools_answers_with_a_value_where_it_needs_none(chat: ChatCyllama) -> None:
    agent = create_agent(chat, [get_weather], response_format=ProviderStrategy(Capital))
    asked: Any = {"messages": [("human", "What is the capital of France?")]}
    result = agent.invoke(asked)
    assert result["structured_response"] == Capital(city="Paris")
    assert len(result["messages"]) == 2


def test_an_agent_keeps_its_thread_between_values(chat: ChatCyllama) -> None:
    agent = create_agent(chat, [], response_format=ProviderStrategy(Weather), checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "ada"}}
    first, second = agent.invoke(ASKED, config), agent.invoke(ASKED, config)
    assert isinstance(first["structured_response"], Weather)
    assert isinstance(second["structured_response"], Weather)
    assert second["messages"][-1].usage_metadata["input_token_details"]["cache_read"] > 0


def test_an_agent_whose_value_was_cut_ends_with_an_error(chat: ChatCyllama) -> None:
    agent = create_agent(chat.model_copy(update={"max_tokens": 6}), [], response_format=ProviderStrategy(Weather))
    with pytest.raises(Exception, match="Failed to parse structured output for tool 'Weather'"):
        agent.invoke(ASKED)


@pytest.mark.parametrize("mode", ["messages", "updates", "values"])
def test_an_agent_never_runs_a_call_that_was_cut(llm: LLM, mode: Any) -> None:
    ran: list[str] = []

    def delete(path: str) -> str:
        """Delete a file."""
        ran.append(path)
        return "done"

    chat = ChatCyllama(llm=llm, max_tokens=22)  # within the argument
    agent = create_agent(chat, [delete], middleware=[ModelCallLimitMiddleware(run_limit=2)])
    asked: Any = {"messages": [("human", "Delete the file /home/ada/notes/old. Use the tool.")]}
    list(agent.stream(asked, stream_mode=mode))
    assert ran == []
