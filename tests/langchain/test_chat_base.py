"""Options of chat models: reasoning, variables of templates, and another model for one call."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cyllama import LLM, ConfigTypeError, ModelNotFoundError
from cyllama.errors import ConfigError
from langchain_cyllama import ChatCyllama

from ..support.chats import (
    CAPITAL,
    PARIS,
    add_up,
)
from ..support.families import QWEN

# A template of models that think first, and all the time: the embedded one never says that it has thought enough.
THINKING = QWEN.template.replace(
    "</think>\\n\\n' }}\n    {%- endif %}", "</think>\\n\\n' }}\n    {%- else %}{{ '<think>\\n' }}{%- endif %}"
)


def test_reasoning_is_apart_from_the_answer(llm: LLM) -> None:
    chat = ChatCyllama(llm=llm, chat_template=THINKING, max_tokens=40)
    for answer in (chat.invoke(CAPITAL), add_up(chat.stream(CAPITAL))):
        assert (answer.text, answer.additional_kwargs) == ("", {"reasoning_content": PARIS})
        assert [block["type"] for block in answer.content_blocks] == ["reasoning"]
    blocks = add_up(ChatCyllama(llm=llm, chat_template=THINKING, max_tokens=40, output_version="v1").stream(CAPITAL))
    assert [(block["type"], block["reasoning"]) for block in cast("list[Any]", blocks.content)] == [
        ("reasoning", PARIS)
    ]


@pytest.mark.parametrize("option", ["reasoning", "enable_thinking"])
def test_reasoning_can_be_turned_off(llm: LLM, option: str) -> None:
    arguments: dict[str, Any] = {"llm": llm, "chat_template": THINKING, "max_tokens": 40}
    bound = ChatCyllama(**arguments).bind(**dict.fromkeys([option], False))
    arguments[option] = False
    for thoughtless in (bound, ChatCyllama(**arguments)):
        answer = thoughtless.invoke(CAPITAL)
        assert answer.text
        assert answer.additional_kwargs == {}


TOLD = "{{ enable_thinking | tojson }} {{ reasoning_effort | default('-') }} {{ style | default('-') }} {{ a }}:"


@pytest.mark.parametrize(
    ("own", "call", "told"),
    [
        ({}, {}, "true - - :"),
        ({"reasoning_effort": "low"}, {}, "true low - :"),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "high"}, "true high - :"),
        ({"reasoning_effort": "none"}, {"enable_thinking": True}, "true - - :"),
        ({"enable_thinking": True}, {"reasoning": "none"}, "false - - :"),
        ({"chat_template_kwargs": {"style": "kind", "a": 1}}, {}, "true - kind 1:"),
        ({"chat_template_kwargs": {"style": "kind", "a": 1}}, {"chat_template_kwargs": {"a": 2}}, "true - kind 2:"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": True}, "true - - :"),
        ({"chat_template_kwargs": {"reasoning_effort": "max"}}, {"reasoning_effort": "low"}, "true low - :"),
        ({"model_kwargs": {"reasoning_effort": "low"}}, {"options": {"reasoning_effort": "high"}}, "true high - :"),
    ],
)
def test_the_template_gets_the_options_of_the_object_and_of_the_call(
    llm: LLM, own: dict[str, Any], call: dict[str, Any], told: str
) -> None:
    chat = ChatCyllama(llm=llm, chat_template=TOLD, max_tokens=2, **own)
    expected = llm.count_tokens(told)
    for answer in (chat.invoke("Hi", **call), chat.bind(**call).invoke("Hi"), asyncio.run(chat.ainvoke("Hi", **call))):
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_tokens"] == expected


@pytest.mark.parametrize("argument", ["chat_template_kwarg", "reasoning_efort"])
def test_an_unknown_name_is_refused_wherever_it_is_given(llm: LLM, argument: str) -> None:
    with pytest.raises(ConfigTypeError, match=f"{argument}.*did you mean"):
        ChatCyllama(llm=llm, **cast("dict[str, Any]", {argument: "low"}))
    with pytest.raises(ConfigTypeError, match=f"{argument}.*did you mean"):
        ChatCyllama(llm=llm).bind(**{argument: "low"}).invoke("Hi")


def test_another_model_can_answer_one_call(llm: LLM, tmp_path: Any) -> None:
    missing = str(tmp_path / "missing.gguf")
    with ChatCyllama(temperature=0) as chat:
        with pytest.raises(ModelNotFoundError, match=r"missing\.gguf"):
            chat.invoke("Hello", model=missing)
        assert chat.invoke(CAPITAL, model=chat.client.model_path).text == PARIS
    with pytest.raises(ConfigError, match="was given an llm"):
        ChatCyllama(llm=llm).invoke("Hello", model=missing)
