"""Agents on a real model: SmolLM2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field

from cyllama import LLM
from langchain_cyllama import ChatCyllama

from ..support.real_models import needs, path_of

pytestmark = needs("smollm2")

SYSTEM = "You are a helpful assistant. You answer every question in one short sentence."
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
    with LLM(path_of("smollm2"), temperature=0, n_threads=1) as loaded:
        yield ChatCyllama(llm=loaded, max_tokens=200)


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    city: str = Field(max_length=20)


def test_sentences_become_values(smollm2: ChatCyllama) -> None:
    people = [
        Person(name="Ada", age=36, city="London"),
        Person(name="Zorblax", age=7, city="Quimby"),
        Person(name="Mia", age=52, city="Oslo"),
    ]
    prompt = ChatPromptTemplate.from_template(
        "Extract name, age and city as JSON: {name} is {age} years old and lives in {city}."
    )
    found = (prompt | smollm2.with_structured_output(Person)).batch([person.model_dump() for person in people])
    assert all(isinstance(person, Person) for person in found)
    assert sum(a == b for a, b in zip(found, people, strict=True)) >= 2


def test_threads_of_an_agent_that_alternate_evaluate_only_what_is_new(smollm2: ChatCyllama) -> None:
    brief = smollm2.model_copy(update={"max_tokens": 12})
    agent = create_agent(brief, [], system_prompt=SYSTEM, checkpointer=InMemorySaver())
    known: dict[str, int] = {}
    for question in ("My name is {}.", "What is my name?", "Thank you."):
        for name in ("Ada", "Ben"):
            config: Any = {"configurable": {"thread_id": name}}
            asked: Any = {"messages": [("human", question.format(name))]}
            answer = agent.invoke(asked, config)["messages"][-1]
            assert answer.usage_metadata["input_token_details"]["cache_read"] >= known.get(name, 0)
            known[name] = answer.usage_metadata["total_tokens"] - 1


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
