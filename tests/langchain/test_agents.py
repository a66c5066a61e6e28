"""Agents and graphs of LangGraph: every thread is a session."""

from __future__ import annotations

import asyncio
import itertools
import operator
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from pydantic import BaseModel

from cyllama import LLM
from langchain_cyllama import ChatCyllama

from ..support.harness import together

ASYNC_NODES_KNOW_THEIR_THREAD = sys.version_info >= (3, 11)  # before, LangChain's context does not reach a new task
NAMES = (
    "Ada Ben Cleo Dan Eve Finn Gus Hana Ivan Jane Karl Lena Mia Noah Olga Paul Rosa Sam Tom Uma".split()  # noqa: SIM905
)
TURNS = (
    "My name is {}.",
    "What is the weather in Paris?",
    "What is 3 + 4?",
    "What is the capital of France?",
    "What is my name?",
)


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def thread(thread_id: str, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, **more}}


def said(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def new_answers(messages: list[AnyMessage]) -> Iterator[AIMessage]:
    """Yield what the model said since the user spoke."""
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return
        if isinstance(message, AIMessage):
            yield message


def tokens(answers: list[AIMessage]) -> tuple[int, int]:
    """Return how many tokens the prompts of answers had, and how many of them came from the cache."""
    usages = [answer.usage_metadata for answer in answers if answer.usage_metadata]
    assert len(usages) == len(answers)
    cached = [usage.get("input_token_details", {}).get("cache_read", 0) for usage in usages]
    return sum(usage["input_tokens"] for usage in usages), sum(cached)


@pytest.fixture
def agent(chat: ChatCyllama) -> CompiledStateGraph[Any, Any, Any, Any]:
    return create_agent(
        chat, [get_weather, add], system_prompt="You are a helpful assistant.", checkpointer=InMemorySaver()
    )


def assert_from_the_cache(answers: list[AIMessage]) -> None:
    prompt, cached = tokens(answers)
    assert cached / prompt >= 0.9


def test_twenty_threads_remember_their_own_users_and_evaluate_only_what_is_new(agent: Any) -> None:
    later: list[AIMessage] = []
    last: dict[str, str] = {}
    for i, turn in enumerate(TURNS):
        for name in NAMES:
            messages = agent.invoke(said(turn.format(name)), thread(name))["messages"]
            later += new_answers(messages) if i else ()
            last[name] = messages[-1].text
            if i == 1:  # a tool was called, and its result put into words
                assert [message.type for message in messages[-3:]] == ["ai", "tool", "ai"]
                assert messages[-1].text == "It is sunny in Paris."
    assert last == {name: f"Your name is {name}." for name in NAMES}
    assert_from_the_cache(later)


def test_threads_at_the_same_time_remember_their_own_users(agent: Any, chat: ChatCyllama) -> None:
    def talk(name: str) -> list[AnyMessage]:
        messages: list[AnyMessage] = []
        for turn in TURNS:
            messages = agent.invoke(said(turn.format(name)), thread(name))["messages"]
        return messages

    with ThreadPoolExecutor(8) as pool:
        talks = dict(zip(NAMES[:8], pool.map(talk, NAMES[:8]), strict=True))
    assert {name: messages[-1].text for name, messages in talks.items()} == {
        name: f"Your name is {name}." for name in NAMES[:8]
    }
    assert set(chat.client.sessions) == set(NAMES[:8])


def test_tasks_at_the_same_time_remember_their_own_users(agent: Any, chat: ChatCyllama) -> None:
    async def talk(name: str) -> list[AIMessage]:
        later, messages = list[AIMessage](), list[AnyMessage]()
        for i, turn in enumerate(TURNS):
            messages = (await agent.ainvoke(said(turn.format(name)), thread(name)))["messages"]
            later += new_answers(messages) if i else ()
        assert messages[-1].text == f"Your name is {name}."
        return later

    async def main() -> list[list[AIMessage]]:
        return await asyncio.gather(*map(talk, NAMES[:8]))

    answers = [answer for answers in asyncio.run(main()) for answer in answers]
    if ASYNC_NODES_KNOW_THEIR_THREAD:
        assert_from_the_cache(answers)
    else:
        assert tokens(answers)[1] == 0


def test_a_thread_goes_on_from_an_earlier_checkpoint(agent: Any) -> None:
    agent.invoke(said("My name is Ada."), thread("t"))
    before = agent.get_state(thread("t")).config
    agent.invoke(said("What is the weather in Paris?"), thread("t"))
    agent.invoke(said("What is the capital of France?"), thread("t"))
    messages = agent.invoke(said("What is my name?"), before)["messages"]
    assert [message.type for message in messages] == ["human", "ai", "human", "ai"]
    assert messages[-1].text == "Your name is Ada."
    prompt, cached = tokens(list(new_answers(messages)))
    assert prompt - cached <= 20
    forked = agent.invoke(said("What is the weather in Paris?"), thread("t"))["messages"]
    assert forked[-1].text == "It is sunny in Paris."


def test_a_message_that_was_edited_is_answered_again(agent: Any) -> None:
    messages = agent.invoke(said("My name is Ada."), thread("t"))["messages"]
    agent.update_state(thread("t"), {"messages": [HumanMessage("My name is Zoe.", id=messages[0].id)]})
    state = agent.get_state(thread("t")).values["messages"]
    agent.update_state(thread("t"), {"messages": [AIMessage("Nice to meet you, Zoe.", id=state[1].id)]})
    assert agent.invoke(said("What is my name?"), thread("t"))["messages"][-1].text == "Your name is Zoe."


def test_an_agent_streams_its_tokens(agent: Any) -> None:
    config = thread("t")
    pieces = [
        chunk.text
        for chunk, _ in agent.stream(said("What is the weather in Paris?"), config, stream_mode="messages")
        if chunk.type == "AIMessageChunk"
    ]
    assert len(pieces) > 10
    assert "".join(pieces) == "It is sunny in Paris."
    messages = agent.invoke(said("What is 3 + 4?"), config)["messages"]
    prompt, cached = tokens(list(new_answers(messages)))
    assert prompt - cached <= 60


def test_an_answer_of_an_agent_has_the_form_of_a_schema(chat: ChatCyllama) -> None:
    class Weather(BaseModel):
        """The weather in a city."""

        city: str
        sunny: bool

    agent: Any = create_agent(chat, [], response_format=Weather)
    assert isinstance(agent.invoke(said("What is the weather in Paris?"))["structured_response"], Weather)


# -------------------- graphs


def _node(model: Any, prompt: str) -> Any:
    def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke([SystemMessage(prompt), *state["messages"]])]}

    return call


def _async_node(model: Any, prompt: str) -> Any:
    async def call(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([SystemMessage(prompt), *state["messages"]])]}

    return call


def test_a_node_that_passes_no_config_has_the_session_of_its_thread(chat: ChatCyllama) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", _node(chat, "You are a helpful assistant."))
    graph.add_edge(START, "answer")
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    compiled.invoke(said("My name is Ada."), thread("t"))
    answer = compiled.invoke(said("What is my name?"), thread("t"))["messages"][-1]
    assert answer.text == "Your name is Ada."
    assert tokens([answer])[1] >= 30
    assert chat.client.sessions == ["t"]


def test_an_async_node_that_passes_no_config_has_the_session_of_its_thread(chat: ChatCyllama) -> None:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", _async_node(chat, "You are a helpful assistant."))
    graph.add_edge(START, "answer")
    compiled: Any = graph.compile(checkpointer=InMemorySaver())

    async def main() -> AIMessage:
        await compiled.ainvoke(said("My name is Ada."), thread("t"))
        state = await compiled.ainvoke(said("What is my name?"), thread("t"))
        return state["messages"][-1]

    cached = tokens([asyncio.run(main())])[1]
    assert cached >= 30 if ASYNC_NODES_KNOW_THEIR_THREAD else cached == 0


class Notes(TypedDict):
    """What agents write, each to itself."""

    one: Annotated[list[AnyMessage], operator.add]
    two: Annotated[list[AnyMessage], operator.add]
    said: str


def test_agents_of_one_graph_do_not_evict_each_other(chat: ChatCyllama) -> None:
    def speaker(key: Literal["one", "two"], prompt: str) -> Any:
        def speak(state: Notes) -> dict[str, Any]:
            question = HumanMessage(state["said"])
            history = [SystemMessage(prompt), *state[key], question]
            return {key: [question, chat.invoke(history)]}

        return speak

    graph = StateGraph(Notes)
    graph.add_node("pirate", speaker("one", "You are a pirate."))
    graph.add_node("robot", speaker("two", "You are a robot. You like numbers."))
    graph.add_edge(START, "pirate")
    graph.add_edge("pirate", "robot")
    compiled = graph.compile(checkpointer=InMemorySaver())
    for i, turn in enumerate(("My name is Ada.", "What is the capital of France?", "What is my name?")):
        state: Any = compiled.invoke({"said": turn, "one": [], "two": []}, thread("t"))
        for key in ("one", "two") if i else ():
            prompt, cached = tokens([state[key][-1]])
            assert prompt - cached <= 20 < cached
    assert len(chat.client.sessions) == 2


def test_an_agent_within_a_graph_has_a_session_of_its_own(chat: ChatCyllama) -> None:
    inner = create_agent(chat, [get_weather], name="weather")
    graph = StateGraph(MessagesState)
    graph.add_node("greet", _node(chat, "You are a helpful assistant."))
    graph.add_node("weather", inner)
    graph.add_edge(START, "greet")
    graph.add_edge("greet", "weather")
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    greeter, weather = list[AIMessage](), list[AIMessage]()
    for turn in ("My name is Ada.", "What is the weather in Paris?", "What is the capital of France?"):
        *others, first = new_answers(compiled.invoke(said(turn), thread("t"))["messages"])
        greeter.append(first)
        weather += reversed(others)
    for answers in (greeter, weather):
        for before, answer in itertools.pairwise(answers):
            assert tokens([answer])[1] >= tokens([before])[0] - 1
    assert len(chat.client.sessions) == 2
    chat.reset_session("t")
    assert chat.client.sessions == []


def test_steps_that_run_side_by_side_share_a_thread(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, max_tokens=60)

    class Stories(TypedDict):
        animals: list[str]
        stories: Annotated[list[str], operator.add]

    def tell(state: Any) -> dict[str, Any]:
        return {"stories": [chat.invoke(f"Tell me a story about {state['animal']}.").text]}

    graph = StateGraph(Stories)
    graph.add_node("tell", tell)
    graph.add_conditional_edges(START, lambda state: [Send("tell", {"animal": each}) for each in state["animals"]])
    graph.add_edge("tell", END)
    before = llm.stats
    animals = ["a fox", "an owl", "a bear"]
    compiled: Any = graph.compile(checkpointer=InMemorySaver())
    stories = together(llm, 3, lambda: compiled.invoke({"animals": animals, "stories": []}, thread("t"))["stories"])
    after = llm.stats
    assert (after.tokens_generated - before.tokens_generated) / (after.steps - before.steps) > 1.5
    assert len(stories) == 3
    chat.reset_session("t")
    assert llm.sessions == []


def test_a_tools_failure_is_told_to_the_model(chat: ChatCyllama) -> None:
    @tool
    def find_customer(name: str) -> str:
        """Find a customer."""
        raise ValueError("no such customer")

    bound = chat.bind_tools([find_customer])
    question = HumanMessage("Find the customer Ada.")
    call = bound.invoke([question])
    assert [each["name"] for each in call.tool_calls] == ["find_customer"]
    failed = ToolMessage("no such customer", tool_call_id=call.tool_calls[0]["id"], status="error")
    assert bound.invoke([question, call, failed]).text
