"""Chats by OpenAI's own client: what an application that knows nothing of cyllama sees."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest

from ..support.server import ServerProcess

FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "description": "Get the time.", "parameters": {}}}
PARIS = "The capital of France is Paris."


def ask(client: openai.OpenAI, messages: Any = FRANCE, **options: Any) -> Any:
    return client.chat.completions.create(model="tiny-chat", messages=messages, temperature=0, **options)


def test_a_client_of_openai_gets_an_answer(client: openai.OpenAI):
    completion = ask(client)
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", PARIS, "stop")
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.model == "tiny-chat"


def test_a_stream_is_the_same_answer_in_pieces(client: openai.OpenAI):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == PARIS
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_has_its_usage_only_if_that_is_asked_for(client: openai.OpenAI):
    assert all(chunk.usage is None and chunk.choices for chunk in ask(client, stream=True))


def test_several_choices_come_from_one_prompt(client: openai.OpenAI):
    completion = ask(client, n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} == {PARIS}
    assert completion.usage.completion_tokens == 36
    texts = ["", "", ""]
    for chunk in ask(client, n=3, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [PARIS] * 3


def test_the_same_seed_gives_the_same_choices_and_another_one_others(client: openai.OpenAI):
    def texts(seed: int) -> list[str]:
        story: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
        completion = client.chat.completions.create(
            model="tiny-chat", messages=story, temperature=1.5, seed=seed, n=2, max_completion_tokens=20
        )
        return [choice.message.content or "" for choice in completion.choices]

    assert texts(7) == texts(7) != texts(8)
    assert len(set(texts(7))) == 2


def test_an_answer_ends_at_its_limit_or_before_a_stop_sequence(client: openai.OpenAI):
    limited = ask(client, max_completion_tokens=3)
    assert (limited.choices[0].finish_reason, limited.usage.completion_tokens) == ("length", 3)
    assert ask(client, max_tokens=3).usage.completion_tokens == 3
    stopped = ask(client, stop=[" of"])
    assert (stopped.choices[0].finish_reason, stopped.choices[0].message.content) == ("stop", "The capital")


def test_a_bias_forbids_a_token(client: openai.OpenAI, server: ServerProcess):
    first = ask(client, logprobs=True).choices[0].logprobs.content[0]
    [token] = server.http.post("/tokenize", json={"content": first.token, "add_special": False}).json()["tokens"]
    biased = ask(client, logit_bias={str(token): -100}).choices[0].message.content
    assert biased
    assert not biased.startswith(first.token)


def test_logprobs_are_those_of_the_tokens_of_the_answer(client: openai.OpenAI):
    content = ask(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert "".join(each.token for each in content) == PARIS
    assert all(each.logprob <= 0 and len(each.top_logprobs) == 2 for each in content)
    assert bytes(content[0].bytes).decode() == content[0].token
    streamed = [
        each.token
        for chunk in ask(client, logprobs=True, stream=True)
        if chunk.choices[0].logprobs
        for each in chunk.choices[0].logprobs.content
    ]
    assert "".join(streamed) == PARIS


# -------------------- tools


def calls_of(client: openai.OpenAI, **options: Any) -> list[tuple[str, Any]]:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    completion = ask(client, question, **{"tools": [WEATHER, CLOCK], **options})
    calls = completion.choices[0].message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_the_choice_of_tools_is_followed(client: openai.OpenAI):
    assert calls_of(client, tool_choice="required")
    assert calls_of(client, tool_choice="none") == []
    assert [name for name, _ in calls_of(client, tool_choice={"type": "function", "function": {"name": "clock"}})] == [
        "clock"
    ]
    [(name, arguments)] = calls_of(client, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert (name, list(arguments)) == ("weather", ["city"])


def test_a_call_is_streamed_and_its_result_answered(client: openai.OpenAI):
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    whole = ask(client, question, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    stream = ask(client, question, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, stream=True)
    chunks = [chunk for chunk in stream if chunk.choices]
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert (pieces[0].function.name, pieces[0].type) == ("weather", "function")
    assert pieces[0].id
    arguments = "".join(piece.function.arguments for piece in pieces)
    assert arguments == whole.choices[0].message.tool_calls[0].function.arguments
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "tool_calls"

    call = {"id": pieces[0].id, "type": "function", "function": {"name": "weather", "arguments": arguments}}
    history = [
        *question,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": pieces[0].id, "content": "18 degrees"},
    ]
    assert ask(client, history, tools=[WEATHER]).choices[0].message.content


def test_no_tools_beside_a_response_format_are_no_tools(client: openai.OpenAI):
    answer = ask(client, tools=[], tool_choice="auto", response_format={"type": "json_object"}, max_tokens=64)
    assert answer.choices[0].message.content.startswith("{")


# -------------------- formats


class Capital(pydantic.BaseModel):
    country: Literal["France", "Italy"]
    capital: Literal["Paris", "Rome"]


def test_a_pydantic_model_comes_back_parsed(client: openai.OpenAI):
    parse = client.chat.completions.parse
    completion = parse(model="tiny-chat", messages=FRANCE, response_format=Capital, temperature=0)
    assert isinstance(completion.choices[0].message.parsed, Capital)


@pytest.mark.parametrize("strict", [True, False])
def test_a_schema_is_followed(client: openai.OpenAI, strict: bool):
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    expected = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema, "strict": strict}}
    assert json.loads(ask(client, response_format=expected).choices[0].message.content)["n"] in (1, 2)


def test_parameters_of_llama_server_are_taken_by_their_names(client: openai.OpenAI, server: ServerProcess):
    body = {"messages": FRANCE, "grammar": 'root ::= "Paris" | "Rome"', "top_k": 1, "repeat_last_n": 8, "n_predict": 8}
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] in ("Paris", "Rome")
    assert ask(client, extra_body={"top_k": 1, "min_p": 0.1, "typ_p": 1.0, "dry_multiplier": 0.0, "cache_prompt": True})


def test_what_the_api_does_not_have_is_ignored(client: openai.OpenAI):
    body = {"a_field_of_tomorrow": {"x": 1}, "store": False, "metadata": {"a": "b"}, "user": "ada"}
    assert ask(client, extra_body=body).choices[0].message.content == PARIS
