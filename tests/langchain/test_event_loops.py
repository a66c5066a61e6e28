"""Event loops that end while streams are open: nothing goes on, and nothing is reported."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory

from cyllama import LLM
from langchain_cyllama import ChatCyllama, CyllamaLLM

from ..support.harness import ENDLESS, settled

# What holds messages for RunnableWithMessageHistory is deprecated in favour of LangGraph, and used all the same.
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")

STORY = {"question": "Tell me a story about a fox."}
SCHEMA = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}
text: Runnable[Any, Any] = RunnableLambda(lambda values: values["question"])
asked = ChatPromptTemplate.from_messages([("human", "{question}")])


def with_history(model: ChatCyllama) -> Runnable[Any, Any]:
    history = InMemoryChatMessageHistory()
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{question}")])
    return RunnableWithMessageHistory(
        prompt | model,
        lambda: history,
        input_messages_key="question",
        history_messages_key="history",
        history_factory_config=[],
    )


CHAINS: dict[str, Callable[[LLM], Runnable[Any, Any]]] = {
    "model": lambda llm: text | ChatCyllama(llm=llm, **ENDLESS),
    "parser": lambda llm: text | ChatCyllama(llm=llm, **ENDLESS) | StrOutputParser(),
    "prompt": lambda llm: (
        ChatPromptTemplate.from_messages([("human", "{question}")])
        | ChatCyllama(llm=llm, **ENDLESS)
        | StrOutputParser()
    ),
    "structured": lambda llm: text | ChatCyllama(llm=llm, **ENDLESS).with_structured_output(SCHEMA),
    "raw": lambda llm: text | ChatCyllama(llm=llm, **ENDLESS).with_structured_output(SCHEMA, include_raw=True),
    "parallel": lambda llm: RunnablePassthrough.assign(
        one=text | ChatCyllama(llm=llm, **ENDLESS), two=text | ChatCyllama(llm=llm, **ENDLESS) | StrOutputParser()
    ),
    "session": lambda llm: text | ChatCyllama(llm=llm, session_id="ada", **ENDLESS) | StrOutputParser(),
    "history": lambda llm: with_history(ChatCyllama(llm=llm, **ENDLESS)),
    "completion": lambda llm: text | CyllamaLLM(llm=llm, **ENDLESS),
    "completion and parser": lambda llm: text | CyllamaLLM(llm=llm, **ENDLESS) | StrOutputParser(),
    "completion in a session": lambda llm: text | CyllamaLLM(llm=llm, session_id="ada", **ENDLESS) | StrOutputParser(),
}


@contextmanager
def nothing_is_reported(llm: LLM) -> Iterator[list[Any]]:
    """See that no event loop reports an error, and that no generation goes on when its loop has ended."""
    reported: list[Any] = []
    yield reported
    gc.collect()
    settled(llm)
    before = llm.stats.tokens_generated
    settled(llm)
    assert llm.stats.tokens_generated == before
    assert llm.stats.running == 0
    assert reported == []


async def leave_open(stream: Any, reported: list[Any], kept: list[Any], n: int = 3) -> None:
    """Read a little of a stream, and return while it is open."""
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    kept.append(stream)
    for _ in range(n):
        await anext(stream)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_loop_that_ends_with_a_stream_open_is_clean(llm: LLM, chain: str, kept: bool) -> None:
    streams: list[Any] = []
    with nothing_is_reported(llm) as reported:
        runnable = CHAINS[chain](llm)

        async def main() -> None:
            await leave_open(runnable.astream(STORY), reported, streams if kept else [])

        asyncio.run(main())
    streams.clear()


@pytest.mark.parametrize("chain", CHAINS)
def test_a_loop_that_ends_with_events_open_is_clean(llm: LLM, chain: str) -> None:
    streams: list[Any] = []
    with nothing_is_reported(llm) as reported:
        runnable = CHAINS[chain](llm)

        async def main() -> None:
            await leave_open(runnable.astream_events(STORY, version="v2"), reported, streams, 12)

        asyncio.run(main())


@pytest.mark.parametrize("chain", CHAINS)
def test_a_loop_that_ends_with_several_streams_open_is_clean(llm: LLM, chain: str) -> None:
    streams: list[Any] = []
    with nothing_is_reported(llm) as reported:
        runnable = CHAINS[chain](llm)

        async def main() -> None:
            await asyncio.gather(*(leave_open(runnable.astream(STORY), reported, streams) for _ in range(4)))

        asyncio.run(main())
