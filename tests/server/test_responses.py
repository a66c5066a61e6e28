"""OpenAI's Responses API by its own client: turns that go on from each other."""

from __future__ import annotations

import json
from typing import Any, Literal

import openai
import pydantic
import pytest

from ..support.server import ServerProcess

QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Get the weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def respond(client: openai.OpenAI, text: Any = QUESTION, **options: Any) -> Any:
    return client.responses.create(model="tiny-chat", input=text, **{"temperature": 0, **options})


def test_an_input_gets_a_response(client: openai.OpenAI):
    response = respond(client, instructions="You are a helpful assistant.")
    assert (response.status, response.output_text, response.error) == ("completed", PARIS, None)
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    cut = respond(client, max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_stream_has_the_events_of_the_api(client: openai.OpenAI):
    events = list(respond(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == PARIS
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == PARIS
    with client.responses.stream(model="tiny-chat", input=QUESTION, temperature=0) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == PARIS


def test_a_turn_goes_on_from_the_previous_response_or_forks_it(client: openai.OpenAI):
    first = respond(client, "My name is Ada.")
    second = respond(client, "What is my name?", previous_response_id=first.id)
    assert second.output_text == "Your name is Ada."
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    other = respond(client, "Tell me a story.", previous_response_id=first.id, max_output_tokens=8)
    assert other.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    again = respond(client, "Thank you.", previous_response_id=second.id, max_output_tokens=8)
    assert again.usage.input_tokens_details.cached_tokens >= second.usage.input_tokens


def test_a_call_is_made_and_its_output_answered(client: openai.OpenAI):
    question = "What is the weather in Paris?"
    response = respond(client, question, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    [call] = response.output
    assert (call.type, call.name, list(json.loads(call.arguments))) == ("function_call", "weather", ["city"])
    chosen = respond(
        client, question, tools=[WEATHER], tool_choice={"type": "function", "name": "weather"}, stream=True
    )
    done = [event for event in chosen if event.type == "response.function_call_arguments.done"]
    assert json.loads(done[0].arguments) == json.loads(call.arguments)
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}
    by_id = respond(client, [output], tools=[WEATHER], previous_response_id=response.id, max_output_tokens=32)
    asked = {"role": "user", "content": question}
    whole = respond(client, [asked, call.model_dump(), output], tools=[WEATHER], max_output_tokens=32)
    assert by_id.output[0].to_dict().keys() == whole.output[0].to_dict().keys()


class Capital(pydantic.BaseModel):
    country: Literal["France", "Italy"]
    capital: Literal["Paris", "Rome"]


def test_a_pydantic_model_comes_back_parsed(client: openai.OpenAI):
    response = client.responses.parse(model="tiny-chat", input=QUESTION, text_format=Capital, temperature=0)
    assert isinstance(response.output_parsed, Capital)


def test_a_response_is_kept_until_it_is_deleted(client: openai.OpenAI):
    response = respond(client)
    assert client.responses.retrieve(response.id).output_text == PARIS
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match="there is no response"):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, previous_response_id=response.id)
    assert caught.value.code == "previous_response_not_found"
    unstored = respond(client, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)


def test_logprobs_are_those_of_the_text(client: openai.OpenAI):
    [message] = respond(client, include=["message.output_text.logprobs"], top_logprobs=1).output
    assert "".join(each.token for each in message.content[0].logprobs) == PARIS


BAD: list[dict[str, Any]] = [
    {"input": None}, {"input": 5}, {"input": []}, {"input": [5]}, {"input": [{"type": "nope"}]},
    {"input": [{"role": "robot", "content": "x"}]}, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
    {"input": [{"type": "function_call_output", "call_id": "none", "output": "x"}]}, {"background": True},
    {"input": [{"type": "function_call", "call_id": "a", "name": None, "arguments": "{}"}]},
    {"max_output_tokens": 0}, {"tools": [{"type": "web_search"}]}, {"tools": [{"type": "function"}]},
    {"tool_choice": "required"}, {"tool_choice": {"type": "function", "name": "x"}}, {"reasoning": {"effort": "huge"}},
    {"text": {"format": {"type": "json_schema"}}}, {"text": {"format": {"type": "json_schema", "schema": {"type": 5}}}},
    {"top_logprobs": 50}, {"metadata": {"a": 5}}, {"previous_response_id": 5}, {"temperature": "hot"},
    {"speculation": 5}, {"speculation": "nope"},
]  # fmt: skip


def test_errors_have_the_form_of_the_api(client: openai.OpenAI, server: ServerProcess):
    for wrong in BAD:
        response = server.http.post("/v1/responses", json={"input": QUESTION} | wrong)
        assert response.status_code == 400, wrong
        assert response.json()["error"]["message"]
    assert respond(client).output_text == PARIS
    assert "Traceback" not in server.log
