"""Which tools a model may call, in OpenAI's newer way of saying it and in its oldest."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from ..support.server import ServerProcess

QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS: Any = [
    {"name": "weather", "description": "Get the weather in a city.", "parameters": CITY},
    {"name": "clock", "description": "Get the time.", "parameters": {"type": "object", "properties": {}}},
    {"name": "news", "description": "Get the news of a city.", "parameters": CITY},
]
TOOLS: Any = [{"type": "function", "function": function} for function in FUNCTIONS]


def ask(client: openai.OpenAI, messages: Any = QUESTION, **options: Any) -> Any:
    return client.chat.completions.create(model="tiny-chat", messages=messages, temperature=0, **options).choices[0]


def allowed(mode: str, *names: str) -> Any:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_only_the_tools_that_are_allowed_are_called(client: openai.OpenAI):
    for names in (("clock",), ("news", "clock")):
        for seed in range(4):
            options: Any = {"tools": TOOLS, "tool_choice": allowed("required", *names), "seed": seed}
            choice = client.chat.completions.create(
                model="tiny-chat", messages=QUESTION, temperature=1.5, max_tokens=100, **options
            ).choices[0]
            assert {call.function.name for call in choice.message.tool_calls or []} <= set(names)
            assert choice.message.tool_calls or choice.finish_reason == "length"
    assert ask(client, tools=TOOLS, tool_choice=allowed("auto", "clock"), max_tokens=100).message


def test_the_prompt_has_all_tools_whichever_are_allowed(client: openai.OpenAI):
    def n_prompt(**options: Any) -> int:
        completion: Any = client.chat.completions.create(
            model="tiny-chat", messages=QUESTION, tools=TOOLS, max_tokens=1, **options
        )
        return completion.usage.prompt_tokens

    assert n_prompt(tool_choice=allowed("auto", "clock")) == n_prompt(tool_choice="auto")


def test_the_responses_api_takes_allowed_tools_too(client: openai.OpenAI):
    tools: Any = [{"type": "function", **function} for function in FUNCTIONS]
    choice: Any = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]}
    response = client.responses.create(
        model="tiny-chat", input="What is the weather in Paris?", tools=tools, tool_choice=choice, temperature=0
    )
    assert {item.name for item in response.output if item.type == "function_call"} == {"clock"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "allowed_tools"},
        {"type": "allowed_tools", "allowed_tools": 5},
        allowed("sometimes", "clock"),
        allowed("auto"),
        allowed("required", "clock", "nope"),
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [5]}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": "clock"}},
    ],
)
def test_a_wrong_choice_is_refused(server: ServerProcess, wrong: Any):
    response = server.http.post(
        "/v1/chat/completions", json={"messages": QUESTION, "tools": TOOLS, "tool_choice": wrong}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


# -------------------- functions, which tools have replaced


def test_functions_are_called_as_before_there_were_tools(client: openai.OpenAI):
    choice = ask(client, functions=FUNCTIONS, function_call={"name": "weather"})
    call = choice.message.function_call
    assert (choice.finish_reason, call.name, list(json.loads(call.arguments))) == ("function_call", "weather", ["city"])
    assert choice.message.tool_calls is None
    assert choice.message.content is None

    chunks = [
        chunk.choices[0]
        for chunk in client.chat.completions.create(
            model="tiny-chat",
            messages=QUESTION,
            temperature=0,
            functions=FUNCTIONS,
            function_call={"name": "weather"},
            stream=True,
        )
    ]
    pieces = [chunk.delta.function_call for chunk in chunks if chunk.delta.function_call]
    assert pieces[0].name == "weather"
    assert "".join(piece.arguments or "" for piece in pieces) == call.arguments
    assert chunks[-1].finish_reason == "function_call"

    history = [
        *QUESTION,
        {"role": "assistant", "content": None, "function_call": {"name": call.name, "arguments": call.arguments}},
        {"role": "function", "name": "weather", "content": "18 degrees"},
    ]
    answer = ask(client, history, functions=FUNCTIONS, function_call="none", max_tokens=20)
    assert answer.message.content
    assert answer.message.function_call is None


def test_a_model_that_calls_no_function_answers(client: openai.OpenAI):
    france: Any = [{"role": "user", "content": "What is the capital of France?"}]
    for call in ("none", "auto"):
        choice = ask(client, france, functions=FUNCTIONS[:1], function_call=call, max_tokens=40)
        assert choice.finish_reason in ("stop", "length", "function_call")
        assert bool(choice.message.content) == (choice.message.function_call is None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"functions": FUNCTIONS, "tools": TOOLS},
        {"functions": [5]},
        {"functions": {}},
        {"functions": FUNCTIONS, "function_call": {"name": "nope"}},
        {"functions": FUNCTIONS, "function_call": 5},
        {"functions": FUNCTIONS, "function_call": {}},
        {"function_call": {"name": "weather"}},
        {"messages": [*QUESTION, {"role": "assistant", "function_call": 5}]},
        {"messages": [*QUESTION, {"role": "function", "content": "x"}]},
        {"messages": [*QUESTION, {"role": "function", "name": "f", "content": "x"}]},
    ],
)
def test_wrong_functions_are_refused(server: ServerProcess, wrong: Any):
    response = server.http.post("/v1/chat/completions", json={"messages": QUESTION} | wrong)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]
