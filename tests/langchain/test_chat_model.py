"""Chats through LangChain: answers, tools, structured output, streams, callbacks, caches, errors."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypedDict, cast

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    trim_messages,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from cyllama import LLM, ConfigTypeError, ContextSizeError, CyllamaError, MessageError, ModelNotFoundError, ToolError
from cyllama.errors import ConfigError
from langchain_cyllama import ChatCyllama

from ..support.families import QWEN
from ..support.harness import held, settled, together

CAPITAL = "What is the capital of France?"
PARIS = "The capital of France is Paris."
SUM = "What is the value of add(3, 4)? Use the tool."
JOKE = "Tell me a joke about cats."


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"It is sunny in {city}."


class Joke(BaseModel):
    """Joke to tell user."""

    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


class JokeDict(TypedDict):
    """Joke to tell user."""

    setup: Annotated[str, ..., "question to set up a joke"]
    punchline: Annotated[str, ..., "answer to resolve the joke"]


def add_up(chunks: Iterator[Any]) -> AIMessageChunk:
    total, *others = chunks
    for chunk in others:
        total += chunk
    return total


async def collect(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


class Seen(BaseCallbackHandler):
    """What callbacks are told."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.started: list[dict[str, Any]] = []
        self.ended: list[Any] = []
        self.errors: list[BaseException] = []

    def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, **kwargs: Any) -> None:
        self.started.append({"serialized": serialized, **kwargs})

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended.append(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


# -------------------- answers


def test_without_any_argument_the_embedded_model_answers() -> None:
    with ChatCyllama() as chat:
        assert chat.invoke("Hello").text


def test_an_answer_is_what_the_model_itself_would_answer(chat: ChatCyllama) -> None:
    history = [SystemMessage("Be brief."), HumanMessage("My name is Ada."), AIMessage("Hello Ada."), ("human", CAPITAL)]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": CAPITAL},
    ]
    assert chat.invoke(history).text == chat.client.chat(messages, max_tokens=100).text


def test_a_stream_adds_up_to_the_answer(chat: ChatCyllama) -> None:
    chunks = list(chat.stream(CAPITAL))
    assert len(chunks) > 5
    total, whole = add_up(iter(chunks)), chat.invoke(CAPITAL)
    assert total.text == whole.text == PARIS
    assert total.usage_metadata == whole.usage_metadata
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"] == "stop"
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_an_event_loop_gets_the_same(chat: ChatCyllama) -> None:
    async def main() -> tuple[AIMessage, AIMessageChunk]:
        chunks = [chunk async for chunk in chat.astream(CAPITAL)]
        return await chat.ainvoke(CAPITAL), add_up(iter(chunks))

    answer, total = asyncio.run(main())
    assert answer.text == total.text == PARIS
    assert answer.usage_metadata == total.usage_metadata


def test_an_answer_says_why_it_ended(chat: ChatCyllama) -> None:
    def reason(**options: Any) -> tuple[str, str]:
        answer = chat.bind(**options).invoke("Count from 1 to 5.")
        return answer.text, answer.response_metadata["finish_reason"]

    assert reason() == ("1, 2, 3, 4, 5.", "stop")
    assert reason(max_tokens=4)[1] == "length"
    assert reason(stop=[", 4"]) == ("1, 2, 3", "stop")
    called = chat.bind_tools([add], tool_choice="any").invoke(SUM)
    assert called.response_metadata["finish_reason"] == "tool_calls"


def test_stop_words_of_a_call_come_before_those_of_the_object(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, stop=[", 4"])
    assert chat.invoke("Count from 1 to 5.").text == "1, 2, 3"
    assert chat.invoke("Count from 1 to 5.", stop=[", 3"]).text == "1, 2"
    assert chat.bind(stop=[", 2"]).invoke("Count from 1 to 5.").text == "1"


def test_bind_takes_every_option_by_every_name(chat: ChatCyllama) -> None:
    for options in ({"max_tokens": 3}, {"num_predict": 3}, {"options": {"num_predict": 3}}):
        answer = chat.bind(**options).invoke(CAPITAL)
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == 3
    hot = chat.bind(temperature=2.0, seed=7, top_k=0, min_p=0.0, top_p=1.0)
    assert hot.invoke(CAPITAL).text == hot.invoke(CAPITAL).text != PARIS


def test_an_option_that_does_not_exist_is_an_error(chat: ChatCyllama) -> None:
    with pytest.raises(ConfigTypeError, match="no option 'temprature': did you mean 'temperature'"):
        chat.bind(temprature=1).invoke("Hello")


def test_options_can_be_configured_at_run_time(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, max_tokens=100).configurable_fields(max_tokens=ConfigurableField(id="length"))
    answer: Any = chat.invoke(CAPITAL, {"configurable": {"length": 2}})
    assert answer.usage_metadata["output_tokens"] == 2


def test_a_grammar_is_kept_to(chat: ChatCyllama) -> None:
    assert chat.bind(grammar='root ::= "yes" | "no"').invoke("Is it late?").text in ("yes", "no")


def test_log_probabilities_are_reported_as_openai_does(chat: ChatCyllama) -> None:
    bound = chat.bind(logprobs=True, top_logprobs=2)
    answer, total = bound.invoke(CAPITAL), add_up(bound.stream(CAPITAL))
    content = answer.response_metadata["logprobs"]["content"]
    assert total.response_metadata["logprobs"]["content"] == content
    assert b"".join(bytes(each["bytes"]) for each in content).decode().startswith(PARIS)
    for each in content:
        assert each["logprob"] <= 0
        assert each["top_logprobs"][0]["token"] == each["token"]  # at temperature 0
        assert len(each["top_logprobs"]) == 2
    assert "logprobs" not in chat.invoke(CAPITAL).response_metadata


# -------------------- reasoning

# A template of models that think first, and all the time: the embedded one never says that it has thought enough.
THINKING = QWEN.template.replace(
    "</think>\\n\\n' }}\n    {%- endif %}", "</think>\\n\\n' }}\n    {%- else %}{{ '<think>\\n' }}{%- endif %}"
)


def test_what_the_model_thinks_is_apart_from_what_it_says(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, chat_template=THINKING, max_tokens=40)
    for answer in (chat.invoke(CAPITAL), add_up(chat.stream(CAPITAL))):
        assert (answer.text, answer.additional_kwargs) == ("", {"reasoning_content": PARIS})
        assert [block["type"] for block in answer.content_blocks] == ["reasoning"]
    blocks = add_up(ChatCyllama(llm=llm, chat_template=THINKING, max_tokens=40, output_version="v1").stream(CAPITAL))
    assert [(block["type"], block["reasoning"]) for block in cast("list[Any]", blocks.content)] == [
        ("reasoning", PARIS)
    ]


@pytest.mark.parametrize("option", ["reasoning", "enable_thinking"])
def test_the_model_may_be_told_not_to_think(llm: LLM, option: str) -> None:
    arguments: dict[str, Any] = {"llm": llm, "chat_template": THINKING, "max_tokens": 40}
    bound = ChatCyllama(**arguments).bind(**dict.fromkeys([option], False))
    arguments[option] = False
    for thoughtless in (bound, ChatCyllama(**arguments)):
        answer = thoughtless.invoke(CAPITAL)
        assert answer.text
        assert answer.additional_kwargs == {}


TOLD = "{{ enable_thinking | tojson }} {{ reasoning_effort | default('-') }} {{ style | default('-') }} {{ a }}:"


@pytest.mark.parametrize(
    ("own", "call", "told"),
    [
        ({}, {}, "true - - :"),
        ({"reasoning_effort": "low"}, {}, "true low - :"),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "high"}, "true high - :"),
        ({"reasoning_effort": "none"}, {"enable_thinking": True}, "true - - :"),
        ({"enable_thinking": True}, {"reasoning": "none"}, "false - - :"),
        ({"chat_template_kwargs": {"style": "kind", "a": 1}}, {}, "true - kind 1:"),
        ({"chat_template_kwargs": {"style": "kind", "a": 1}}, {"chat_template_kwargs": {"a": 2}}, "true - kind 2:"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": True}, "true - - :"),
        ({"chat_template_kwargs": {"reasoning_effort": "max"}}, {"reasoning_effort": "low"}, "true low - :"),
        ({"model_kwargs": {"reasoning_effort": "low"}}, {"options": {"reasoning_effort": "high"}}, "true high - :"),
    ],
)
def test_the_template_is_told_by_the_object_and_by_the_call(
    llm: LLM, own: dict[str, Any], call: dict[str, Any], told: str
) -> None:
    chat = ChatCyllama(llm=llm, chat_template=TOLD, max_tokens=2, **own)
    expected = llm.count_tokens(told)
    for answer in (chat.invoke("Hi", **call), chat.bind(**call).invoke("Hi"), asyncio.run(chat.ainvoke("Hi", **call))):
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_tokens"] == expected


@pytest.mark.parametrize("argument", ["chat_template_kwarg", "reasoning_efort"])
def test_an_unknown_name_is_refused_wherever_it_is_given(llm: LLM, argument: str) -> None:
    with pytest.raises(ConfigTypeError, match=f"{argument}.*did you mean"):
        ChatCyllama(llm=llm, **cast("dict[str, Any]", {argument: "low"}))
    with pytest.raises(ConfigTypeError, match=f"{argument}.*did you mean"):
        ChatCyllama(llm=llm).bind(**{argument: "low"}).invoke("Hi")


# -------------------- tools


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
def test_a_choice_of_tools_is_kept_to(chat: ChatCyllama, choice: Any, called: bool) -> None:
    answer = chat.bind_tools([add, get_weather], tool_choice=choice).invoke("Hello!")
    assert bool(answer.tool_calls) == called
    if choice not in ("any", "required", True, "none"):
        assert [call["name"] for call in answer.tool_calls] == ["add"]


@pytest.mark.parametrize("choice", [None, "auto", False])
def test_the_model_may_choose(chat: ChatCyllama, choice: Any) -> None:
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


def test_a_call_comes_in_pieces(chat: ChatCyllama) -> None:
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


# -------------------- structured output


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("schema", [Joke, JokeDict, Joke.model_json_schema()], ids=["pydantic", "TypedDict", "schema"])
def test_an_answer_has_the_form_of_its_schema(chat: ChatCyllama, method: Any, schema: Any) -> None:
    question = JOKE
    if method == "json_mode":
        question += " Return the result as a JSON with 'setup' and 'punchline' keys. Return nothing other than JSON."
    structured = chat.with_structured_output(schema, method=method)
    *_, last = structured.stream(question)
    for joke in (structured.invoke(question), asyncio.run(structured.ainvoke(question)), last):
        fields = joke.model_dump() if isinstance(joke, BaseModel) else joke
        assert fields.keys() == {"setup", "punchline"}
        assert isinstance(joke, Joke) == (schema is Joke)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_the_raw_answer_can_be_had_beside_the_parsed_one(chat: ChatCyllama, method: Any) -> None:
    structured = chat.with_structured_output(Joke, method=method, include_raw=True)
    answer: Any = structured.invoke(JOKE)
    assert isinstance(answer["raw"], AIMessage)
    assert isinstance(answer["parsed"], Joke)
    assert answer["parsing_error"] is None
    cut: Any = chat.with_structured_output(Joke, method=method, include_raw=True, max_tokens=12).invoke(JOKE)
    assert cut["parsed"] is None
    assert cut["raw"].response_metadata["finish_reason"] == "length"


def test_an_answer_that_was_cut_is_no_instance(chat: ChatCyllama) -> None:
    with pytest.raises(OutputParserException):
        chat.with_structured_output(Joke, max_tokens=5).invoke(JOKE)


def test_a_schema_of_an_openai_format_is_a_schema(chat: ChatCyllama) -> None:
    inner = {"name": "joke", "schema": Joke.model_json_schema(), "strict": True}
    for schema in (inner, {"type": "json_schema", "json_schema": inner}):
        answer: Any = chat.with_structured_output(schema).invoke(JOKE)
        assert answer.keys() == {"setup", "punchline"}
    bound = chat.bind(response_format={"type": "json_schema", "json_schema": inner}, strict=True)
    assert json.loads(bound.invoke(JOKE).text).keys() == {"setup", "punchline"}


def test_json_can_be_asked_of_all_calls(llm: LLM) -> None:
    for chat in (ChatCyllama(llm=llm, format="json"), ChatCyllama(llm=llm, format=Joke.model_json_schema())):
        assert isinstance(json.loads(chat.invoke(JOKE).text), dict)


def test_a_method_that_does_not_exist_is_an_error(chat: ChatCyllama) -> None:
    with pytest.raises(ConfigError, match="'xml'"):
        chat.with_structured_output(Joke, method="xml")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="needs a schema"):
        chat.with_structured_output()


# -------------------- many at once


def test_a_batch_is_one_batch_in_the_engine() -> None:
    with ChatCyllama(temperature=0, max_tokens=60) as chat:
        questions: list[Any] = [
            f"Tell me a story about {animal}." for animal in ("a fox", "an owl", "a bear", "a cat")
        ] * 2
        alone = [chat.invoke(question).text for question in questions]
        before = chat.client.stats
        answers = together(chat.client, 8, lambda: chat.batch(questions))
        after = chat.client.stats
        tokens = after.tokens_generated - before.tokens_generated
        assert [len(answer.text) > 50 for answer in answers] == [True] * 8
        assert tokens / (after.steps - before.steps) > 6
        assert sum(answer.text == text for answer, text in zip(answers, alone, strict=True)) >= 6  # rounding


def test_tasks_are_decoded_together_and_no_thread_waits_for_them() -> None:
    async def main(chat: ChatCyllama) -> int:
        with held(chat.client):
            calls = asyncio.gather(*(chat.ainvoke(f"Tell me a story about {i} owls.") for i in range(16)))
            while chat.client.stats.waiting < 16:
                await asyncio.sleep(0.001)
        most = 0
        while not calls.done():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.001)
        await calls
        return most

    with ChatCyllama(temperature=0, max_tokens=40) as chat:
        chat.invoke("Hello")
        n_threads, before = threading.active_count(), chat.client.stats
        assert asyncio.run(main(chat)) == n_threads
        after = chat.client.stats
        assert (after.tokens_generated - before.tokens_generated) / (after.steps - before.steps) > 6


def test_one_that_fails_takes_no_other_with_it(chat: ChatCyllama) -> None:
    answers = chat.batch([CAPITAL, [RemoveMessage(id="seven")], CAPITAL], return_exceptions=True)
    assert [type(answer) for answer in answers] == [AIMessage, MessageError, AIMessage]


# -------------------- ending early

ENDLESS: dict[str, Any] = {"max_tokens": None, "ignore_eos": True, "n_ctx": 2048}
STORY = "Tell me a story about a fox."


@contextmanager
def ends_early(llm: LLM) -> Iterator[None]:
    """See that what is begun within ends long before it would by itself."""
    before = llm.stats.tokens_generated
    yield
    settled(llm)
    assert llm.stats.tokens_generated - before < 1000


def test_a_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    with ends_early(chat.client):
        stream = cast("Generator[Any]", chat.bind(**ENDLESS).stream(STORY))
        next(stream)
        stream.close()


def test_a_stream_that_is_dropped_stops_the_generation(chat: ChatCyllama) -> None:
    chain = RunnableLambda(lambda text: text) | chat.bind(**ENDLESS)
    with ends_early(chat.client):
        for _ in chain.stream(STORY):
            break
        gc.collect()


def test_a_task_that_is_cancelled_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        task = asyncio.create_task(chat.bind(**ENDLESS).ainvoke(STORY))
        while not chat.client.stats.running:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ends_early(chat.client):
        asyncio.run(main())


def test_an_async_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        stream = cast("AsyncGenerator[Any]", chat.bind(**ENDLESS).astream(STORY))
        await anext(stream)
        await stream.aclose()

    with ends_early(chat.client):
        asyncio.run(main())


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_an_event_stream_that_is_closed_stops_the_generation(chat: ChatCyllama) -> None:
    async def main() -> None:
        stream = await chat.astream_events(STORY, version="v3", **ENDLESS)
        async for _ in stream:
            break
        await stream.aclose()

    with ends_early(chat.client):
        asyncio.run(main())


# -------------------- callbacks, caches, traces


def test_callbacks_are_told_of_every_token(chat: ChatCyllama) -> None:
    seen = Seen()
    chunks = list(chat.stream(CAPITAL, {"callbacks": [seen]}))
    assert seen.tokens == [chunk.content for chunk in chunks]
    assert seen.ended[0].generations[0][0].text == PARIS


def test_an_object_that_streams_tells_callbacks_of_every_token_of_invoke(llm: LLM) -> None:
    seen = Seen()
    answer = ChatCyllama(llm=llm, streaming=True).invoke(CAPITAL, {"callbacks": [seen]})
    assert "".join(seen.tokens) == answer.text == PARIS
    assert len(seen.tokens) > 5


def test_callbacks_are_told_of_errors(chat: ChatCyllama) -> None:
    seen = Seen()
    with pytest.raises(CyllamaError):
        chat.bind(temperature=-1).invoke("Hello", {"callbacks": [seen]})
    assert isinstance(seen.errors[0], ConfigError)


def test_usage_is_added_up(chat: ChatCyllama) -> None:
    usage = UsageMetadataCallbackHandler()
    answers = [chat.invoke("Hello", {"callbacks": [usage]}), add_up(chat.stream("Hello", {"callbacks": [usage]}))]
    total = sum(answer.usage_metadata["total_tokens"] for answer in answers if answer.usage_metadata)
    assert usage.usage_metadata["tiny-chat"]["total_tokens"] == total
    result = chat.generate([[HumanMessage("Hello")], [HumanMessage("Hello")]])
    assert (result.llm_output or {})["token_usage"]["total_tokens"] == total


def test_traces_are_told_of_model_and_options_and_of_no_session(chat: ChatCyllama) -> None:
    seen = Seen()
    config: Any = {"callbacks": [seen], "configurable": {"thread_id": "ada"}}
    chat.bind(temperature=0.5).invoke("Hello", config, stop=["x"], session_id="ada")
    (start,) = seen.started
    assert start["metadata"]["ls_provider"] == "cyllama"
    assert start["metadata"]["ls_model_name"] == "tiny-chat"
    assert (start["metadata"]["ls_temperature"], start["metadata"]["ls_stop"]) == (0.5, ["x"])
    parameters = start["invocation_params"]
    assert parameters["_type"] == "chat-cyllama"
    assert (parameters["temperature"], parameters["stop"]) == (0.5, ["x"])
    assert not any("session" in name or "cyllama_" in name for name in parameters)


def test_an_answer_is_cached_for_all_sessions(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, cache=InMemoryCache())
    answer = chat.invoke(CAPITAL, {"configurable": {"session_id": "ada"}})
    generated = llm.stats.tokens_generated
    assert chat.invoke(CAPITAL, {"configurable": {"session_id": "ben"}}).text == answer.text
    assert chat.invoke(CAPITAL).text == answer.text
    assert llm.stats.tokens_generated == generated
    assert chat.bind(max_tokens=2).invoke(CAPITAL).text != answer.text
    assert chat.bind_tools([add], tool_choice="any").invoke(CAPITAL).tool_calls
    assert ChatCyllama(llm=llm, cache=chat.cache, max_tokens=2).invoke(CAPITAL).text != answer.text


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_what_was_saved_is_loaded() -> None:
    saved = dumps(ChatCyllama(temperature=0, max_tokens=12, stop=["x"], session_id="ada"))
    more: list[dict[str, Any]] = [
        {"allowed_objects": "all"},
        {"allowed_objects": [ChatCyllama]},
        {"allowed_objects": "all", "valid_namespaces": ["langchain_cyllama"]},
    ]
    for arguments in more:
        loaded = loads(saved, **arguments)
        assert isinstance(loaded, ChatCyllama)
        assert (loaded.temperature, loaded.max_tokens, loaded.stop, loaded.session_id) == (0, 12, ["x"], "ada")
        assert loaded.invoke(CAPITAL).text


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_a_chain_that_was_saved_is_loaded() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    for model in (ChatCyllama(temperature=0), ChatCyllama(temperature=0).bind_tools([add]).bind(stop=["!"])):
        chain = prompt | model | StrOutputParser()
        loaded = loads(dumps(chain), allowed_objects="all")
        assert loaded.invoke({"question": CAPITAL}) == chain.invoke({"question": CAPITAL})


def test_a_structured_chain_can_be_pickled() -> None:
    with ChatCyllama(temperature=0) as chat:
        for schema in (Joke, Joke.model_json_schema()):
            for method in ("json_schema", "function_calling"):
                chain = chat.with_structured_output(schema, method=method)
                answer = chain.invoke(JOKE)
                again: Any = pickle.loads(pickle.dumps(chain))
                assert isinstance(again.invoke(JOKE), Joke) == (schema is Joke)
                assert copy.deepcopy(chain).invoke(JOKE) == answer


def test_a_structured_chain_that_keeps_the_raw_answer_can_be_pickled() -> None:
    with ChatCyllama(temperature=0) as chat:
        for schema in (Joke, Joke.model_json_schema()):
            chain = chat.with_structured_output(schema, include_raw=True)
            again: Any = pickle.loads(pickle.dumps(chain))
            assert again.invoke(JOKE)["parsed"] == chain.invoke(JOKE)["parsed"]
            chain = chat.with_structured_output(schema, include_raw=True, max_tokens=4)
            again = pickle.loads(pickle.dumps(chain))
            assert isinstance(again.invoke(JOKE)["parsing_error"], OutputParserException)


def test_tokens_are_counted_as_the_model_reads_them(chat: ChatCyllama) -> None:
    history = [SystemMessage("Be brief."), HumanMessage(CAPITAL)]
    answer = chat.invoke(history)
    assert answer.usage_metadata is not None
    assert chat.get_num_tokens_from_messages(history) == answer.usage_metadata["input_tokens"]
    called = chat.bind_tools([add]).invoke(history)
    assert called.usage_metadata is not None
    assert chat.get_num_tokens_from_messages(history, tools=[add]) == called.usage_metadata["input_tokens"]
    assert chat.get_num_tokens("one two three") == len(chat.client.tokenize("one two three"))
    assert chat.get_num_tokens_from_messages([]) == 0


def test_what_is_no_chat_by_itself_is_counted_too(chat: ChatCyllama) -> None:
    assert chat.get_num_tokens_from_messages([ToolMessage("3", tool_call_id="one")]) > 1
    history = [HumanMessage("one " * 200), AIMessage("two"), HumanMessage("three")]
    trimmed = trim_messages(history, max_tokens=60, token_counter=chat, strategy="last", start_on="human")
    assert [message.content for message in trimmed] == ["three"]


def test_what_the_model_can_do_is_known(llm: LLM) -> None:
    profile = ChatCyllama(llm=llm).profile or {}
    assert (profile.get("max_input_tokens"), profile.get("tool_calling")) == (2048, True)
    assert (ChatCyllama(llm=llm, n_ctx=512).profile or {}).get("max_input_tokens") == 512


# -------------------- errors


def test_a_file_that_does_not_exist_is_named_at_once(tmp_path: Any) -> None:
    with pytest.raises(ModelNotFoundError, match=r"missing\.gguf"):
        ChatCyllama(model_path=tmp_path / "missing.gguf")


def test_a_conversation_that_is_too_long_is_measured(llm: LLM) -> None:
    from langchain_core.exceptions import ContextOverflowError

    chat = ChatCyllama(llm=llm, n_ctx=256)
    history = [HumanMessage("Hello"), AIMessage("Hello!")] * 100
    configs: list[Any] = [None, {"configurable": {"session_id": "ada"}}]
    for config in configs:
        with pytest.raises(ContextSizeError, match=r"conversation of 200 messages .* \d{4} tokens .* 256") as caught:
            chat.invoke(history, config)
        assert isinstance(caught.value, ContextOverflowError)
        with pytest.raises(ContextSizeError, match="conversation of 200 messages"):
            asyncio.run(chat.ainvoke(history, config))
    assert chat.invoke("Hello").text


def test_another_model_can_answer_one_call(llm: LLM, tmp_path: Any) -> None:
    missing = str(tmp_path / "missing.gguf")
    with ChatCyllama(temperature=0) as chat:
        with pytest.raises(ModelNotFoundError, match=r"missing\.gguf"):
            chat.invoke("Hello", model=missing)
        assert chat.invoke(CAPITAL, model=chat.client.model_path).text == PARIS
    with pytest.raises(ConfigError, match="was given an llm"):
        ChatCyllama(llm=llm).invoke("Hello", model=missing)


def test_it_is_a_chat_model_of_langchain(chat: ChatCyllama) -> None:
    assert isinstance(chat, BaseChatModel)
    assert chat._llm_type == "chat-cyllama"
