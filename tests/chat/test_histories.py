"""Past calls in a prompt: ids of other providers, results in any order, text beside a call, several calls at once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from cyllama.chat import ChatTemplates
from cyllama.errors import ChatTemplateError

from ..support.families import FAMILIES, TOOLS
from ..support.native_templates import OLD_GEMMA4

USER = {"role": "user", "content": "Hi"}


def call(call_id: str, name: str = "now", **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def asked(*calls: dict[str, Any], content: str = "", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def result(call_id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def render(templates: ChatTemplates, name: str, *messages: dict[str, Any]) -> str:
    return templates.render([USER, *messages], tools=TOOLS, chat_template=FAMILIES[name].template)


@pytest.mark.parametrize("call_id", ["call_0fypKg8dX1cEzQ2Rb5nTqWvY", "toolu_01A09q90qw90lq917835lq9", "x", "日本"])
def test_ids_of_other_providers_become_what_mistral_takes(call_id: str, templates: ChatTemplates):
    prompt = render(templates, "mistral", asked(call(call_id)), result(call_id, '"noon"'))
    called = re.findall(r'"id": "(\w*)"', prompt)
    answered = re.findall(r'"call_id": "(\w*)"', prompt)
    assert called == answered
    assert re.fullmatch("[a-zA-Z0-9]{9}", called[0])
    longer = render(templates, "mistral", asked(call(call_id)), result(call_id, '"noon"'), asked(call("other")))
    assert re.findall(r'"id": "(\w*)"', longer)[0] == called[0]


def test_ids_that_a_template_takes_stay_as_they_are(templates: ChatTemplates):
    assert '"id": "abcdef123"' in render(templates, "mistral", asked(call("abcdef123")), result("abcdef123", "1"))
    assert '"toolu_01A"' in render(templates, "command-r", asked(call("toolu_01A")), result("toolu_01A", "1"))


def test_calls_of_one_answer_that_share_an_id_get_different_ones(templates: ChatTemplates):
    history = [asked(call("same"), call("same", "add", a=1, b=2)), result("same", '"noon"'), result("same", "3")]
    prompt = render(templates, "mistral", *history)
    called = re.findall(r'"id": "(\w*)"', prompt)
    assert len(set(called)) == 2
    assert re.findall(r'"content": (.*?), "call_id": "(\w*)"', prompt) == [('"noon"', called[0]), ("3", called[1])]


KIMI_K2 = """\
{%- for message in messages -%}
    {{- '<|im_' + message.role + '|>' + message.role + '<|im_middle|>' -}}
    {%- if message.content -%}{{- message.content -}}{%- endif -%}
    {%- if message.tool_calls -%}
        {{- '<|tool_calls_section_begin|>' -}}
        {%- for call in message.tool_calls -%}
            {{- '<|tool_call_begin|>' + call.id + '<|tool_call_argument_begin|>' -}}
            {{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
            {{- '<|tool_call_end|>' -}}
        {%- endfor -%}
        {{- '<|tool_calls_section_end|>' -}}
    {%- elif message.role == 'tool' -%}
        {{- '## Return of ' + message.tool_call_id -}}
    {%- endif -%}
    {{- '<|im_end|>' -}}
{%- endfor -%}
{%- if tools -%}{{- tools | tojson -}}{%- endif -%}
{%- if add_generation_prompt -%}{{- '<|im_assistant|>assistant<|im_middle|>' -}}{%- endif -%}
"""


def test_a_template_that_reads_names_from_ids_gets_ids_with_names(templates: ChatTemplates):
    history = [asked(call("call_1"), call("functions.add:1", "add", a=1, b=2)), result("functions.add:1", "3")]
    prompt = templates.render([USER, *history], tools=TOOLS, chat_template=KIMI_K2)
    assert "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>" in prompt
    assert "<|tool_call_begin|>functions.add:1<|tool_call_argument_begin|>" in prompt
    assert "## Return of functions.add:1" in prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_results_stand_in_the_order_of_the_calls(name: str, templates: ChatTemplates):
    calls = asked(call("callA0000"), call("callB0000", "add", a=1, b=2))
    in_order = render(templates, name, calls, result("callA0000", "noon"), result("callB0000", "three"))
    reversed_ = render(templates, name, calls, result("callB0000", "three"), result("callA0000", "noon"))
    assert in_order == reversed_
    assert in_order.index("noon") < in_order.index("three")


@pytest.mark.parametrize("name", FAMILIES)
def test_text_beside_a_call_and_every_call_are_kept(name: str, templates: ChatTemplates):
    calls = asked(call("callA0000", "add", a=7171, b=2), call("callB0000", "add", a=8282, b=3), content="Let me see.")
    prompt = render(templates, name, calls, result("callA0000", "one"), result("callB0000", "two"))
    for text in ("Let me see.", "7171", "8282", "one", "two"):
        assert text in prompt


def test_text_beside_a_call_and_results_in_order_where_llama_cpp_joins_messages(templates: ChatTemplates):
    history = [
        asked(call("callA0000"), call("callB0000", "add", a=1, b=2), content="Let me see."),
        result("callB0000", "three"),
        result("callA0000", "noon"),
    ]
    prompt = templates.render([USER, *history], tools=TOOLS, chat_template=OLD_GEMMA4)
    assert "<|turn>model\nLet me see.<turn|>\n" in prompt
    assert 'response:now{value:<|"|>noon<|"|>}' in prompt
    assert 'response:add{value:<|"|>three<|"|>}' in prompt


DEVSTRAL = """\
{%- for message in messages -%}
    {%- if message.role == 'assistant' and message.content is not string -%}
        {{- message.content[0].text -}}
    {%- elif message.role == 'assistant' and message.reasoning_content -%}
        {{- '<think>' + message.reasoning_content + '</think>' -}}
    {%- else -%}
        {{- '[INST]' + message.content + '[/INST]' if message.role == 'user' else message.content -}}
    {%- endif -%}
{%- endfor -%}
"""


def test_text_beside_reasoning_is_kept(templates: ChatTemplates):
    message = {"role": "assistant", "content": "It is 4.", "reasoning_content": "2 and 2"}
    prompt = templates.render([USER, message, USER], chat_template=DEVSTRAL)
    assert prompt.endswith("[INST]Hi[/INST]It is 4.[INST]Hi[/INST]")


def test_a_refused_history_says_why(templates: ChatTemplates):
    template = "{%- if messages[0].content == 'Hi' -%}{{ raise_exception('Say more than that.') }}{%- endif -%}"
    with pytest.raises(ChatTemplateError, match=r"refuses these messages: Say more than that\.$"):
        templates.render([USER], chat_template=template)
