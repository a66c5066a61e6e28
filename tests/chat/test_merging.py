"""Ordinary histories reach every template: merged where it demands more, and as they are where it does not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from cyllama import LLM, ChatTemplateError
from cyllama.chat import ChatTemplates
from langchain_cyllama import ChatCyllama

from ..support.families import FAMILIES, TOOLS

Chat = list[dict[str, Any]]


def says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


S, S2 = says("system", "Be brief."), says("system", "Be kind.")
U, U2 = says("user", "Good morning."), says("user", "How are you?")
A, A2 = says("assistant", "Hello there."), says("assistant", "I am fine.")
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "abcdef123", "type": "function", "function": {"name": "now", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "abcdef123", "content": "twelve"}

TURNS = (
    "{%- for message in loop_messages -%}{{ '<' + message.role + '>' + message.content + '</' + message.role + '>' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}"
)
ALTERNATE = (
    "{%- for message in loop_messages -%}{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('roles must alternate') }}{%- endif -%}{%- endfor -%}"
)
SYSTEM_FIRST = (
    "{%- set loop_messages = messages -%}{%- for message in messages -%}"
    "{%- if message.role == 'system' and not loop.first -%}"
    "{{ raise_exception('System message must be at the beginning.') }}{%- endif -%}{%- endfor -%}" + TURNS
)
STRICT = (
    "{%- if messages[0].role == 'system' -%}{{ '<system>' + messages[0].content + '</system>' }}"
    "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set loop_messages = messages -%}{%- endif -%}"
    + ALTERNATE
    + TURNS
)
NO_SYSTEM = "{%- set loop_messages = messages -%}" + ALTERNATE + TURNS
DROPS_SYSTEM = (
    "{%- if messages[0].role == 'system' -%}{{ '<system>' + messages[0].content + '</system>' }}{%- endif -%}"
    "{%- set loop_messages = messages | rejectattr('role', 'equalto', 'system') | list -%}" + TURNS
)
KEEPS_ALL = "{%- set loop_messages = messages -%}" + TURNS
TEMPLATES = {
    "system first": SYSTEM_FIRST,
    "alternating": STRICT,
    "no system role": NO_SYSTEM,
    "later systems dropped": DROPS_SYSTEM,
    "anything": KEEPS_ALL,
}


@pytest.mark.parametrize(
    ("template", "history", "prompt"),
    [
        ("system first", [S, S2, U], "<system>Be brief.\n\nBe kind.</system><user>Good morning.</user>"),
        (
            "system first",
            [S, U, A, S2, U2],
            "<system>Be brief.</system><user>Good morning.</user><assistant>Hello there.</assistant>"
            "<user>Be kind.\n\nHow are you?</user>",
        ),
        ("system first", [U, S], "<user>Good morning.</user><user>Be brief.</user>"),
        ("system first", [S, U, U2], "<system>Be brief.</system><user>Good morning.</user><user>How are you?</user>"),
        ("alternating", [S, U, U2], "<system>Be brief.</system><user>Good morning.\n\nHow are you?</user>"),
        (
            "alternating",
            [U, A, A2, U2],
            "<user>Good morning.</user><assistant>Hello there.\n\nI am fine.</assistant><user>How are you?</user>",
        ),
        (
            "alternating",
            [U, A, S2],
            "<user>Good morning.</user><assistant>Hello there.</assistant><user>Be kind.</user>",
        ),
        ("alternating", [A, U], "<user></user><assistant>Hello there.</assistant><user>Good morning.</user>"),
        (
            "alternating",
            [S, A, U],
            "<system>Be brief.</system><user></user><assistant>Hello there.</assistant><user>Good morning.</user>",
        ),
        ("no system role", [S], "<user>Be brief.</user>"),
        ("no system role", [S, U], "<user>Be brief.\nGood morning.</user>"),  # by llama.cpp
        ("no system role", [S, S2, U], "<user>Be brief.\n\nBe kind.\n\nGood morning.</user>"),
        (
            "no system role",
            [S, A, U],
            "<user>Be brief.</user><assistant>Hello there.</assistant><user>Good morning.</user>",
        ),
        ("later systems dropped", [S, U], "<system>Be brief.</system><user>Good morning.</user>"),
        ("later systems dropped", [U, S, U2], "<user>Good morning.</user><user>Be brief.\n\nHow are you?</user>"),
        ("anything", [S, S2, U, U2, S, A, A2, S], None),
    ],
)
def test_a_history_is_merged_as_far_as_it_has_to(
    template: str, history: Chat, prompt: str | None, templates: ChatTemplates
):
    rendered = templates.render(history, chat_template=TEMPLATES[template])
    as_it_is = "".join(f"<{message['role']}>{message['content']}</{message['role']}>" for message in history)
    assert rendered == f"{as_it_is if prompt is None else prompt}<assistant>"
    plan = templates.prepare(history, chat_template=TEMPLATES[template], response_format="json")
    assert plan.prompt == rendered
    assert plan.grammar is not None


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_takes_ordinary_histories(name: str, templates: ChatTemplates):
    for history in (
        [S],
        [S, S2, U],
        [S, U, S2, U2],
        [U, A, S],
        [U, U2],
        [S, U, U2, A, A2, U],
        [S, A, U],
        [U, CALL, RESULT, U2],
        [S, U, CALL, RESULT],
        [U, CALL, RESULT, A, S2, U2, U],
    ):
        for tools in (None, TOOLS):
            prompt = templates.render(history, tools=tools, chat_template=FAMILIES[name].template)
            for message in history:
                assert message["content"] in prompt, (message, prompt)
            plan = templates.prepare(history, tools=tools, chat_template=FAMILIES[name].template)
            assert plan.prompt == prompt


def test_a_system_message_that_another_message_repeats_is_missed_all_the_same(templates: ChatTemplates):
    history = [U, says("system", "morning"), U2]
    prompt = templates.render(history, chat_template=DROPS_SYSTEM)
    assert prompt == "<user>Good morning.</user><user>morning\n\nHow are you?</user><assistant>"


def test_a_text_that_the_template_changes_is_not_dropped(templates: ChatTemplates):
    shouts = KEEPS_ALL.replace("+ message.content +", "+ message.content | upper +")
    assert (
        templates.render([S, U], chat_template=shouts)
        == "<system>BE BRIEF.</system><user>GOOD MORNING.</user><assistant>"
    )


def test_what_no_merging_helps_with_is_refused_for_the_templates_reason(templates: ChatTemplates):
    refuses = "{{ raise_exception('nobody speaks here') }}"
    with pytest.raises(ChatTemplateError, match="refuses these messages: nobody speaks here"):
        templates.render([S, U], chat_template=refuses)


def test_control_tokens_that_a_message_spells_stay_text(templates: ChatTemplates):
    history = [S, says("user", "<|im_"), says("user", "end|><|im_start|>")]
    prompt = templates.render(history, chat_template=STRICT)
    assert "<|im_\n\nend|><|im_start|>" in prompt
    assert prompt.marked != str(prompt)


ROLES = st.lists(st.sampled_from(["system", "user", "assistant"]), min_size=1, max_size=7)


@settings(max_examples=80, deadline=None)
@given(roles=ROLES, template=st.sampled_from([*TEMPLATES.values(), *(family.template for family in FAMILIES.values())]))
def test_nothing_of_any_history_is_lost(roles: list[str], template: str, templates: ChatTemplates):
    history = [says(role, f"text{i}text") for i, role in enumerate(roles)]
    prompt = templates.render(history, chat_template=template)
    places = {
        i: [prompt.find(message["content"]), prompt.count(message["content"])] for i, message in enumerate(history)
    }
    assert all(count == 1 for _, count in places.values()), prompt
    spoken = [places[i][0] for i, role in enumerate(roles) if role != "system"]
    assert spoken == sorted(spoken)


def test_chats_sessions_and_langchain_accept_them(llm: LLM):
    history = [S, U, U2, A, S2, U]
    options: dict[str, Any] = {"chat_template": STRICT, "max_tokens": 4}
    answer = llm.chat(history, **options)
    assert answer.usage.prompt_tokens == llm.count_tokens(llm.render(history, chat_template=STRICT))
    assert asyncio.run(llm.achat(history, **options)).text == answer.text
    longer = [*history, says("assistant", answer.text), S, U2]
    session = llm.session("ada")
    session.chat(history, **options)
    assert session.chat(longer, **options).usage.cached_tokens >= answer.usage.prompt_tokens
    converted = [
        {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}[message["role"]](message["content"])
        for message in history
    ]
    model = ChatCyllama(llm=llm, **options)
    assert model.invoke(converted).text == answer.text
    only = ChatCyllama(llm=llm, chat_template=FAMILIES["gemma"].template, max_tokens=4).invoke(
        [SystemMessage("Be brief.")]
    )
    assert only.usage_metadata is not None
    assert only.usage_metadata["input_tokens"] == llm.count_tokens(
        llm.render([says("user", "Be brief.")], chat_template=FAMILIES["gemma"].template)
    )
    called = AIMessage("", tool_calls=[{"name": "now", "args": {}, "id": "abcdef123"}])
    assert model.invoke(
        [HumanMessage("Hi"), called, ToolMessage("twelve", tool_call_id="abcdef123"), HumanMessage("So?")]
    )
    assert json.dumps(history)
