"""Which conversation a call belongs to, and what stays of it in the KV cache."""

from __future__ import annotations

import asyncio
import gc
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.runnables.config import set_config_context
from langchain_core.runnables.history import RunnableWithMessageHistory

from cyllama import LLM
from langchain_cyllama import ChatCyllama
from langchain_cyllama.sessions import MAX_HISTORIES, SessionKey, find_session, stable_namespace

from ..support.chats import add_up
from ..support.harness import settled, together

ADA = HumanMessage("My name is Ada.")
NAME = HumanMessage("What is my name?")


def of(session_id: str) -> RunnableConfig:
    return {"configurable": {"session_id": session_id}}


def cached(message: AIMessage | AIMessageChunk) -> int:
    assert message.usage_metadata is not None
    return message.usage_metadata.get("input_token_details", {}).get("cache_read", 0)


def n_input(message: AIMessage | AIMessageChunk) -> int:
    assert message.usage_metadata is not None
    return message.usage_metadata["input_tokens"]


# -------------------- which conversation


def test_an_explicit_session_comes_first_then_the_sessions_id_then_the_thread() -> None:
    config: RunnableConfig = {"configurable": {"session_id": "session", "thread_id": "thread"}}
    assert find_session("explicit", config) == SessionKey("explicit")
    assert find_session(None, config) == SessionKey("session")
    assert find_session(None, {"configurable": {"thread_id": "thread"}}) == SessionKey("thread")
    assert find_session(None, {"configurable": {"thread_id": ""}}) is None
    assert find_session(None, {}) is None
    assert find_session() is None


def test_an_id_may_be_anything() -> None:
    thread = uuid.uuid4()
    assert find_session(None, {"configurable": {"thread_id": thread}}) == SessionKey(str(thread))
    assert find_session(None, {"configurable": {"thread_id": 0}}) == SessionKey("0")


def test_the_config_around_a_call_is_found_and_its_own_comes_first() -> None:
    around: RunnableConfig = {"configurable": {"session_id": "around", "checkpoint_ns": "agent:1"}}
    with set_config_context(around) as context:
        assert context.run(find_session) == SessionKey("around", "agent")
        assert context.run(find_session, None, {"configurable": {"thread_id": "own"}}) == SessionKey("own", "agent")
        assert context.run(find_session, None, {"tags": ["tagged"]}) == SessionKey("around", "agent")


def test_a_namespace_is_the_same_at_every_step() -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    assert stable_namespace(f"team:{first}|agent:{second}") == "team|agent"
    assert stable_namespace(f"team:{first}|1|agent:{second}") == "team|agent"
    assert stable_namespace("") == ""


# -------------------- every way to call


async def _collected(model: Runnable[Any, Any], history: list[BaseMessage], config: RunnableConfig) -> AIMessageChunk:
    return add_up(iter([chunk async for chunk in model.astream(history, config)]))


async def _from_events(model: Runnable[Any, Any], history: list[BaseMessage], config: RunnableConfig) -> AIMessage:
    events: list[Any] = [event async for event in model.astream_events(history, config, version="v2")]
    (end,) = [event for event in events if event["event"] == "on_chat_model_end"]
    return end["data"]["output"]


async def _from_v3_events(model: Any, history: list[BaseMessage], config: RunnableConfig) -> AIMessage:
    stream = await model.astream_events(history, config, version="v3")
    return await stream.output


def _in_a_node(model: BaseChatModel) -> Runnable[Any, AIMessage]:
    return RunnableLambda(lambda history: model.invoke(history))


def _in_an_async_node(model: BaseChatModel) -> Runnable[Any, AIMessage]:
    async def call(history: list[BaseMessage]) -> AIMessage:
        return await model.ainvoke(history)

    return RunnableLambda(call)


def _in_a_chain(model: BaseChatModel) -> Runnable[Any, AIMessage]:
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history")])
    return RunnableLambda(lambda history: {"history": history}) | prompt | model


WAYS: dict[str, Callable[[Any, list[BaseMessage], RunnableConfig], AIMessage | AIMessageChunk]] = {
    "invoke": lambda model, history, config: model.invoke(history, config),
    "ainvoke": lambda model, history, config: asyncio.run(model.ainvoke(history, config)),
    "stream": lambda model, history, config: add_up(model.stream(history, config)),
    "astream": lambda model, history, config: asyncio.run(_collected(model, history, config)),
    "batch": lambda model, history, config: model.batch([history], config)[0],
    "abatch": lambda model, history, config: asyncio.run(model.abatch([history], config))[0],
    "batch_as_completed": lambda model, history, config: next(iter(model.batch_as_completed([history], config)))[1],
    "events": lambda model, history, config: asyncio.run(_from_events(model, history, config)),
    "v3 events": lambda model, history, config: model.stream_events(history, config, version="v3").output,
    "async v3 events": lambda model, history, config: asyncio.run(_from_v3_events(model, history, config)),
    "chain": lambda model, history, config: _in_a_chain(model).invoke(history, config),
    "streamed chain": lambda model, history, config: add_up(_in_a_chain(model).stream(history, config)),
    "node": lambda model, history, config: _in_a_node(model).invoke(history, config),
    "parallel": lambda model, history, config: RunnableParallel(answer=model).invoke(history, config)["answer"],
    "with_config": lambda model, history, config: model.with_config(config).invoke(history),
    "bind": lambda model, history, config: model.bind(session_id="ada").invoke(history),
    "call": lambda model, history, config: model.invoke(history, session_id="ada"),
    "bind_tools": lambda model, history, config: model.bind_tools([]).invoke(history, config),
    "bound events": lambda model, history, config: (
        model.bind(session_id="ada").stream_events(history, version="v3").output
    ),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_next_turn_evaluates_only_what_is_new(chat: ChatCyllama, way: str) -> None:
    history = [ADA, chat.invoke([ADA], of("ada")), NAME]
    evaluated = chat.client.stats.prompt_tokens_evaluated
    answer = WAYS[way](chat, history, of("ada"))
    assert answer.text == "Your name is Ada."
    assert cached(answer) == 24
    assert chat.client.stats.prompt_tokens_evaluated - evaluated == n_input(answer) - 24 == 15


def test_an_async_node_that_passes_no_config_has_a_session(chat: ChatCyllama) -> None:
    async def main() -> AIMessage:
        node = _in_an_async_node(chat)
        answer = await node.ainvoke([ADA], of("ada"))
        return await node.ainvoke([ADA, answer, NAME], of("ada"))

    assert cached(asyncio.run(main())) == 24


def test_all_calls_of_an_object_may_belong_to_one_conversation(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, session_id="ada")
    assert cached(chat.invoke([ADA, chat.invoke([ADA], of("ignored")), NAME])) == 24
    assert llm.sessions == ["ada"]


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")
def test_a_history_that_langchain_keeps_has_a_session(chat: ChatCyllama) -> None:
    store: dict[str, InMemoryChatMessageHistory] = {}
    with_history = RunnableWithMessageHistory(
        chat, lambda session_id: store.setdefault(session_id, InMemoryChatMessageHistory())
    )
    for name in ("Ada", "Ben"):
        with_history.invoke([HumanMessage(f"My name is {name}.")], of(name))
    for name in ("Ada", "Ben"):
        answer = with_history.invoke([NAME], of(name))
        assert answer.text == f"Your name is {name}."
        assert cached(answer) >= 22
    assert chat.client.sessions == ["Ada", "Ben"]


def test_a_call_without_a_session_starts_clean_and_leaves_nothing(chat: ChatCyllama) -> None:
    history = [ADA, chat.invoke([ADA]), NAME]
    assert cached(chat.invoke(history)) == 0
    assert cached(add_up(chat.stream(history))) == 0
    assert chat.client.sessions == []
    settled(chat.client)
    assert chat.client.stats.kv_cells_used == 0


# -------------------- what changes a history


def test_an_edit_goes_on_from_what_is_still_true(chat: ChatCyllama) -> None:
    first = chat.invoke([ADA], of("ada"))
    chat.invoke([ADA, first, HumanMessage("What is the capital of France?")], of("ada"))
    edited = chat.invoke([ADA, first, NAME], of("ada"))
    assert edited.text == "Your name is Ada."
    assert 24 < cached(edited) < n_input(edited) - 1  # as far as "What is"
    assert chat.client.sessions == ["ada"]


def test_a_conversation_that_was_rewritten_answers_from_what_it_says_now(chat: ChatCyllama) -> None:
    first = chat.invoke([ADA], of("ada"))
    chat.invoke([ADA, first, NAME], of("ada"))
    now = [HumanMessage("My name is Zoe."), AIMessage("Nice to meet you, Zoe."), NAME]
    assert chat.invoke(now, of("ada")).text == "Your name is Zoe."
    assert chat.invoke([ADA, first, NAME], of("ada")).text == "Your name is Ada."


def test_agents_that_share_a_thread_do_not_evict_each_other(chat: ChatCyllama) -> None:
    prompts = ["You are a pirate.", "You are a robot. Be brief.", "Answer in capital letters."]
    histories: list[list[BaseMessage]] = [[SystemMessage(prompt), ADA] for prompt in prompts]
    for turn in range(3):
        for history in histories:
            answer = chat.invoke(history, of("team"))
            if turn:
                assert n_input(answer) - cached(answer) <= 20
                assert cached(answer) > 20
            history += [answer, NAME]
    assert len(chat.client.sessions) == len(prompts)


def test_a_prompt_that_changes_at_every_step_leaves_a_few_histories_only(chat: ChatCyllama) -> None:
    for hour in range(MAX_HISTORIES + 6):
        chat.invoke([SystemMessage(f"It is {hour} o'clock."), ADA], of("ada"))
    assert len(chat.client.sessions) == MAX_HISTORIES


def test_calls_of_one_conversation_run_side_by_side(chat: ChatCyllama) -> None:
    questions: list[Any] = [[ADA, HumanMessage(f"Count from {i} to {i + 20}.")] for i in range(1, 4)]
    before = chat.client.stats
    answers = together(chat.client, 3, lambda: chat.batch(questions, of("ada")))
    after = chat.client.stats
    tokens = sum(answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata)
    assert after.steps - before.steps < tokens * 0.6
    assert [answer.text for answer in answers] == [chat.invoke(question).text for question in questions]


def test_what_calls_of_one_conversation_have_in_common_is_evaluated_once(chat: ChatCyllama) -> None:
    start: list[BaseMessage] = [ADA, AIMessage("Nice to meet you, Ada."), HumanMessage("Count from 1 to 20.")]
    start.append(chat.invoke(start, of("ada")))
    answers = chat.batch([[*start, NAME], [*start, HumanMessage("What is the capital of France?")]], of("ada"))
    assert [answer.text for answer in answers] == ["Your name is Ada.", "The capital of France is Paris."]
    assert all(n_input(answer) - cached(answer) < 25 for answer in answers)


# -------------------- ending conversations


def test_a_conversation_that_has_ended_is_forgotten_with_all_its_agents(chat: ChatCyllama) -> None:
    for prompt in ("You are a pirate.", "You are a robot."):
        chat.invoke([SystemMessage(prompt), ADA], of("team"))
    chat.invoke([ADA], of("ada"))
    assert len(chat.client.sessions) == 3
    chat.reset_session("team")
    assert chat.client.sessions == ["ada"]
    chat.reset_session("unknown")
    chat.reset_sessions()
    assert chat.client.sessions == []
    assert cached(chat.invoke([ADA], of("ada"))) == 0


def test_sessions_that_are_not_langchains_stay(chat: ChatCyllama) -> None:
    own = chat.client.session("own")
    own("Once upon a time", max_tokens=4)
    chat.invoke([ADA], of("ada"))
    chat.reset_sessions()
    assert chat.client.sessions == ["own"]


@pytest.mark.usefixtures("lockstep")
def test_a_conversation_is_reset_while_it_generates(chat: ChatCyllama) -> None:
    stream = chat.stream([HumanMessage("Count from 1 to 100.")], of("ada"), max_tokens=400)
    first = next(stream)
    chat.reset_session("ada")
    total = add_up(iter([first, *stream]))
    assert total.response_metadata["finish_reason"] == "cancelled"
    assert chat.client.sessions == []


def test_a_conversation_is_the_same_for_all_objects_that_share_a_model(llm: LLM) -> None:
    one, other = ChatCyllama(llm=llm), ChatCyllama(llm=llm, max_tokens=50)
    answer = one.invoke([ADA], of("ada"))
    assert cached(other.invoke([ADA, answer, NAME], of("ada"))) == 24
    other.reset_sessions()
    assert llm.sessions == []


def test_what_the_model_has_forgotten_is_forgotten_here_too() -> None:
    with ChatCyllama(temperature=0, max_tokens=2, max_sessions=4) as chat:
        for i in range(40):
            chat.invoke("Hello", of(f"visitor {i}"))
        assert len(chat.client.sessions) == 4
        answers = chat.batch(["Hello"] * 10, [of(f"visitor {i}") for i in range(10)])
        assert len(answers) == 10


# -------------------- one conversation at a time


@pytest.fixture
def exclusive(llm: LLM) -> ChatCyllama:
    return ChatCyllama(llm=llm, sessions="exclusive", max_tokens=100)


def test_an_exclusive_conversation_drops_the_context_when_another_one_begins(exclusive: ChatCyllama) -> None:
    llm = exclusive.client
    answer = exclusive.invoke([ADA], of("ada"))
    contexts = llm.stats.contexts_created
    assert cached(exclusive.invoke([ADA, answer, NAME], of("ada"))) == 24
    exclusive.invoke([HumanMessage("My name is Ben.")], of("ben"))
    assert llm.stats.contexts_created == contexts + 1
    assert llm.sessions == ["ben"]
    again = exclusive.invoke([ADA, answer, NAME], of("ada"))
    assert (again.text, cached(again), llm.sessions) == ("Your name is Ada.", 0, ["ada"])


def test_a_call_without_a_session_leaves_the_exclusive_one_alone(exclusive: ChatCyllama) -> None:
    answer = exclusive.invoke([ADA], of("ada"))
    exclusive.invoke("Hello")
    assert cached(exclusive.invoke([ADA, answer, NAME], of("ada"))) == 24


def test_exclusive_conversations_wait_for_each_other_and_are_never_cut_off(exclusive: ChatCyllama) -> None:
    ids = ["ada", "ben", "cleo", "dan"] * 3
    with ThreadPoolExecutor(len(ids)) as pool:
        answers = list(pool.map(lambda name: exclusive.invoke(f"Say the word {name} three times.", of(name)), ids))
    assert {answer.response_metadata["finish_reason"] for answer in answers} == {"stop"}
    assert len({name.partition("\x1f")[0] for name in exclusive.client.sessions}) == 1


def test_exclusive_conversations_wait_for_each_other_in_an_event_loop(exclusive: ChatCyllama) -> None:
    async def main() -> list[AIMessage]:
        ids = ["ada", "ben", None, "cleo"] * 3
        calls = [exclusive.ainvoke("Count from 1 to 10.", of(name) if name else None) for name in ids]
        return await asyncio.wait_for(asyncio.gather(*calls), 60)

    answers = asyncio.run(main())
    assert {answer.response_metadata["finish_reason"] for answer in answers} == {"stop"}


def test_a_stream_that_is_not_read_keeps_no_exclusive_conversation_waiting(exclusive: ChatCyllama) -> None:
    stream = exclusive.stream("Count from 1 to 20.", of("ada"))
    first = next(stream)
    assert exclusive.invoke([ADA], of("ben")).text == "Nice to meet you, Ada."
    total = add_up(iter([first, *stream]))
    assert total.text.endswith("18, 19, 20.")
    assert total.response_metadata["finish_reason"] == "stop"


def test_a_task_that_waits_for_its_conversation_can_be_cancelled(exclusive: ChatCyllama) -> None:
    async def main() -> str:
        stream: Any = exclusive.astream("Tell me a story about a fox.", of("ada"), max_tokens=400)
        await anext(stream)
        waiting = asyncio.create_task(exclusive.ainvoke([ADA], of("ben")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await stream.aclose()
        return (await exclusive.ainvoke([ADA], of("cleo"))).text

    assert asyncio.run(main()) == "Nice to meet you, Ada."


# -------------------- dropped streams and many threads


def test_a_stream_that_was_dropped_gives_its_session_back(chat: ChatCyllama) -> None:
    stream = chat.stream([HumanMessage("Count from 1 to 100.")], of("ada"), max_tokens=400)
    next(stream)
    del stream
    gc.collect()
    settled(chat.client)
    assert cached(chat.invoke([HumanMessage("Count from 1 to 100.")], of("ada"))) > 0
    assert chat.client.sessions == ["ada"]


def test_conversations_of_many_threads_stay_apart(chat: ChatCyllama) -> None:
    names = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana"]
    answers: dict[str, str] = {}

    def talk(name: str) -> None:
        history: list[BaseMessage] = [HumanMessage(f"My name is {name}.")]
        history += [chat.invoke(history, of(name)), HumanMessage("Tell me a story about a fox.")]
        history += [chat.invoke(history, of(name)), NAME]
        answers[name] = chat.invoke(history, of(name)).text

    threads = [threading.Thread(target=talk, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {name: f"Your name is {name}." for name in names}
