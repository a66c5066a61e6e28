"""What LangChain's messages become on their way to the model, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)

from cyllama import ChatDelta, ChatResponse, Function, Message, MessageError, Timings, ToolCall, Usage
from cyllama.chat import FunctionDelta, ToolCallDelta
from langchain_cyllama.messages import to_chunk, to_cyllama, to_langchain, to_last_chunk

CALL = {"name": "add", "args": {"a": 1, "b": 2}, "id": "one", "type": "tool_call"}


def response(message: Message, finish_reason: Any = "stop") -> ChatResponse:
    return ChatResponse(message, finish_reason, Usage(30, 12, 20), Timings(0.001, 0.002, 0.003), "tiny-chat")


# -------------------- to cyllama


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (SystemMessage("Be brief."), {"role": "system", "content": "Be brief."}),
        (HumanMessage("Hello"), {"role": "user", "content": "Hello"}),
        (HumanMessage("Hello", name="ada"), {"role": "user", "content": "Hello", "name": "ada"}),
        (AIMessage("Hi", name="helper"), {"role": "assistant", "content": "Hi", "name": "helper"}),
        (ChatMessage(role="user", content="Hello"), {"role": "user", "content": "Hello"}),
        (ChatMessage(role="human", content="Hello"), {"role": "user", "content": "Hello"}),
        (
            SystemMessage("Be brief.", additional_kwargs={"__openai_role__": "developer"}),
            {"role": "developer", "content": "Be brief."},
        ),
        (AIMessageChunk(content="Hi"), {"role": "assistant", "content": "Hi"}),
    ],
)
def test_a_message_keeps_its_role_and_its_text(message: BaseMessage, expected: dict[str, Any]) -> None:
    assert to_cyllama([message]) == [expected]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "one"}, {"type": "text", "text": "two", "cache_control": {"type": "ephemeral"}}],
        ["one", "two"],
        ["one", {"type": "text-plain", "text": "two", "mime_type": "text/plain"}],
        [{"type": "input_text", "text": "one"}, {"type": "file", "source_type": "text", "text": "two"}],
    ],
)
def test_the_parts_of_a_text_are_kept_apart(content: list[Any]) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert to_cyllama([HumanMessage(content), SystemMessage(content)]) == [
        {"role": "user", "content": parts},
        {"role": "system", "content": parts},
    ]


def test_what_an_assistant_said_is_one_text_again() -> None:
    blocks: Any = [
        {"type": "text", "text": "The sum"},
        {"type": "tool_call", **CALL},
        {"type": "text", "text": " is 3."},
    ]
    (message,) = to_cyllama([AIMessage(blocks, tool_calls=[CALL])])
    assert message["content"] == "The sum is 3."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["add"]


def test_calls_and_their_results_belong_together() -> None:
    call, result = to_cyllama([AIMessage("", tool_calls=[CALL]), ToolMessage("3", tool_call_id="one", name="add")])
    assert call["tool_calls"] == [
        {"id": "one", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
    ]
    assert result == {"role": "tool", "content": "3", "tool_call_id": "one", "name": "add"}


def test_calls_of_other_providers_are_read() -> None:
    anthropic = AIMessage([{"type": "tool_use", "id": "one", "name": "add", "input": {"a": 1}}])
    standard = AIMessage(content_blocks=[{"type": "tool_call", "id": "one", "name": "add", "args": {"a": 1}}])
    for message in to_cyllama([anthropic, standard]):
        assert message["tool_calls"] == [
            {"id": "one", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
        ]


def test_results_within_a_users_message_are_results() -> None:
    results: list[Any] = [{"type": "tool_result", "tool_use_id": "one", "content": [{"type": "text", "text": "3"}]}]
    assert to_cyllama([HumanMessage([*results, {"type": "text", "text": "And now?"}])]) == [
        {"role": "tool", "content": "3", "tool_call_id": "one"},
        {"role": "user", "content": "And now?"},
    ]
    assert [message["role"] for message in to_cyllama([HumanMessage(results)])] == ["tool"]


def test_a_model_is_told_of_an_error_that_a_tool_does_not_name() -> None:
    failed = ToolMessage("no such city", tool_call_id="one", status="error")
    named = ToolMessage("Error: no such city", tool_call_id="one", status="error")
    parts = ToolMessage([{"type": "text", "text": "no"}, "such city"], tool_call_id="one", status="error")
    assert [message["content"] for message in to_cyllama([failed, named])] == ["Error: no such city"] * 2
    assert [part["text"] for part in to_cyllama([parts])[0]["content"]] == ["Error:", "no", "such city"]


def test_a_call_that_was_broken_is_shown_as_it_was(chat: Any) -> None:
    broken = {"name": "add", "args": '{"a": 1, "b"', "id": "two", "error": "cut", "type": "invalid_tool_call"}
    history = [
        HumanMessage("What is 1 + 2?"),
        AIMessage("", invalid_tool_calls=[broken]),
        ToolMessage("Error: the arguments are no JSON", tool_call_id="two", status="error"),
    ]
    _, call, _ = to_cyllama(history)
    assert call["tool_calls"][0]["function"]["arguments"] == {"invalid_arguments": '{"a": 1, "b"'}
    assert chat.invoke(history).content


def test_functions_are_called_as_tools_are() -> None:
    call = AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": '{"a": 1}'}})
    messages = to_cyllama([call, FunctionMessage(content="3", name="add")])
    assert messages[0]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
    assert messages[1] == {"role": "tool", "content": "3", "name": "add"}


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("4", additional_kwargs={"reasoning_content": "2 + 2"}),
        AIMessage([{"type": "reasoning", "reasoning": "2 + "}, {"type": "reasoning", "reasoning": "2"}, "4"]),
        AIMessage([{"type": "thinking", "thinking": "2 + 2", "signature": "x"}, {"type": "text", "text": "4"}]),
    ],
)
def test_what_a_model_thought_is_not_what_it_said(message: AIMessage) -> None:
    assert to_cyllama([message]) == [{"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}]


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, "an image"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}, "an image"),
        ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "audio"),
        ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, "a file"),
        ({"type": "video", "url": "https://example.org/cat.mp4"}, "a video"),
        ({"type": "hologram"}, "a block of type 'hologram'"),
    ],
)
def test_what_is_no_text_is_refused_and_named(block: dict[str, Any], what: str) -> None:
    with pytest.raises(MessageError, match=f"message 1 has {what}.*reads only text"):
        to_cyllama([HumanMessage("Hello"), HumanMessage([{"type": "text", "text": "What is this?"}, block])])
    with pytest.raises(MessageError, match=what):
        to_cyllama([ToolMessage([block], tool_call_id="one")])


def test_a_command_to_forget_a_message_is_refused() -> None:
    with pytest.raises(MessageError, match=r"message 0 is a RemoveMessage.*'seven'"):
        to_cyllama([RemoveMessage(id="seven")])


def test_a_role_that_does_not_exist_is_refused(chat: Any) -> None:
    with pytest.raises(MessageError, match="unknown role 'narrator'"):
        chat.invoke([ChatMessage(role="narrator", content="Once")])


def test_messages_are_not_changed(chat: Any) -> None:
    history = [HumanMessage([{"type": "text", "text": "What is 1 + 2?"}]), AIMessage("", tool_calls=[CALL])]
    before = messages_to_dict(history)
    to_cyllama(history)
    assert messages_to_dict(history) == before


# -------------------- to LangChain


def test_an_answer_says_how_it_came_about() -> None:
    message = to_langchain(response(Message(role="assistant", content="3", reasoning_content="1 + 2")))
    assert (message.content, message.additional_kwargs) == ("3", {"reasoning_content": "1 + 2"})
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert message.usage_metadata == {
        "input_tokens": 30,
        "output_tokens": 12,
        "total_tokens": 42,
        "input_token_details": {"cache_read": 20},
    }
    metadata = message.response_metadata
    assert (metadata["model_name"], metadata["finish_reason"]) == ("tiny-chat", "stop")
    assert metadata["timings"] == {"queued": 0.001, "prompt": 0.002, "generation": 0.003}


def test_an_answer_has_the_metadata_that_ollamas_have() -> None:
    metadata = to_langchain(response(Message(role="assistant", content="3"), "length")).response_metadata
    assert (metadata["model"], metadata["done"], metadata["done_reason"]) == ("tiny-chat", True, "length")
    assert (metadata["prompt_eval_count"], metadata["eval_count"]) == (30, 12)
    assert (metadata["prompt_eval_duration"], metadata["eval_duration"]) == (2_000_000, 3_000_000)
    assert metadata["total_duration"] == 6_000_000


def test_a_call_that_was_cut_is_no_call() -> None:
    calls = [
        ToolCall(id="one", function=Function(name="add", arguments='{"a": 1}')),
        ToolCall(id="two", function=Function(name="add", arguments='{"a": 1, "b')),
    ]
    message = to_langchain(response(Message(role="assistant", tool_calls=calls), "length"))
    assert message.tool_calls == [{"name": "add", "args": {"a": 1}, "id": "one", "type": "tool_call"}]
    (invalid,) = message.invalid_tool_calls
    assert (invalid["id"], invalid["args"]) == ("two", '{"a": 1, "b')
    assert "cut" in (invalid["error"] or "")


def test_chunks_add_up_to_the_message() -> None:
    deltas = [
        ChatDelta(reasoning_content="1 "),
        ChatDelta(reasoning_content="+ 2"),
        ChatDelta(content="I "),
        ChatDelta(content="add."),
        ChatDelta(tool_calls=(ToolCallDelta(0, "one", FunctionDelta("add", '{"a": 1, '), "function"),)),
        ChatDelta(tool_calls=(ToolCallDelta(0, function=FunctionDelta(None, '"b": 2}')),)),
        ChatDelta(tool_calls=(ToolCallDelta(1, "two", FunctionDelta("add", "{}"), "function"),)),
    ]
    calls = [
        ToolCall(id="one", function=Function(name="add", arguments='{"a": 1, "b": 2}')),
        ToolCall(id="two", function=Function(name="add", arguments="{}")),
    ]
    whole = response(
        Message(role="assistant", content="I add.", reasoning_content="1 + 2", tool_calls=calls), "tool_calls"
    )
    total, *others = [to_chunk(delta) for delta in deltas]
    for chunk in [*others, to_last_chunk(whole)]:
        total += chunk
    expected = to_langchain(whole)
    assert isinstance(total, AIMessageChunk)
    for name in ("content", "additional_kwargs", "tool_calls", "usage_metadata", "response_metadata"):
        assert getattr(total, name) == getattr(expected, name)
    assert total.content_blocks == expected.content_blocks
    assert total.chunk_position == "last"


def test_a_call_in_a_stream_never_has_the_index_of_a_text() -> None:
    piece = ToolCallDelta(0, "one", FunctionDelta("add", "{}"), "function")
    text, call = (to_chunk(delta).content_blocks for delta in (ChatDelta(content="I"), ChatDelta(tool_calls=(piece,))))
    assert text == [{"type": "text", "text": "I"}]
    assert call == [{"type": "tool_call_chunk", "id": "one", "name": "add", "args": "{}", "index": "lc_tc_0"}]
