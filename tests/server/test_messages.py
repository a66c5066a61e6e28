"""Anthropic's API by its own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from ..support.server import ServerProcess

FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
WEATHER: Any = {
    "name": "weather",
    "description": "Get the weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def claude(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client:
        yield client


def ask(client: anthropic.Anthropic, messages: Any = FRANCE, **options: Any) -> Any:
    body = {"temperature": 0, **options.pop("extra_body", {})}
    options = {"max_tokens": 64, **options}
    return client.messages.create(model="tiny-chat", messages=messages, extra_body=body, **options)


def test_a_client_of_anthropic_gets_an_answer(claude: anthropic.Anthropic):
    message = ask(claude)
    assert (message.type, message.role, message.model) == ("message", "assistant", "tiny-chat")
    assert [(block.type, block.text) for block in message.content] == [("text", PARIS)]
    assert (message.stop_reason, message.stop_sequence, message.usage.output_tokens) == ("end_turn", None, 12)


def test_a_stream_is_the_same_message_in_events(claude: anthropic.Anthropic):
    options: Any = {"max_tokens": 64, "extra_body": {"temperature": 0}}
    with claude.messages.stream(model="tiny-chat", messages=FRANCE, **options) as stream:
        assert "".join(stream.text_stream) == PARIS
        final = stream.get_final_message()
    whole = ask(claude)
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 12)
    read = (final.usage.input_tokens or 0) + (final.usage.cache_read_input_tokens or 0)
    assert read == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    kinds = [event.type for event in ask(claude, stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_message_says_which_sequence_ended_it(claude: anthropic.Anthropic):
    message = ask(claude, stop_sequences=["nowhere", " of"])
    assert (message.stop_reason, message.stop_sequence, message.content[0].text) == (
        "stop_sequence",
        " of",
        "The capital",
    )
    assert ask(claude, stop_sequences=["nowhere"]).stop_reason == "end_turn"
    assert ask(claude, max_tokens=2).stop_reason == "max_tokens"


def test_a_tool_is_called_and_its_result_answered(claude: anthropic.Anthropic):
    question: Any = [{"role": "user", "content": [{"type": "text", "text": "What is the weather in Paris?"}]}]
    options: Any = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    message = ask(claude, question, **options)
    [call] = [block for block in message.content if block.type == "tool_use"]
    assert (message.stop_reason, call.name, list(call.input)) == ("tool_use", "weather", ["city"])
    events = list(ask(claude, question, stream=True, **options))
    [start] = [each for each in events if each.type == "content_block_start" and each.content_block.type == "tool_use"]
    assert (start.content_block.name, start.content_block.input) == ("weather", {})
    deltas = [each.delta for each in events if each.type == "content_block_delta"]
    written = "".join(delta.partial_json for delta in deltas if delta.type == "input_json_delta")
    assert json.loads(written) == call.input

    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "18 degrees"}]}
    history = [*question, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = ask(claude, history, tools=[WEATHER])
    assert answer.stop_reason in ("end_turn", "tool_use", "max_tokens")
    assert ask(claude, question, tools=[WEATHER], tool_choice={"type": "none"}).content[0].type == "text"


def test_an_answer_goes_on_with_the_last_message(claude: anthropic.Anthropic):
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of France"}]
    assert ask(claude, begun).content[0].text.strip() == "is Paris."


def test_a_schema_is_followed(claude: anthropic.Anthropic):
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    message = ask(claude, extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}})
    assert json.loads(message.content[0].text)["n"] in (1, 2)


def test_an_agent_evaluates_only_what_is_new(claude: anthropic.Anthropic):
    def turn(messages: Any, billing: str) -> Any:
        system = [
            {"type": "text", "text": f"x-anthropic-billing-header: cch={billing};"},
            {"type": "text", "text": "Be brief."},
        ]
        user = "user_1234_account__session_01234567-89ab-cdef"
        return ask(claude, messages, system=system, metadata={"user_id": user}, max_tokens=16)

    messages: Any = [{"role": "user", "content": "My name is Ada."}]
    first = turn(messages, "1a2b")
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "What is my name?"}]
    second = turn(messages, "9f8e")
    assert second.usage.cache_read_input_tokens >= first.usage.input_tokens + first.usage.cache_read_input_tokens


def test_tokens_are_counted_without_an_answer(claude: anthropic.Anthropic):
    counted = claude.messages.count_tokens(model="tiny-chat", messages=FRANCE, system="Be brief.").input_tokens
    usage = ask(claude, system="Be brief.").usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    assert claude.messages.count_tokens(model="tiny-chat", messages=FRANCE, tools=[WEATHER]).input_tokens > counted


def test_errors_have_the_form_of_the_api(claude: anthropic.Anthropic, server: ServerProcess):
    with pytest.raises(anthropic.NotFoundError, match="there is no model 'nope'"):
        claude.messages.create(model="nope", messages=FRANCE, max_tokens=1)
    for wrong in BAD:
        response = server.http.post(
            "/v1/messages", json={"model": "tiny-chat", "messages": FRANCE, "max_tokens": 1} | wrong
        )
        assert response.status_code == 400, wrong
        assert response.json()["type"] == "error"
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert server.http.post("/v1/messages", content=b"{").json()["type"] == "error"
    assert ask(claude).content[0].text == PARIS
    assert "Traceback" not in server.log


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
BAD: list[dict[str, Any]] = [
    {"max_tokens": None}, {"max_tokens": 0}, {"max_tokens": "many"}, {"messages": []}, {"messages": "Hi."},
    {"messages": [{"role": "tool", "content": "x"}]}, {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "user", "content": [IMAGE]}]}, {"messages": [{"role": "user", "content": [{}]}]},
    {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "none"}]}]},
    {"messages": [*FRANCE, {"role": "assistant", "content": [{"type": "tool_use", "name": 5, "input": {}}]}]},
    {"messages": [*FRANCE, {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": "x"}]}]},
    {"system": 5}, {"system": [5]}, {"system": [{"type": "text"}]}, {"temperature": -1}, {"temperature": "hot"},
    {"tools": [{}]}, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, {"tools": "x"},
    {"tool_choice": {"type": "nope"}}, {"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "tool", "name": "x"}},
    {"thinking": {"type": "maybe"}}, {"stop_sequences": "x"}, {"stop_sequences": [5]}, {"top_k": 1.5},
    {"output_config": {"format": {"type": "json_schema"}}}, {"speculation": 5}, {"speculation": "nope"},
    {"output_config": {"format": {"schema": {"type": "colour"}}}},
]  # fmt: skip
