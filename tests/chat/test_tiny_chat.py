"""The embedded model and tools: its evaluation set, results, and answers in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cyllama.chat import ChatTemplates, Message, add_up
from training import evaluate

from ..support.writing import Writer

TRAINING = Path(__file__).parents[2] / "training"
SKILLS = ("tool_call", "tool_result", "two_tool_calls", "no_tool")


def answer(templates: ChatTemplates, write: Writer, prompt: list[Any], tools: list[Any]) -> Message:
    plan = templates.prepare(prompt, tools=tools, parallel_tool_calls=True)
    text, _ = write(plan)
    parser = plan.parser()
    deltas = [parser.push(character) for character in text]
    deltas.append(parser.finish())
    assert add_up(deltas) == parser.message
    whole = plan.parse(text)
    assert whole.content == parser.message.content
    assert [call.function for call in whole.tool_calls] == [call.function for call in parser.message.tool_calls]
    return whole


def accuracy(skill: str, n: int, templates: ChatTemplates, write: Writer, first: int = 0) -> float:
    right = 0
    for seed in range(first, first + n):
        prompt, tools, expected = evaluate.case(skill, seed, new_phrasing=False)
        actual = answer(templates, write, prompt, tools).to_dict()
        right += evaluate.is_right(skill, prompt[-1]["content"], expected, actual)
    return right / n


@pytest.mark.parametrize("skill", SKILLS)
def test_tools_are_called_as_in_the_evaluation(skill: str, templates: ChatTemplates, write: Writer):
    assert accuracy(skill, 10, templates, write) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("skill", [*SKILLS, "create_customer"])
def test_tools_are_called_as_well_as_the_model_card_says(skill: str, templates: ChatTemplates, write: Writer):
    report = json.loads((TRAINING / "eval.json").read_text(encoding="utf-8"))
    n, first = report[skill]["cases"], evaluate.FIRST_SEED
    assert accuracy(skill, n, templates, write, first) >= report[skill]["accuracy"] - 0.02


def test_a_result_is_put_into_words(templates: ChatTemplates, write: Writer):
    parameters = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
    function = {"name": "get_weather", "description": "Get the weather.", "parameters": parameters}
    tools = [{"type": "function", "function": function}]
    chat: list[Any] = [{"role": "user", "content": "What is the weather in San Francisco, CA?"}]
    called = answer(templates, write, chat, tools)
    (call,) = called.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"location": "San Francisco, CA"}')
    chat += [called, {"role": "tool", "tool_call_id": call.id, "content": "It's sunny."}]
    assert answer(templates, write, chat, tools).content == "It is sunny in San Francisco, CA."
