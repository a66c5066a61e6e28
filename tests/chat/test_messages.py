"""Messages, tools and choices: what is accepted, and what is refused in words that help."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel, Field

from cyllama import ChatTemplateError, CyllamaError, MessageError, PromptError, ToolError
from cyllama.chat import (
    ChatTemplates,
    Function,
    Message,
    ToolCall,
    check_messages,
    check_tool_choice,
    check_tools,
)

from ..support.families import GEMMA, MISTRAL, NO_TOOLS, TOOLS

USER = {"role": "user", "content": "Hi"}


def call(call_id: object = "1", name: str = "now", arguments: object = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": call_id, "type": "function", "function": function}]}


def result(call_id: str | None = "1", content: str = "12:00") -> dict[str, Any]:
    return {"role": "tool", "content": content} | ({} if call_id is None else {"tool_call_id": call_id})


# ------------------------------------------------------------------------------------------------------------- messages


def test_messages_are_dicts_or_objects(templates: ChatTemplates):
    dicts = [USER, call(), result(), {"role": "assistant", "content": "Noon."}, USER]
    objects = [Message.from_dict(message) for message in dicts]
    assert objects[1].tool_calls == [ToolCall(id="1", function=Function(name="now", arguments="{}"))]
    assert objects[1].tool_calls[0].type == "function"
    assert [Message.from_dict(message.to_dict()) for message in objects] == objects
    assert check_messages(objects) == check_messages(dicts)
    assert templates.render(objects) == templates.render(dicts)
    assert json.dumps([message.to_dict() for message in objects])


def test_an_answer_can_be_sent_back(templates: ChatTemplates):
    plan = templates.prepare([USER], tools=TOOLS)
    answer = plan.parse('Wait.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>')
    history = [USER, answer, {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "3"}]
    prompt = templates.render(history, tools=TOOLS)
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>' in prompt
    assert "<tool_response>\n3\n</tool_response>" in prompt
    assert templates.render([message if isinstance(message, dict) else message.to_dict() for message in history]) in (
        templates.render(history),
    )


def test_an_object_of_openais_package_is_a_message(templates: ChatTemplates):
    called = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    for message in ({"content": "Hello"}, {"content": None, "tool_calls": [called]}):
        answer = ChatCompletionMessage.model_validate({"role": "assistant", **message})
        assert check_messages([USER, answer]) == check_messages([USER, {"role": "assistant", **message}])


def test_content_may_come_in_parts_of_text(templates: ChatTemplates):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "a\nb" in templates.render([{"role": "user", "content": parts}])
    assert Message.from_dict({"role": "user", "content": parts}).content == "a\nb"
    assert templates.render([Message.from_dict({"role": "user", "content": parts})]) == templates.render(
        [{"role": "user", "content": parts}]
    )


def test_missing_ids_are_given_in_order(templates: ChatTemplates):
    checked = check_messages([USER, call(None), result(None), call(None), result(None)])
    assert [message["tool_calls"][0]["id"] for message in checked[1::2]] == ["call00001", "call00002"]
    assert [message["tool_call_id"] for message in checked[2::2]] == ["call00001", "call00002"]
    assert "call00001" in templates.render([USER, call(None), result(None)], chat_template=MISTRAL.template)


def test_arguments_may_be_objects():
    (checked,) = check_messages([call(arguments={"city": "São"})])
    assert checked["tool_calls"][0]["function"]["arguments"] == '{"city": "São"}'


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "there are no messages"),
        ("Hi", "expected a list of messages"),
        (5, "expected a list of messages"),
        (USER, "expected a list of messages"),
        (["Hi"], "message 0 has to be a dict"),
        ([{"content": "Hi"}], "unknown role None"),
        ([{"role": "wizard", "content": "Hi"}], "unknown role 'wizard'"),
        ([{"role": "function", "content": "Hi"}], "unknown role 'function'"),
        ([{"role": ["user"], "content": "Hi"}], "unknown role"),
        ([{"role": "user"}], "message 0 has no content"),
        ([{"role": "assistant", "content": None}], "message 0 has no content"),
        ([{"role": "user", "content": 5}], "is a str, not int"),
        ([{"role": "user", "content": b"Hi"}], "is a str, not bytes"),
        ([{"role": "user", "content": ["Hi"]}], "a part of type None"),
        ([{"role": "user", "content": [{"type": "input_audio"}]}], "only text and images can be read"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the image in part 0 of message 0 is missing"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "part 0 of message 0 has no address"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "text is not a str"),
        ([USER, result()], "message 1 is a tool's result, but no tool call"),
        ([USER, call("1"), result("2")], "result of the call '2'"),
        ([USER, call(), result(), result()], "no tool call before it waits"),
        ([{"role": "user", "content": "Hi", "tool_calls": call()["tool_calls"]}], "only an assistant"),
        ([{"role": "assistant", "tool_calls": 5}], "have to be a list, not int: 5"),
        ([{"role": "assistant", "tool_calls": [5]}], "has to be a dict, not int: 5"),
        ([{"role": "assistant", "tool_calls": [{}]}], "has no function"),
        ([{"role": "assistant", "tool_calls": [{"type": "code", "function": {}}]}], "there is only 'function'"),
        ([call(name="")], "has no name"),
        ([call(5)], "the id of"),
        ([call(arguments="{")], "are no JSON"),
        ([call(arguments="[1]")], "no JSON object"),
        ([call(arguments={1, 2})], "are no JSON"),
        ([call(arguments='{"a":' * 500 + "1" + "}" * 500)], "no JSON"),
        ([USER | {"name": 5}], "the 'name' of message 0 is a str"),
    ],
)
def test_what_is_no_chat_is_refused(messages: Any, match: str, templates: ChatTemplates):
    with pytest.raises(MessageError, match=match) as caught:
        templates.prepare(messages)
    assert isinstance(caught.value, ValueError)
    assert templates.render([USER])


def test_lone_surrogates_are_refused(templates: ChatTemplates):
    for messages in ([{"role": "user", "content": "\ud800"}], [call(arguments='{"a": "\ud800"}')]):
        with pytest.raises(PromptError, match="lone surrogate"):
            templates.render(messages)


def test_a_message_of_the_wrong_kind():
    with pytest.raises(MessageError, match="role"):
        Message(role="wizard", content="Hi")
    with pytest.raises(MessageError, match="colour"):
        Message(role="user", content="Hi", colour="red")


# ---------------------------------------------------------------------------------------------------------------- tools


class GetWeather(BaseModel):
    """Get the weather."""

    city: str = Field(description="A city")
    days: int = Field(default=1, ge=1, le=7)


def test_tools_are_dicts_or_models():
    openai, bare, model = check_tools([TOOLS[0], TOOLS[1]["function"], GetWeather])
    assert openai.to_dict() == TOOLS[0]
    assert bare.name == "add"
    assert (model.name, model.description) == ("GetWeather", "Get the weather.")
    assert model.parameters["required"] == ["city"]


@pytest.mark.parametrize(
    ("tools", "match"),
    [
        (5, "expected a list of tools"),
        ("get_weather", "expected a list"),
        ([5], "tool 0 has to be a dict"),
        ([{}], "the name of tool 0"),
        ([{"type": "code_interpreter", "function": {}}], "there is only 'function'"),
        ([{"type": "function", "function": 5}], "the function of tool 0"),
        ([{"name": "with space"}], "'with space'"),
        ([{"name": "x" * 200}], "1 to 128"),
        ([{"name": "f", "description": 5}], "description"),
        ([{"name": "f", "parameters": []}], "no JSON schema of an object"),
        ([{"name": "f", "parameters": {"type": "string"}}], "no JSON schema of an object"),
        ([{"name": "f"}, {"name": "f"}], "two tools have the name 'f'"),
        ([{"name": f"f{i}"} for i in range(500)], "at most 128"),
        ([{"name": "f", "parameters": {"properties": {"a": {"default": float("nan")}}}}], "as JSON"),
        ([{"name": "f", "description": "\ud800"}], "as JSON"),
        ([{"name": "f", "description": "x" * (17 * 2**20)}], "the limit"),
    ],
)
def test_what_is_no_tool_is_refused(tools: Any, match: str, templates: ChatTemplates):
    with pytest.raises(ToolError, match=match):
        templates.prepare([USER], tools=tools)


def test_parameters_that_no_grammar_can_say_are_no_reason_to_refuse_a_tool(
    templates: ChatTemplates, caplog: pytest.LogCaptureFixture
):
    tools = [{"name": "f", "parameters": {"properties": {"a/b": {"not": {"pattern": "x"}}, "c": 5}}}]
    for choice in ("auto", "required", "f"):
        plan = templates.prepare([USER], tools=tools, tool_choice=choice)
        assert plan.grammar is not None
        assert '"a/b\\"' in plan.grammar.text
    assert [record.getMessage() for record in caplog.records if "grammar" in record.name] == [
        "parameters of the tool 'f': the grammar does not enforce #/properties/c, #/properties/a~1b/not"
    ]


def test_the_same_name_may_mean_different_things_in_different_tools(templates: ChatTemplates):
    tools = [
        {
            "name": name,
            "parameters": {"properties": {"x": {"$ref": "#/$defs/x"}}, "required": ["x"], "$defs": {"x": schema}},
        }
        for name, schema in (("f", {"type": "integer", "minimum": 5, "maximum": 7}), ("g", {"enum": ["one", "two"]}))
    ]
    plan = templates.prepare([USER], tools=tools, tool_choice="required")
    assert plan.grammar is not None
    assert '( "one\\"" | "two\\"" )' in plan.grammar.text
    assert "[5-7]" in plan.grammar.text


def test_a_description_of_a_megabyte(templates: ChatTemplates):
    tools = [
        {"name": "f", "description": "x" * 2**20, "parameters": {"properties": {"a": {"description": "y" * 2**20}}}}
    ]
    for template in (None, NO_TOOLS.template):
        plan = templates.prepare([USER], tools=tools, chat_template=template)
        assert "x" * 2**20 in plan.prompt
        assert plan.grammar is not None
        assert len(plan.grammar.text) < 10_000


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        (None, "auto", None),
        ("auto", "auto", None),
        ("none", "none", None),
        ("required", "required", None),
        ("any", "required", None),
        ("add", "required", {"add"}),
        ({"type": "function", "function": {"name": "add"}}, "required", {"add"}),
        ({"type": "function", "name": "add"}, "required", {"add"}),
        ({"type": "tool", "name": "add"}, "required", {"add"}),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "add"}]}, "auto", {"add"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": ["add"]}}, "required", {"add"}),
        ({"type": "auto"}, "auto", None),
        ({"type": "any"}, "required", None),
    ],
)
def test_choices_of_tools(choice: Any, mode: str, names: set[str] | None):
    found = check_tool_choice(choice, check_tools(TOOLS))
    assert (found.mode, found.names) == (mode, names)


@pytest.mark.parametrize(
    "choice", ["nobody", 5, {}, {"type": "function"}, {"type": "function", "function": {"name": "x"}}]
)
def test_choices_that_make_no_sense_are_refused(choice: Any, templates: ChatTemplates):
    with pytest.raises(ToolError):
        templates.prepare([USER], tools=TOOLS, tool_choice=choice)


def test_choices_without_tools(templates: ChatTemplates):
    assert templates.prepare([USER], tool_choice="auto").grammar is None
    for choice in ("required", "any", "add"):
        with pytest.raises(ToolError):
            templates.prepare([USER], tool_choice=choice)


def test_the_choice_does_not_change_the_prompt(templates: ChatTemplates):
    prompts = {
        templates.prepare([USER], tools=TOOLS, tool_choice=choice).prompt
        for choice in (None, "auto", "none", "required", "add")
    }
    assert prompts == {templates.render([USER], tools=TOOLS)}


def test_templates_without_tools_are_told_in_words(templates: ChatTemplates):
    chat = [{"role": "system", "content": "Be brief."}, USER, call(), result(), result_answer(), USER]
    for family in (GEMMA, NO_TOOLS):
        prompt = templates.render(chat, tools=TOOLS, chat_template=family.template)
        assert prompt.index("Be brief.") < prompt.index('"name": "get_weather"') < prompt.index("Hi")
        assert '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>' in prompt
        assert "<tool_response>\n12:00\n</tool_response>" in prompt


def result_answer() -> dict[str, Any]:
    return {"role": "assistant", "content": "Noon."}


# ------------------------------------------------------------------------------------------------------------ templates


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("", "Jinja source"),
        (5, "Jinja source"),
        ("{{", "cannot be compiled"),
        ("{% if %}", "cannot be compiled"),
        ("{{ raise_exception('no users here') }}", "no users here"),
        ("{{ messages[0].content.nope() }}", "refuses these messages"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
        ("x" * (2**20 + 1), "the limit"),
        ("{% for i in range(1000000000000) %}{% endfor %}", "too much memory"),
        ("{{ range(9223372036854775807) }}", "too much memory"),
        ("{{ range(0, -9223372036854775807, -1) }}", "too much memory"),
        ("{{ range() }}", "range|argument|at least"),
    ],
)
def test_templates_that_fail(template: Any, match: str, templates: ChatTemplates):
    with pytest.raises(ChatTemplateError, match=match) as caught:
        templates.render([USER], chat_template=template)
    assert isinstance(caught.value, CyllamaError)
    assert templates.render([USER])


@pytest.mark.slow
def test_a_template_that_does_not_end_is_ended(templates: ChatTemplates):
    loops = "{% for a in range(10000) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(ChatTemplateError, match="does not come to an end"):
        templates.render([USER], chat_template=loops)
