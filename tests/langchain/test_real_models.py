"""Agents on a real model: SmolLM2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from cyllama import LLM
from langchain_cyllama import ChatCyllama

from ..support.real_models import needs, path_of

pytestmark = needs("smollm2")

ASKED: Any = {"messages": [("human", "What is the weather in Paris?")]}
STRATEGIES: list[Callable[..., Any]] = [ProviderStrategy, ToolStrategy]


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(max_length=20)
    sky: Literal["sunny", "cloudy"]


def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


@pytest.fixture(scope="module")
def smollm2() -> Iterator[ChatCyllama]:
    with LLM(path_of("smollm2"), temperature=0) as loaded:
        yield ChatCyllama(llm=loaded, max_tokens=200)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_agent_answers_with_a_value(smollm2: ChatCyllama, strategy: Any) -> None:
    agent = create_agent(smollm2, [], system_prompt="Answer in JSON.", response_format=strategy(Weather))
    assert isinstance(agent.invoke(ASKED)["structured_response"], Weather)


def test_an_agent_calls_its_tools_as_they_are_described(smollm2: ChatCyllama) -> None:
    middleware: list[Any] = [ModelCallLimitMiddleware(run_limit=3)]
    agent = create_agent(smollm2, [get_weather], middleware=middleware, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "ada"}}
    messages = agent.invoke(ASKED, config)["messages"]
    assert isinstance(messages[-1], AIMessage)
    calls = [call for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    assert all(call["name"] == "get_weather" and call["args"].keys() == {"city"} for call in calls)
