"""Conversations that began with another provider, and chats that templates have no place for."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from ..support.families import GEMMA, GPT_OSS, LLAMA3, MISTRAL, QWEN

FAMILIES = [QWEN, LLAMA3, MISTRAL, GEMMA, GPT_OSS]
TEMPLATES = pytest.mark.parametrize("template", [None, *(family.template for family in FAMILIES)])
ADD = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
WEATHER = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}

OPENAI = [
    SystemMessage("Be brief.", additional_kwargs={"__openai_role__": "developer"}),
    HumanMessage("What is the weather in Paris, and what is 1 + 2?", id="msg_0"),
    AIMessage(
        [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Two tools."}]},
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "x"},
            },
            {"type": "text", "text": "I look.", "annotations": [], "id": "msg_1"},
            {"type": "function_call", "id": "fc_1", "call_id": "call_0fyp1", "name": "get_weather", "arguments": "{}"},
        ],
        id="resp_1",
        tool_calls=[
            {"name": "get_weather", "args": {"city": "Paris"}, "id": "call_0fyp1", "type": "tool_call"},
            {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_0fyp2", "type": "tool_call"},
        ],
        response_metadata={"model_provider": "openai", "finish_reason": "tool_calls"},
    ),
    ToolMessage("3", tool_call_id="call_0fyp2"),
    ToolMessage([{"type": "json", "json": {"sky": "sunny"}}], tool_call_id="call_0fyp1"),
    HumanMessage("And now?"),
]
ANTHROPIC = [
    SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
    HumanMessage(
        [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Paris."}}, "Sum it up."]
    ),
    AIMessage(
        [
            {"type": "thinking", "thinking": "Search.", "signature": "EqQB"},
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Paris"}},
            {
                "type": "web_search_tool_result",
                "tool_use_id": "srvtoolu_1",
                "content": [{"title": "Paris", "url": "p.org"}],
            },
            {"type": "text", "text": "I add."},
            {"type": "tool_use", "id": "toolu_01A", "name": "add", "input": {"a": 1, "b": 2}},
        ],
        tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "toolu_01A", "type": "tool_call"}],
        response_metadata={"model_provider": "anthropic", "stop_reason": "tool_use"},
    ),
    HumanMessage([{"type": "tool_result", "tool_use_id": "toolu_01A", "content": [{"type": "text", "text": "3"}]}]),
]
GEMINI = [
    HumanMessage([{"type": "text", "text": "What is 1 + 2?"}]),
    AIMessage(
        [
            {"type": "executable_code", "executable_code": "print(1 + 2)", "language": 1, "id": "c"},
            {"type": "code_execution_result", "code_execution_result": "3", "outcome": 1},
            "It is 3.",
        ],
        response_metadata={"model_provider": "google_genai"},
    ),
    HumanMessage("Why?"),
]


@pytest.mark.parametrize(
    "template", [None, QWEN.template, LLAMA3.template, MISTRAL.template, GEMMA.template, GPT_OSS.template]
)
@pytest.mark.parametrize("history", [OPENAI, ANTHROPIC, GEMINI], ids=["OpenAI", "Anthropic", "Gemini"])
def test_a_conversation_that_began_with_another_provider_goes_on(chat: Any, history: Any, template: str | None) -> None:
    going_on = chat.bind_tools([ADD, WEATHER]).bind(max_tokens=8, chat_template=template, session_id="ada")
    answer = going_on.invoke(history)
    assert answer.usage_metadata["output_tokens"] > 0
    again = going_on.invoke([*history, answer, HumanMessage("Go on.")])
    assert again.usage_metadata["output_tokens"] > 0


@pytest.mark.parametrize(
    "template", [None, QWEN.template, LLAMA3.template, MISTRAL.template, GEMMA.template, GPT_OSS.template]
)
def test_a_chat_of_a_system_message_only_is_read(chat: Any, template: str | None) -> None:
    bound = chat.bind(max_tokens=4, chat_template=template)
    short, long = (bound.invoke([SystemMessage(text)]) for text in ("Say", "Say a word about the river and the boat."))
    assert long.usage_metadata["input_tokens"] - short.usage_metadata["input_tokens"] > 6
