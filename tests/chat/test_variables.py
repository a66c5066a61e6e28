"""What a chat template is told besides messages: variables of its own, whether to reason, and how hard."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama import LLM, ConfigError, ConfigTypeError, CyllamaError, PromptError
from cyllama.chat import REASONING_EFFORTS, ChatTemplates, check_variables

from ..support.families import FAMILIES, TOOLS

USER = {"role": "user", "content": "Hi"}
SHOWN = (
    "{{ enable_thinking | tojson }} {{ reasoning_effort | default('-') }} "
    "{{ style | tojson if style is defined else '-' }}"
)
STYLE = {"tone": ["calm", 1, 2.5, True]}


def shown(templates: ChatTemplates, **options: Any) -> str:
    return templates.render([USER], chat_template=SHOWN, **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "true - -"),
        ({"enable_thinking": False}, "false - -"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "false - -"),
        ({"reasoning_effort": "none"}, "false - -"),
        ({"reasoning_effort": "high"}, "true high -"),
        ({"reasoning_effort": "low", "enable_thinking": False}, "false low -"),
        ({"chat_template_kwargs": {"reasoning_effort": "maximal"}}, "true maximal -"),
        ({"chat_template_kwargs": {"style": None}}, "true - null"),
        ({"chat_template_kwargs": {"style": STYLE}}, f"true - {json.dumps(STYLE)}"),
    ],
)
def test_a_template_is_told(options: dict[str, Any], text: str, templates: ChatTemplates):
    assert shown(templates, **options) == text
    assert templates.prepare([USER], chat_template=SHOWN, **options).prompt == text


@pytest.mark.parametrize("effort", REASONING_EFFORTS)
def test_a_family_with_levels_of_reasoning_is_told_the_level(effort: str, templates: ChatTemplates):
    template = FAMILIES["gpt-oss"].template
    prompt = templates.render([USER], chat_template=template, reasoning_effort=effort)
    assert f"Reasoning: {'medium' if effort == 'none' else effort}\n" in prompt
    plan = templates.prepare([USER], chat_template=template, reasoning_effort=effort, tools=TOOLS)
    assert plan.grammar is not None


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"chat_template_kwargs": [1]}, ConfigTypeError, "is a dict, not list"),
        ({"chat_template_kwargs": {1: 2}}, ConfigTypeError, "the name of a variable is a str, not 1"),
        ({"chat_template_kwargs": {"messages": []}}, ConfigError, "first argument"),
        ({"chat_template_kwargs": {"tools": []}}, ConfigError, "tools="),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, ConfigError, "continue_final_message"),
        ({"chat_template_kwargs": {"bos_token": ""}}, ConfigError, "own token"),
        ({"chat_template_kwargs": {"style": {1}}}, ConfigTypeError, "'style' is not JSON"),
        ({"chat_template_kwargs": {"style": float("nan")}}, ConfigTypeError, "'style' is not JSON"),
        ({"chat_template_kwargs": {"style": "\ud800"}}, PromptError, "lone surrogate"),
        ({"chat_template_kwargs": {"\ud800": 1}}, PromptError, "lone surrogate"),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, ConfigTypeError, "is a bool"),
        ({"enable_thinking": "no"}, ConfigTypeError, "enable_thinking is a bool, not 'no'"),
        ({"reasoning_effort": 3}, ConfigTypeError, "is a str, not int"),
        ({"reasoning_effort": "hihg"}, ConfigError, "none, minimal, low, medium, high, xhigh, not 'hihg'"),
        ({"reasoning_effort": "none", "enable_thinking": True}, ConfigError, "contradicts"),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}}, ConfigError, "contradicts"),
        ({"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}}, ConfigError, "contradicts"),
    ],
)
def test_what_cannot_be_told_is_refused(
    options: dict[str, Any], error: type[CyllamaError], match: str, templates: ChatTemplates
):
    for use in (templates.render, templates.prepare):
        with pytest.raises(error, match=match):
            use([USER], **options)
    assert templates.render([USER])


def test_values_nested_too_deep_are_refused_and_the_templates_stay_usable(templates: ChatTemplates):
    deep: Any = "x"
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(CyllamaError):
        templates.render([USER], chat_template_kwargs={"style": deep})
    assert templates.render([USER])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=50, deadline=None)
def test_values_of_json_arrive_as_they_are(value: Any):
    [(name, text)] = check_variables({"style": value}).others.items()
    assert (name, json.loads(text)) == ("style", value)


def test_every_way_to_chat_takes_them(llm: LLM):
    template = "{{ messages[0].content }} {{ style }} {{ reasoning_effort }}:"
    options: dict[str, Any] = {
        "chat_template": template,
        "chat_template_kwargs": {"style": "kind"},
        "reasoning_effort": "low",
        "max_tokens": 2,
    }
    prompt = llm.render([USER], **{name: value for name, value in options.items() if name != "max_tokens"})
    assert prompt == "Hi kind low:"

    async def on_a_loop() -> list[int]:
        answers = [await llm.achat([USER], **options), await llm.session().achat([USER], **options)]
        answers.append(await llm.astream_chat([USER], **options).read())
        return [answer.usage.prompt_tokens for answer in answers]

    counts = asyncio.run(on_a_loop())
    chats = (llm.chat, llm.session().chat)
    counts += [chat([USER], **options).usage.prompt_tokens for chat in chats]
    counts += [chat([USER], stream=True, **options).read().usage.prompt_tokens for chat in chats]
    assert counts == [llm.count_tokens(prompt)] * 7


@pytest.mark.parametrize(
    ("name", "hint"), [("chat_template_kwarg", "chat_template_kwargs"), ("reasoning_efort", "reasoning_effort")]
)
def test_an_unknown_name_is_refused_with_the_nearest(llm: LLM, name: str, hint: str):
    for use in (llm.chat, llm.session().chat, llm.astream_chat):
        with pytest.raises(ConfigTypeError, match=f"has no option '{name}': did you mean '{hint}'"):
            use([USER], **{name: None})  # pyright: ignore[reportCallIssue, reportArgumentType]
