"""What LangChain's messages become on their way to the model, and what comes back."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from langchain_cyllama import UnreadableContentWarning
from langchain_cyllama.answers import to_chunk, to_langchain, to_last_chunk
from langchain_cyllama.messages import to_cyllama

CALL = {"name": "add", "args": {"a": 1, "b": 2}, "id": "one", "type": "tool_call"}


def response(message: Message, finish_reason: Any = "stop") -> ChatResponse:
    return ChatResponse(message, finish_reason, Usage(30, 12, 20), Timings(0.001, 0.002, 0.003, 8, 5), "tiny-chat")


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


BINARY = "iVBORw0KGgoAAAANSUhEUgAA" * 20


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, "an image"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BINARY}}, "an image"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}, "an image"),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{BINARY}"}, "an image"),
        ({"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": BINARY}, "an image"),
        ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "audio"),
        ({"type": "input_audio", "input_audio": {"data": BINARY, "format": "wav"}}, "audio"),
        ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, "a file"),
        ({"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}, "a document"),
        ({"type": "media", "mime_type": "video/mp4", "data": BINARY}, "a file"),
        ({"type": "video", "url": "https://example.org/cat.mp4"}, "a video"),
        ({"image": {"format": "png", "source": {"bytes": BINARY}}}, "an image"),
        ({"type": "redacted_thinking", "data": BINARY}, "reasoning that is encrypted"),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": BINARY},
            "reasoning that is encrypted",
        ),
        ({"type": "web_search_call", "id": "ws_1", "status": "completed"}, "a block of type 'web_search_call'"),
        ({"type": "hologram", "pixels": BINARY}, "a block of type 'hologram'"),
    ],
    ids=lambda value: value.get("type", "untyped") if isinstance(value, dict) else "",
)
def test_what_cannot_be_read_is_left_out_with_one_warning(block: dict[str, Any], what: str) -> None:
    asked: Any = [{"type": "text", "text": "What is this?"}, block]
    said: Any = [{"type": "text", "text": "It is"}, block, {"type": "text", "text": " a cat."}]
    history = [HumanMessage("Hello"), HumanMessage(asked), AIMessage(said), ToolMessage([block], tool_call_id="one")]
    with pytest.warns(UnreadableContentWarning, match=f"{what} in message 1, {what} in message 2, {what}") as warned:
        converted = to_cyllama(history)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert [message["content"] for message in converted] == ["Hello", "What is this?", "It is a cat.", ""]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "json", "json": {"temperature": 21}}, '{"temperature": 21}'),
        ({"json": {"temperature": 21}}, '{"temperature": 21}'),
        ({"text": "It is sunny."}, "It is sunny."),
        ({"type": "refusal", "refusal": "I cannot help with that."}, "I cannot help with that."),
        ({"type": "audio", "id": "audio_1", "transcript": "It is sunny."}, "It is sunny."),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A."}}, "A."),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "A."}]}}, "A."),
        ({"type": "text-plain", "base64": "SGVsbG8=", "mime_type": "text/plain"}, "Hello"),
        ({"type": "resource", "resource": {"uri": "file:///a.txt", "text": "A."}}, "A."),
        ({"type": "guard_content", "guard_content": {"text": "A."}}, "A."),
        (
            {
                "type": "search_result",
                "source": "https://a.org",
                "title": "A",
                "content": [{"type": "text", "text": "B"}],
            },
            "A\nB",
        ),
        (
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "weather"}},
            '[web_search: {"query": "weather"}]',
        ),
        (
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [
                    {
                        "type": "web_search_result",
                        "title": "Weather",
                        "url": "https://a.org",
                        "encrypted_content": BINARY,
                        "page_age": None,
                    }
                ],
            },
            '[web_search_tool_result: [{"title": "Weather", "url": "https://a.org"}]]',
        ),
        (
            {"type": "code_execution_tool_result", "content": {"stdout": "3\n", "stderr": "", "return_code": 0}},
            '[code_execution_tool_result: {"stdout": "3\\n", "return_code": 0}]',
        ),
        (
            {"type": "mcp_tool_use", "id": "m_1", "name": "echo", "server_name": "s", "input": {"text": "A"}},
            '[echo: {"server_name": "s", "input": {"text": "A"}}]',
        ),
        (
            {"type": "mcp_call", "id": "mcp_1", "name": "roll", "arguments": '{"n": 2}', "output": "7", "error": None},
            '[roll: {"arguments": "{\\"n\\": 2}", "output": "7"}]',
        ),
        (
            {"type": "web_search_call", "id": "ws_1", "action": {"type": "search", "query": "weather"}},
            '[web_search_call: {"query": "weather"}]',
        ),
        ({"type": "code_interpreter_call", "id": "ci_1", "code": "1 + 2"}, "[code_interpreter_call: 1 + 2]"),
        ({"type": "executable_code", "executable_code": "1 + 2"}, "[executable_code: 1 + 2]"),
        ({"type": "code_execution_result", "code_execution_result": "3"}, "[code_execution_result: 3]"),
        (
            {"type": "server_tool_call", "id": "one", "name": "web_search", "args": {"query": "weather"}},
            '[web_search: {"query": "weather"}]',
        ),
        (
            {"type": "server_tool_result", "tool_call_id": "one", "status": "success", "output": {"found": 3}},
            '[server_tool_result: {"found": 3}]',
        ),
        ({"type": "non_standard", "value": {"type": "location", "city": "Paris"}}, "[location: Paris]"),
    ],
    ids=lambda value: value.get("type", "untyped") if isinstance(value, dict) else "",
)
def test_what_another_provider_did_is_put_into_words(block: dict[str, Any], words: str) -> None:
    for message in (HumanMessage([block]), ToolMessage([block], tool_call_id="one"), AIMessage([block])):
        assert to_cyllama([message])[0]["content"] == words
    said: Any = [
        {"type": "text", "text": "I look."},
        block,
        {"type": "text", "text": "Done"},
        {"type": "text", "text": "."},
    ]
    lines = "\n" if words.startswith("[") else ""
    assert to_cyllama([AIMessage(said)])[0]["content"] == f"I look.{lines}{words}{lines}Done."


@pytest.mark.parametrize(
    "block",
    [
        {"type": "function_call", "id": "fc_1", "call_id": "one", "name": "add", "arguments": '{"a": 1}'},
        {"toolUse": {"toolUseId": "one", "name": "add", "input": {"a": 1}}},
    ],
)
def test_calls_in_the_content_of_any_provider_are_calls(block: dict[str, Any]) -> None:
    (message,) = to_cyllama([AIMessage([block])])
    assert message["tool_calls"] == [
        {"id": "one", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    ]
    assert message["content"] == ""


def test_results_in_amazons_format_are_results() -> None:
    result: Any = {"toolResult": {"toolUseId": "one", "content": [{"json": {"sum": 3}}], "status": "success"}}
    assert to_cyllama([HumanMessage([result, {"text": "And now?"}])]) == [
        {"role": "tool", "content": '{"sum": 3}', "tool_call_id": "one"},
        {"role": "user", "content": "And now?"},
    ]


def test_what_openai_keeps_beside_an_empty_content_is_the_content() -> None:
    refused = AIMessage("", additional_kwargs={"refusal": "I cannot."})
    spoken = AIMessage("", additional_kwargs={"audio": {"id": "audio_1", "data": BINARY, "transcript": "Hello"}})
    assert [message["content"] for message in to_cyllama([refused, spoken])] == ["I cannot.", "Hello"]


texts = st.text("ab{", max_size=3)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
keys = st.sampled_from(
    ["text", "json", "source", "content", "name", "input", "toolUse", "toolResult", "summary", "value"]
)
kinds = st.sampled_from(
    ["text", "non_standard", "reasoning", "tool_use", "document", "tool_result", "image", "mcp_call"]
)
blocks = st.tuples(kinds | any_json, st.dictionaries(keys, any_json, max_size=3)).map(
    lambda of: {"type": of[0]} | of[1]
)


@given(st.lists(blocks, max_size=3))
@settings(deadline=None)
@pytest.mark.filterwarnings("ignore::langchain_cyllama.UnreadableContentWarning")
def test_no_block_ends_the_run(content: list[Any]) -> None:
    kinds = (HumanMessage, AIMessage, SystemMessage, partial(ToolMessage, tool_call_id="one"))
    for converted in to_cyllama([kind(content) for kind in kinds]):
        json.dumps(converted)


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
    assert metadata["timings"] == {
        "queued": 0.001,
        "prompt": 0.002,
        "generation": 0.003,
        "tokens_drafted": 8,
        "tokens_accepted": 5,
    }


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
