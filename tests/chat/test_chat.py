"""Chats with the embedded model: answers, tools, formats, streams and sessions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from cyllama import LLM, ChatResponse, ChatStream, ConfigError, ConfigTypeError, MessageError, OutputError, ToolError
from cyllama.chat import add_up
from cyllama.errors import GrammarError, SchemaError

from ..support.harness import ENDLESS

CAPITAL: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]


def tool(name: str, **types: str) -> dict[str, Any]:
    properties = {key: {"type": value} for key, value in types.items()}
    parameters = {"type": "object", "properties": properties, "required": list(types)}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": parameters}}


TOOLS = [tool("get_weather", city="string"), tool("add", a="integer", b="integer"), tool("get_time")]


def test_an_answer(llm: LLM):
    response = llm.chat(CAPITAL)
    assert isinstance(response, ChatResponse)
    assert response.text == str(response) == response.message.content == "The capital of France is Paris."
    assert (response.finish_reason, response.message.role, response.message.tool_calls) == ("stop", "assistant", [])
    assert response.usage.prompt_tokens == llm.count_tokens(llm.render(CAPITAL))
    assert response.parsed is None


def test_an_answer_in_pieces(llm: LLM):
    with llm.chat(CAPITAL, stream=True) as stream:
        deltas = list(stream)
    assert len(deltas) > 3
    assert add_up(deltas) == stream.response.message == llm.chat(CAPITAL).message


def test_a_tool_is_called_and_its_result_used(llm: LLM):
    response = llm.chat(WEATHER, tools=TOOLS)
    assert response.finish_reason == "tool_calls"
    [call] = response.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "sunny"}'}
    answer = llm.chat([*WEATHER, response.message, result], tools=TOOLS)
    assert answer.finish_reason == "stop"
    assert "21" in answer.text or "sunny" in answer.text


def test_a_tool_call_in_pieces(llm: LLM):
    with llm.chat(WEATHER, tools=TOOLS, stream=True) as stream:
        deltas = list(stream)
    message = stream.response.message
    assert add_up(deltas) == message
    assert stream.response.finish_reason == "tool_calls"
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert len(pieces) > 2
    assert {piece.index for piece in pieces} == {0}
    assert [piece.id for piece in pieces if piece.id] == [message.tool_calls[0].id]


@pytest.mark.parametrize("choice", ["required", "any"])
def test_a_tool_that_has_to_be_called(llm: LLM, choice: str):
    response = llm.chat(CAPITAL, tools=TOOLS, tool_choice=choice)
    assert response.finish_reason == "tool_calls"
    [call] = response.message.tool_calls
    assert call.function.name in {"get_weather", "add", "get_time"}
    json.loads(call.function.arguments)


@pytest.mark.parametrize("choice", ["add", {"type": "function", "function": {"name": "add"}}])
def test_a_tool_by_its_name(llm: LLM, choice: Any):
    [call] = llm.chat(CAPITAL, tools=TOOLS, tool_choice=choice).message.tool_calls
    assert call.function.name == "add"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"a", "b"}
    assert all(isinstance(value, int) for value in arguments.values())


def test_a_tool_without_arguments(llm: LLM):
    [call] = llm.chat(CAPITAL, tools=TOOLS, tool_choice="get_time").message.tool_calls
    assert json.loads(call.function.arguments) == {}


def test_no_tool_choice_changes_the_prompt(llm: LLM):
    counts = {
        llm.chat(CAPITAL, tools=TOOLS, tool_choice=choice, max_tokens=1).usage.prompt_tokens
        for choice in ("none", "auto", "required", "add")
    }
    assert len(counts) == 1


def test_a_tool_call_that_is_cut_is_partial(llm: LLM):
    response = llm.chat(WEATHER, tools=TOOLS, tool_choice="required", max_tokens=14)
    assert response.finish_reason == "length"


class City(BaseModel):
    name: str
    size: int


def test_a_pydantic_model(llm: LLM):
    for seed in range(10):
        response = llm.chat(CAPITAL, response_format=City, temperature=1.5, seed=seed, max_tokens=200)
        if response.finish_reason == "stop":
            assert isinstance(response.parsed, City)
            assert json.loads(response.text) == response.parsed.model_dump()
        else:
            assert response.finish_reason == "length"
            with pytest.raises(OutputError):
                response.parsed  # noqa: B018


def test_a_schema(llm: LLM):
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue", "grey"]}}, "required": ["sky"]}
    response = llm.chat(WEATHER, response_format=schema)
    assert response.finish_reason == "stop"
    assert response.parsed["sky"] in {"blue", "grey"}


def test_a_grammar(llm: LLM):
    assert llm.chat(CAPITAL, grammar='root ::= "yes" | "no"').text in {"yes", "no"}


def test_a_history_in_a_session_is_evaluated_once(llm: LLM):
    history: list[Any] = [{"role": "user", "content": "My name is Ada."}]
    first = llm.chat(history, session="ada")
    history += [first.message, {"role": "user", "content": "What is my name?"}]
    ada = llm.session("ada")
    held = ada.tokens
    second = ada.chat(history)
    assert isinstance(second, ChatResponse)
    assert second.text == "Your name is Ada."
    assert second.usage.cached_tokens >= held - 1


def test_chats_for_an_event_loop(llm: LLM):
    async def main() -> None:
        first, second = await asyncio.gather(llm.achat(CAPITAL), llm.session("eve").achat(WEATHER, tools=TOOLS))
        assert first.text == "The capital of France is Paris."
        assert second.finish_reason == "tool_calls"
        async with llm.astream_chat(CAPITAL) as stream:
            deltas = [delta async for delta in stream]
        assert add_up(deltas) == stream.response.message
        async with llm.astream_chat(CAPITAL, **ENDLESS) as stream:
            async for _ in stream:
                break
        assert stream.response.finish_reason == "cancelled"

    asyncio.run(main())


def test_a_chat_that_is_left_holds_what_there_was(llm: LLM):
    stream = llm.chat(CAPITAL, stream=True, **ENDLESS)
    assert isinstance(stream, ChatStream)
    with stream:
        first = next(stream)
    assert stream.response.finish_reason == "cancelled"
    assert stream.response.text.startswith(first.content)


@pytest.mark.parametrize(
    ("messages", "options", "error"),
    [
        ([], {}, MessageError),
        ([{"role": "wizard", "content": "Hi"}], {}, MessageError),
        (CAPITAL, {"tools": [{"type": "function"}]}, ToolError),
        (CAPITAL, {"tools": TOOLS, "tool_choice": "fly"}, ToolError),
        (CAPITAL, {"response_format": {"type": "object", "$ref": "#/nowhere"}}, SchemaError),
        (CAPITAL, {"grammar": "root ::= ("}, GrammarError),
        (CAPITAL, {"grammar": "root ::= [a]", "response_format": "json"}, ConfigError),
        (CAPITAL, {"temprature": 1}, ConfigTypeError),
    ],
)
def test_bad_input_leaves_the_model_usable(llm: LLM, messages: Any, options: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        llm.chat(messages, **options)
    assert llm.chat(CAPITAL, max_tokens=3).finish_reason == "length"
