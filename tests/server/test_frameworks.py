"""Frameworks that know nothing of cyllama, pointed at the server."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Literal

import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from ..support.server import ServerProcess

agents: Any = importlib.import_module("agents")  # OpenAI's SDK; type checkers take benchmarks/agents.py for it

QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."


class Capital(BaseModel):
    """The capital of a country."""

    country: Literal["France", "Italy"]
    capital: Literal["Paris", "Rome"]


@tool
def weather(city: str) -> str:
    """Get the weather in a city."""
    return f"18 degrees in {city}"


@pytest.fixture(params=["ChatOpenAI", "ChatAnthropic"])
def model(request: pytest.FixtureRequest, server: ServerProcess) -> BaseChatModel:
    if request.param == "ChatOpenAI":
        return ChatOpenAI(model="tiny-chat", base_url=server.v1, api_key=SecretStr("any"), temperature=0)
    options = {"model": "tiny-chat", "base_url": server.url, "api_key": "any", "max_tokens": 256, "temperature": 0}
    return ChatAnthropic.model_validate(options)


def test_langchain_gets_answers_streams_tools_and_values(model: BaseChatModel):
    answer = model.invoke(QUESTION)
    assert answer.text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 0
    chunks = list(model.stream(QUESTION))
    assert len([chunk for chunk in chunks if chunk.text]) > 3
    called = model.bind_tools([weather], tool_choice="weather").invoke("What is the weather in Paris?")
    assert [(call["name"], list(call["args"])) for call in called.tool_calls] == [("weather", ["city"])]
    assert isinstance(model.with_structured_output(Capital).invoke(QUESTION), Capital)
    assert asyncio.run(model.ainvoke(QUESTION)).text


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_agent_of_openais_sdk_runs(server: ServerProcess, api: str):
    async def main() -> object:
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="any") as client:
            kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
            agent = agents.Agent(
                name="geographer",
                instructions="You are a helpful assistant.",
                model=kind(model="tiny-chat", openai_client=client),
                model_settings=agents.ModelSettings(temperature=0),
            )
            run = await agents.Runner.run(agent, QUESTION)
            return run.final_output

    agents.set_tracing_disabled(True)
    assert asyncio.run(main()) == PARIS


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_of_openais_sdk_calls_its_tool(server: ServerProcess, stream: bool):
    asked: list[str] = []

    @agents.function_tool
    def look_up(city: str) -> str:
        """Get the weather in a city."""
        asked.append(city)
        return f"18 degrees in {city}"

    async def main() -> object:
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="any") as client:
            agent = agents.Agent(
                name="meteorologist",
                instructions="You are a helpful assistant.",
                model=agents.OpenAIChatCompletionsModel(model="tiny-chat", openai_client=client),
                model_settings=agents.ModelSettings(temperature=0, tool_choice="required", parallel_tool_calls=False),
                tools=[look_up],
                tool_use_behavior="stop_on_first_tool",
            )
            if not stream:
                return (await agents.Runner.run(agent, "What is the weather in Paris?")).final_output
            run = agents.Runner.run_streamed(agent, "What is the weather in Paris?")
            async for _ in run.stream_events():
                pass
            return run.final_output

    agents.set_tracing_disabled(True)
    assert asyncio.run(main()) == f"18 degrees in {asked[0]}"
    assert len(asked) == 1
