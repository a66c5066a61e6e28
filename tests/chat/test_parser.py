"""Answers as messages: pieces that are never taken back, and text that fits no format."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.chat import ChatParser, ChatPlan, ChatTemplates, add_up
from cyllama.llama.llama_cpp import LlamaModel

from ..support.families import FAMILIES, QWEN, TOOLS

USER = [{"role": "user", "content": "Hi"}]

DAMAGED = [
    "<tool_call>\n",
    "<tool_call>\n</tool_call>",
    "<tool_call>\nnone\n</tool_call>",
    '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>',
    '<tool_call>\n{"name": "now", "arguments": 5}\n</tool_call>',
    '<tool_call>\n{"name": "now"',
    '<tool_call>\n{"name": "add", "arguments": {"a": 1, oops}}\n</tool_call> and more',
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call> and more',
    "</tool_call>",
    "<think>never ends",
    "</think></think>",
    "[TOOL_CALLS]",
    '[TOOL_CALLS][{"name": "now"',
    '{"name": "now", "parameters": [1]}',
    '{"a": 1}',
    "{" * 50,
    "<|channel|>nonsense<|message|>x",
    "<|channel|>final",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>nobody\n```json\n{}",
    "<|START_ACTION|>[\n    {}\n]<|END_ACTION|>",
    "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
    "\0\x01\x7f",
    "",
]


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("name", FAMILIES)
def test_text_that_fits_no_format_is_a_message_too(name: str, text: str, templates: ChatTemplates):
    for tools in (None, TOOLS):
        plan = templates.prepare(USER, tools=tools, chat_template=FAMILIES[name].template)
        whole = plan.parse(text)
        assert whole.role == "assistant"
        parser = plan.parser()
        deltas = [parser.push(character) for character in text]
        deltas.append(parser.finish())
        assert add_up(deltas) == parser.message


FRAGMENTS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<think>",
            "</think>",
            "\n",
            "{",
            "}",
            '"',
            '"name": ',
            '"now"',
            '"add"',
            ", ",
        ),
        *('"arguments": ', "{}", '{"a": 1, "b": 2}', "[TOOL_CALLS]", "[", "]", "<function=now>", "</function>", "é😀"),
        *("<|channel|>", "final", "analysis", "<|message|>", "<|end|>", "<|start|>assistant", " to=functions.now", "x"),
        *("<|START_ACTION|>", "<|END_ACTION|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<｜tool▁calls▁begin｜>"),
    ]
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts=st.lists(FRAGMENTS, max_size=12), name=st.sampled_from(sorted(FAMILIES)))
def test_deltas_add_up_whatever_is_written(model_plans: dict[str, ChatPlan], texts: list[str], name: str):
    plan = model_plans[name]
    parser = plan.parser()
    deltas = [parser.push(character) for text in texts for character in text]
    deltas.append(parser.finish())
    assert add_up(deltas) == parser.message
    plan.parse("".join(texts))


@pytest.fixture(scope="module")
def model_plans(model: LlamaModel) -> dict[str, ChatPlan]:
    templates = ChatTemplates(model)
    return {
        name: templates.prepare(USER, tools=TOOLS, chat_template=family.template) for name, family in FAMILIES.items()
    }


def test_text_comes_at_once_and_calls_piece_by_piece(templates: ChatTemplates):
    parser = templates.prepare(USER, tools=TOOLS, chat_template=QWEN.template).parser()
    assert parser.push("Well").content == "Well"
    assert parser.push(", <b>").content == ", <b>"
    assert not parser.push("<tool_")
    assert not parser.push('call>\n{"name": "add", "argu')
    first = parser.push('ments": {"a": 12')
    assert [(call.index, call.function.name, call.function.arguments) for call in first.tool_calls] == [
        (0, "add", '{"a": 12')
    ]
    assert first.tool_calls[0].id
    assert first.tool_calls[0].type == "function"
    second = parser.push('3, "b": ')
    assert [(call.id, call.function.name, call.function.arguments) for call in second.tool_calls] == [
        (None, None, '3, "b":')
    ]
    parser.push("1}}\n</tool_call>")
    parser.finish()
    (call,) = parser.message.tool_calls
    assert json.loads(call.function.arguments) == {"a": 123, "b": 1}
    assert parser.message.content == "Well, <b>"


def test_calls_have_ids_of_their_own(templates: ChatTemplates):
    plan = templates.prepare(USER, tools=TOOLS, chat_template=QWEN.template, parallel_tool_calls=True)
    calls = plan.parse('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n' * 5).tool_calls
    assert len({call.id for call in calls}) == 5
    assert all(len(call.id) == 9 and call.id.isalnum() for call in calls)


def test_a_parser_that_contradicts_itself_cannot_take_back_what_was_sent():
    answers = iter(
        [
            ("Hello", "", []),
            ("Hallo", "", []),
            ("", "", [("", "a", '{"x": 1')]),
            ("", "", [("", "b", '{"y": 1')]),
            ("Hello you", "", [("", "a", '{"x": 12}'), ("1", "c", "{}")]),
        ]
    )
    parser = ChatParser(lambda text, is_partial: next(answers))
    deltas = [parser.push("x") for _ in range(4)]
    deltas.append(parser.finish())
    assert [delta.content for delta in deltas] == ["Hello", "", "", "", " you"]
    assert add_up(deltas) == parser.message
    assert [(call.function.name, call.function.arguments) for call in parser.message.tool_calls] == [
        ("a", '{"x": 12}'),
        ("c", "{}"),
    ]


def test_long_answers_are_read_in_linear_pieces(templates: ChatTemplates):
    parser = templates.prepare(USER, tools=TOOLS, chat_template=QWEN.template).parser()
    rng = random.Random(1)
    text = "".join(rng.choice(("word ", "é ", "<b> ", "\n")) for _ in range(20_000))
    deltas = [parser.push(text[i : i + 4]) for i in range(0, len(text), 4)]
    deltas.append(parser.finish())
    assert parser.message.content == text
    assert sum(map(bool, deltas)) > 500


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
def test_plain_text_comes_in_the_same_small_pieces_however_long_it_is(templates: ChatTemplates, tools: Any):
    parser = templates.prepare(USER, tools=tools, chat_template=QWEN.template).parser()
    text = "Once upon a time, there was a fox. " * 600
    sizes = [len(parser.push(text[i : i + 4]).content) for i in range(0, len(text), 4)]
    assert sum(sizes) == len(text)
    assert max(sizes) <= 8


@pytest.mark.parametrize("depth", [100, 5000, 100_000])
def test_nested_arguments_do_not_overflow_the_stack(depth: int, templates: ChatTemplates):
    tools = [{"name": "f", "parameters": {"properties": {"x": {}}}}]
    plan = templates.prepare(USER, tools=tools, chat_template=QWEN.template)
    for text in ("[" * depth, "[" * depth + "]" * depth, '{"a":' * depth):
        message = plan.parse(f'<tool_call>\n{{"name": "f", "arguments": {{"x": {text}')
        assert bool(message.tool_calls) == (depth < 10_000)
