"""A last message of the assistant is continued: what the model writes next belongs to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import BaseModel

from cyllama import LLM, ConfigTypeError, MessageError
from cyllama.chat import ChatTemplates, add_up
from cyllama.llama.llama_cpp import LlamaModel
from langchain_cyllama import ChatCyllama

from ..support.families import FAMILIES, TOOLS
from ..support.random_models import write_random_model
from ..support.writing import Writer

USER: dict[str, Any] = {"role": "user", "content": "What is the capital of France?"}
ANSWER = "The capital of France is Paris."
#: A template of a model that always reasons; it leaves out what was reasoned before, and trims.
FORGETS = """\
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1] | trim + '<|im_end|>\\n' -}}
    {%- else -%}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}
"""
PLACES_FOR_REASONING = ("qwen", "command-r", "gpt-oss")


def begun(content: str, reasoning: str = "") -> dict[str, Any]:
    return {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})


class City(BaseModel):
    name: str


# ----------------------------------------------------------------------------------------------------------- the prompt


@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_prompt_is_the_beginning_of_the_whole_history(name: str, offered: bool, templates: ChatTemplates):
    options: dict[str, Any] = {"chat_template": FAMILIES[name].template, "tools": TOOLS if offered else None}
    for said in (begun("The capital of"), begun("Two words\nand a line", "It is easy.")):
        prompt = templates.render([USER, said], **options)
        assert prompt.endswith(said["content"])
        whole = templates.render([USER, {**said, "content": f"{said['content']} France."}], **options)
        assert whole == f"{prompt} France."
        closed = templates.render(
            [USER, {**said, "content": f"{said['content']} France."}], add_generation_prompt=False, **options
        )
        if name != "gpt-oss" or "reasoning_content" not in said:  # its template has reasoning beside calls only
            assert closed.startswith(whole)
        assert templates.prepare([USER, said], **options).prompt == prompt


@pytest.mark.parametrize("name", FAMILIES)
def test_what_follows_is_read_as_the_rest_of_the_message(name: str, templates: ChatTemplates):
    for tools in (None, TOOLS):
        for said in (begun("The capital of"), begun("The  capital of ", "It is easy.")):
            plan = templates.prepare([USER, said], chat_template=FAMILIES[name].template, tools=tools)
            for rest in (" France is Paris.", "\n\nFrance <b>is</b> é😀."):
                assert plan.parse(rest).model_dump() == plan.parse("").model_copy(update={"content": rest}).model_dump()
                parser = plan.parser()
                deltas = [parser.push(character) for character in rest]
                deltas.append(parser.finish())
                assert add_up(deltas).content == rest


@pytest.mark.parametrize("name", PLACES_FOR_REASONING)
def test_reasoning_is_continued_as_reasoning(name: str, templates: ChatTemplates):
    ends = {"qwen": "\n</think>\n\n", "command-r": "<|END_THINKING|><|START_RESPONSE|>"}
    ends["gpt-oss"] = "<|end|><|start|>assistant<|channel|>final<|message|>"
    for tools in (None, TOOLS):
        plan = templates.prepare(
            [USER, begun("", "I think it")], chat_template=FAMILIES[name].template, tools=tools, reasoning_budget=9
        )
        assert plan.prompt.endswith("I think it")
        message = plan.parse(f" is Paris.{ends[name]}Paris.")
        assert (message.reasoning_content.rstrip(), message.content) == (" is Paris.", "Paris.")
        assert plan.reasoning is not None
        assert plan.reasoning.inside


def test_reasoning_that_has_begun_goes_on_although_it_is_turned_off(templates: ChatTemplates):
    turned_off: list[dict[str, Any]] = [{"enable_thinking": False}, {"reasoning_budget": 0}]
    for off in turned_off:
        plan = templates.prepare([USER, begun("", "I think")], chat_template=FAMILIES["qwen"].template, **off)
        assert plan.prompt.endswith("<think>\nI think")
        message = plan.parse(" so.\n</think>\n\nParis.")
        assert (message.reasoning_content.rstrip(), message.content) == (" so.", "Paris.")
        assert plan.reasoning is None or plan.reasoning.tokens == 0


def test_reasoning_is_kept_where_the_template_would_forget_it(templates: ChatTemplates):
    start = templates.render([USER], chat_template=FORGETS)
    assert templates.render([USER, begun("", "I think")], chat_template=FORGETS) == f"{start}I think"
    prompt = templates.render([USER, begun("Paris", "I think.")], chat_template=FORGETS)
    assert prompt == f"{start}I think.\n</think>\n\nParis"
    plan = templates.prepare([USER, begun("Paris", "I think.")], chat_template=FORGETS)
    assert (plan.parse(" it is.").content, plan.parse(" it is.").reasoning_content) == (" it is.", "")
    without = templates.prepare([USER, begun("  Paris ")], chat_template=FORGETS)
    assert without.prompt == f"{start.removesuffix('<think>' + chr(10))}Paris "
    assert without.parse("it is.").content == "it is."


def test_the_history_before_may_have_to_be_merged(templates: ChatTemplates):
    history = [{"role": "system", "content": "Be brief."}, USER, {"role": "system", "content": "Be kind."}, USER]
    prompt = templates.render([*history, begun("Hello")], chat_template=FAMILIES["gemma"].template)
    assert prompt == templates.render(history, chat_template=FAMILIES["gemma"].template) + "Hello"
    alone = templates.render([begun("Hello")], chat_template=FAMILIES["gemma"].template)
    assert alone.endswith("<start_of_turn>model\nHello")


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.sampled_from("ab \n<|>im_endstart/think"), min_size=1, max_size=30).filter(str.strip),
    template=st.sampled_from([FORGETS, *(family.template for family in FAMILIES.values())]),
    thought=st.booleans(),
)
def test_no_text_is_lost_and_none_becomes_a_control_token(
    text: str, template: str, thought: bool, model: LlamaModel, templates: ChatTemplates
):
    prompt = templates.render([USER, begun(text, text if thought else "")], chat_template=template)
    assert prompt.endswith(text.lstrip())
    harmless = templates.render([USER, begun("x", "x" if thought else "")], chat_template=template)
    tokenize = templates.control_text

    def control_tokens(marked: str) -> int:
        runs = tokenize.runs(marked)
        ids = [
            token
            for run in runs
            for token in model.vocab.tokenize(run.text, add_special=False, parse_special=run.parse_special)
        ]
        return sum(map(model.vocab.is_control, ids))

    assert control_tokens(prompt.marked) == control_tokens(harmless.marked)


# ------------------------------------------------------------------------------------------------------------- answers


def test_an_answer_goes_on_where_the_message_ends(llm: LLM):
    answer = llm.chat([USER, begun("The capital of")])
    assert (answer.text, answer.prefill) == (" France is Paris.", "The capital of")
    assert answer.message.content == answer.text
    with llm.chat([USER, begun("The capital of")], stream=True) as stream:
        assert add_up(stream).content == answer.text
    assert asyncio.run(llm.achat([USER, begun("The capital of")])).text == answer.text
    closed = llm.chat([USER, begun("The capital of")], continue_final_message=False)
    assert (closed.text, closed.prefill) == (ANSWER, "")
    assert llm.render([USER, begun("The capital of")], continue_final_message=False).endswith("assistant\n")
    assert llm.chat([USER, begun("")]).text == llm.chat([USER]).text == ANSWER


def test_a_session_goes_on_from_what_was_said_and_continued(llm: LLM):
    ada = llm.session("ada")
    answer = ada.chat([USER, begun("The capital of")])
    held = ada.tokens
    history = [USER, begun(answer.prefill + answer.text), {"role": "user", "content": "Thanks!"}]
    later = ada.chat(history)
    assert later.usage.cached_tokens >= held - 1
    assert later.text == llm.chat(history).text
    # An answer that was cut goes on where it was cut.
    cut = ada.chat([USER], max_tokens=4)
    rest = ada.chat([USER, cut.message])
    assert cut.text + rest.text == ANSWER
    assert rest.usage.cached_tokens >= cut.usage.prompt_tokens + 3


def test_a_structured_answer_is_one_value_with_its_beginning(llm: LLM):
    for seed in range(4):
        options: dict[str, Any] = {"response_format": City, "temperature": 1.0, "seed": seed, "max_tokens": 80}
        answer = llm.chat([USER, begun('{"name": "Par')], **options)
        if answer.finish_reason == "stop":
            assert answer.parsed == City(**json.loads('{"name": "Par' + answer.text))
    # What cannot be the beginning, or is whole already, is followed by an answer of its own.
    for said in ("Here you are:", '{"nome": ', '{"name": "Paris"}'):
        options = {"response_format": City, "max_tokens": 80, "temperature": 1.0, "seed": 1}
        answer = llm.chat([USER, begun(said)], **options)
        assert answer.prefill == ""
        assert answer.text == llm.chat([USER, begun(said)], continue_final_message=False, **options).text
        with pytest.raises(MessageError, match=r"cannot be the beginning|whole answer"):
            llm.chat([USER, begun(said)], continue_final_message=True, **options)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_beginning_of_json_is_completed_in_every_family(name: str, templates: ChatTemplates, write_randomly: Writer):
    schema = {"type": "object", "properties": {"a": {"enum": ["one", "two"]}}, "required": ["a"]}
    for said in (begun('{"a": "t'), begun(' {"a"', "Easy.")):
        plan = templates.prepare(
            [USER, said],
            chat_template=FAMILIES[name].template,
            response_format={**schema, "additionalProperties": False},
        )
        assert plan.prefill == said["content"]
        text, finished = write_randomly(plan, seed=1)
        assert finished
        assert json.loads(plan.prefill + plan.parse(text).content)["a"] in {"one", "two"}


@pytest.mark.parametrize("name", ["mistral", "llama3", "qwen"])
def test_control_tokens_and_spaces_of_the_vocabulary_do_not_disturb_json(
    name: str, tmp_path_factory: pytest.TempPathFactory, templates: ChatTemplates
):
    path = write_random_model(tmp_path_factory.mktemp("models") / "pieces.gguf", "llama", sentencepiece=True)
    with LlamaModel(path) as model:
        for known in (templates, ChatTemplates(model)):
            for said in ('{"a": "t', '{"a": "<|im_end|> t', '{"a"'):
                plan = known.prepare([USER, begun(said)], chat_template=FAMILIES[name].template, response_format="json")
                assert plan.prefill == said


def test_a_grammar_of_the_callers_is_that_of_what_follows(llm: LLM):
    answer = llm.chat([USER, begun("The capital is")], grammar='root ::= " Paris" | " Rome"')
    assert answer.text in {" Paris", " Rome"}


@pytest.mark.parametrize("name", FAMILIES)
def test_calls_follow_words(name: str, templates: ChatTemplates, write_randomly: Writer):
    for choice in ("required", "add"):
        plan = templates.prepare(
            [USER, begun("Let me see.")], chat_template=FAMILIES[name].template, tools=TOOLS, tool_choice=choice
        )
        assert plan.prompt.endswith("Let me see.")
        text, finished = write_randomly(plan, seed=3, max_tokens=200)
        if finished:
            [call] = plan.parse(text).tool_calls
            assert choice == "required" or call.function.name == "add"


def test_the_embedded_model_calls_a_tool_after_words(llm: LLM):
    weather = {"role": "user", "content": "What is the weather in Paris?"}
    answer = llm.chat([weather, begun("Let me see.\n")], tools=TOOLS, tool_choice="get_weather", max_tokens=60)
    [call] = answer.message.tool_calls
    assert call.function.name == "get_weather"
    assert answer.finish_reason == "tool_calls"


# ------------------------------------------------------------------------------------------------ what is not continued


def test_messages_that_are_complete_are_answered(llm: LLM):
    call = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "now", "arguments": "{}"}}]}
    for history in ([USER], [USER, call]):
        assert llm.chat(history, max_tokens=3).prefill == ""
        with pytest.raises(MessageError, match="needs a last message of the assistant's words"):
            llm.chat(history, continue_final_message=True)
    # Reasoning that the template has no place for is left out, as before.
    assert llm.chat([USER, begun("", "Hm.")], max_tokens=3, chat_template=FAMILIES["llama3"].template).prefill == ""
    with pytest.raises(MessageError, match="no place for the reasoning"):
        llm.chat([USER, begun("", "Hm.")], chat_template=FAMILIES["llama3"].template, continue_final_message=True)
    with pytest.raises(ConfigTypeError, match="is a bool or None, not 'yes'"):
        llm.chat([USER], continue_final_message="yes")  # pyright: ignore[reportArgumentType, reportCallIssue]
    with pytest.raises(ConfigTypeError, match="did you mean 'continue_final_message'"):
        llm.chat([USER], continue_last_message=True)  # pyright: ignore[reportCallIssue]


# ------------------------------------------------------------------------------------------------------------ LangChain


def test_langchain_continues_its_last_message(llm: LLM):
    chat = ChatCyllama(llm=llm, max_tokens=40)
    history = [HumanMessage(USER["content"]), AIMessage("The capital of")]
    assert chat.invoke(history).text == " France is Paris."
    assert "".join(chunk.text for chunk in chat.stream(history)) == " France is Paris."
    assert asyncio.run(chat.ainvoke(history, {"configurable": {"session_id": "ada"}})).text == " France is Paris."
    for closed in (
        ChatCyllama(llm=llm, max_tokens=40, continue_final_message=False).invoke(history),
        chat.bind(continue_final_message=False).invoke(history),
        chat.invoke(history, continue_final_message=False),
    ):
        assert closed.text == ANSWER
    assert chat.get_num_tokens_from_messages(history) > llm.count_tokens([USER, begun("The capital of")])


def test_structured_output_in_langchain_is_a_message_of_its_own(llm: LLM):
    chat = ChatCyllama(llm=llm, max_tokens=80)
    history = [HumanMessage("Extract the name as JSON: Paris."), AIMessage('{"name": "')]
    assert isinstance(chat.with_structured_output(City).invoke(history), City)
    bound = chat.bind(response_format={"type": "json_schema", "json_schema": {"schema": City.model_json_schema()}})
    assert bound.invoke(history).text.lstrip().startswith("{")
    rest = bound.invoke(history, continue_final_message=True).text
    assert City.model_validate_json('{"name": "' + rest)
