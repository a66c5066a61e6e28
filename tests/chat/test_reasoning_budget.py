"""How long a model may reason: after so many tokens the end of its reasoning is forced, and it answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from cyllama import LLM, ConfigError, ConfigTypeError, CyllamaError
from cyllama.chat import ChatTemplates, add_up
from cyllama.llama.llama_cpp import LlamaModel
from langchain_cyllama import ChatCyllama

from ..support.families import FAMILIES, TOOLS
from ..support.writing import Writer

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
#: The template of a model that always reasons first, told so by the prompt. The embedded one never ends by itself.
THINKING = FAMILIES["qwen"].template.replace(
    "</think>\\n\\n' }}\n    {%- endif %}", "</think>\\n\\n' }}\n    {%- else %}{{ '<think>\\n' }}{%- endif %}"
)
REASONS = {"qwen": "<think>\n", "command-r": "<|START_THINKING|>", "gpt-oss": "<|channel|>analysis<|message|>"}
ENDS = {"qwen": "</think>", "command-r": "<|END_THINKING|>", "gpt-oss": "<|end|>"}
ANSWERS = {
    "qwen": "\n\nYes.",
    "command-r": "<|START_RESPONSE|>Yes.<|END_RESPONSE|>",
    "gpt-oss": "<|start|>assistant<|channel|>final<|message|>Yes.",
}


class City(BaseModel):
    name: str


def test_a_model_that_would_reason_on_answers(llm: LLM):
    options: dict[str, Any] = {"chat_template": THINKING, "max_tokens": 40, "ignore_eos": True}
    unlimited = llm.chat(CAPITAL, **options).message
    assert (unlimited.content, bool(unlimited.reasoning_content)) == ("", True)
    for n in (1, 3, 6):
        answer = llm.chat(CAPITAL, reasoning_budget=n, **options)
        assert unlimited.reasoning_content.startswith(answer.message.reasoning_content)
        assert 0 < llm.count_tokens(answer.message.reasoning_content) <= n
        assert answer.text.strip()
    for unlimited_again in (-1, None):
        assert llm.chat(CAPITAL, reasoning_budget=unlimited_again, **options).message == unlimited


def test_no_budget_is_no_reasoning(llm: LLM):
    answer = llm.chat(CAPITAL, chat_template=THINKING, max_tokens=40, reasoning_budget=0)
    assert answer.message.reasoning_content == ""
    assert answer.text == llm.chat(CAPITAL, chat_template=THINKING, max_tokens=40, enable_thinking=False).text
    # A template that cannot be told: the prompt opens the reasoning, and it is ended at once.
    opened = THINKING.replace("enable_thinking is false", "false")
    answer = llm.chat(CAPITAL, chat_template=opened, max_tokens=40, reasoning_budget=0, ignore_eos=True)
    assert answer.message.reasoning_content.strip() == ""
    assert answer.text.strip()


def test_streams_sessions_and_event_loops_have_it_too(llm: LLM):
    options: dict[str, Any] = {"chat_template": THINKING, "max_tokens": 30, "reasoning_budget": 4}
    message = llm.chat(CAPITAL, **options).message
    with llm.chat(CAPITAL, stream=True, **options) as stream:
        deltas = list(stream)
    assert add_up(deltas) == message
    assert any(delta.reasoning_content for delta in deltas)
    assert llm.session("ada").chat(CAPITAL, **options).message == message
    assert asyncio.run(llm.achat(CAPITAL, **options)).message == message


def test_a_structured_answer_follows_the_reasoning(llm: LLM):
    answer = llm.chat(CAPITAL, chat_template=THINKING, response_format=City, reasoning_budget=5, max_tokens=60)
    assert answer.message.reasoning_content
    if answer.finish_reason == "stop":
        assert isinstance(answer.parsed, City)
    assert answer.text.lstrip().startswith("{")


def test_a_call_follows_the_reasoning(llm: LLM):
    options: dict[str, Any] = {"chat_template": THINKING, "tools": TOOLS, "max_tokens": 80}
    answer = llm.chat(CAPITAL, tool_choice="add", reasoning_budget=5, **options)
    assert [call.function.name for call in answer.message.tool_calls] == ["add"]
    assert json.loads(answer.message.tool_calls[0].function.arguments).keys() == {"a", "b"}


@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("name", REASONS)
def test_every_format_of_reasoning_is_ended(
    name: str, offered: bool, templates: ChatTemplates, random_model: LlamaModel, write_randomly: Writer
):
    n = 7
    plan = templates.prepare(
        CAPITAL, chat_template=FAMILIES[name].template, reasoning_budget=n, tools=TOOLS if offered else None
    )
    assert plan.reasoning is not None
    assert (plan.reasoning.tokens, plan.reasoning.inside) == (n, False)
    for seed in range(3):
        text, _ = write_randomly(plan, begin=REASONS[name], seed=seed, max_tokens=40)
        thought, end, _ = text.partition(ENDS[name])
        assert end, text
        assert len(random_model.vocab.tokenize(thought, add_special=False, parse_special=True)) <= 2 * n
        message = plan.parse(f"{REASONS[name]}{thought}{end}{ANSWERS[name]}")
        assert (message.reasoning_content.strip(), message.content) == (thought.strip(), "Yes.")


def test_a_format_without_reasoning_has_no_budget(llm: LLM, templates: ChatTemplates):
    for name in ("llama3", "mistral", "gemma"):
        plan = templates.prepare(CAPITAL, chat_template=FAMILIES[name].template, reasoning_budget=5)
        assert plan.reasoning is None
    assert llm.chat(CAPITAL, reasoning_budget=5).text == llm.chat(CAPITAL).text
    grammar = llm.chat(CAPITAL, chat_template=THINKING, grammar='root ::= "yes"', reasoning_budget=5)
    assert grammar.text == "yes"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"reasoning_budget": -2}, ConfigError, "-1 for any number, not -2"),
        ({"reasoning_budget": 2**31}, ConfigError, "2147483647 tokens"),
        ({"reasoning_budget": 1.5}, ConfigTypeError, "is a number of tokens, not float"),
        ({"reasoning_budget": True}, ConfigTypeError, "not bool"),
        ({"reasoning_budget": 0, "enable_thinking": True}, ConfigError, "contradicts enable_thinking=True"),
        ({"reasoning_bugdet": 1}, ConfigTypeError, "did you mean 'reasoning_budget'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[CyllamaError], match: str, llm: LLM):
    with pytest.raises(error, match=match):
        llm.chat(CAPITAL, **options)
    assert llm.chat(CAPITAL).text


def test_langchain_has_it_by_object_and_by_call(llm: LLM):
    arguments: dict[str, Any] = {"llm": llm, "chat_template": THINKING, "max_tokens": 40}
    limited = ChatCyllama(**arguments, reasoning_budget=4)
    expected = llm.chat(CAPITAL, chat_template=THINKING, max_tokens=40, reasoning_budget=4).message
    plain = ChatCyllama(**arguments)
    for answer in (
        limited.invoke("What is the capital of France?"),
        plain.bind(reasoning_budget=4).invoke("What is the capital of France?"),
        plain.invoke("What is the capital of France?", reasoning_budget=4),
    ):
        assert answer.text == expected.content
        assert answer.additional_kwargs["reasoning_content"] == expected.reasoning_content
    off = ChatCyllama(**arguments, reasoning_budget=0)
    assert off.invoke("Hi").additional_kwargs == {}
    assert off.invoke("Hi", enable_thinking=True).additional_kwargs["reasoning_content"]
