"""An agent with two tools and a checkpointer: every thread is a session, so that a step evaluates only what is new.

Run it with ``python examples/langchain/agent.py [model.gguf]``.
"""

from __future__ import annotations

import sys

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from langchain_cyllama import ChatCyllama

WEATHER = {"Paris": "It's sunny.", "Oslo": "It's snowing.", "London": "It's foggy."}
THREADS = (("ada", "Paris"), ("ben", "Oslo"), ("mia", "London"))
TURNS = ("My name is {name}.", "What is the weather in {place}?", "Add 17 and 25.", "What is my name?")


@tool
def get_weather(location: str) -> str:
    """Get the weather."""
    return WEATHER[location]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def main(model_path: str | None = None) -> None:
    with ChatCyllama(model_path=model_path, temperature=0, max_tokens=128) as model:
        agent = create_agent(model, [get_weather, add], checkpointer=InMemorySaver())
        for turn in TURNS:
            for thread, place in THREADS:  # alternately: none evicts another
                text = turn.format(name=thread.capitalize(), place=place)
                config: RunnableConfig = {"configurable": {"thread_id": thread}}
                messages = agent.invoke({"messages": [HumanMessage(text)]}, config)["messages"]
                start = max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
                print(f"{thread}: {messages[-1].text} ({describe(messages[start:])})")


def describe(turn: list[AnyMessage]) -> str:
    """Say what one turn took, tool calls included."""
    answers = [message for message in turn if isinstance(message, AIMessage)]
    calls = [f"{call['name']}({call['args']})" for answer in answers for call in answer.tool_calls]
    usages = [answer.usage_metadata for answer in answers if answer.usage_metadata]
    known = sum(usage.get("input_token_details", {}).get("cache_read", 0) for usage in usages)
    total = sum(usage["input_tokens"] for usage in usages)
    return "; ".join([*calls, f"{known} of {total} tokens were known"])


if __name__ == "__main__":
    main(*sys.argv[1:2])
