"""Chat templates of model families: what is rendered equals Jinja2, what is written back is read, in pieces as well."""

from __future__ import annotations

import codecs
import copy
import json
from collections.abc import Iterator
from typing import Any

import jinja2.sandbox
import jsonschema
import pytest

from cyllama.chat import ChatDelta, ChatPlan, ChatTemplates, Message, add_up, grammar_sampler
from cyllama.llama.llama_cpp import LlamaModel

from ..support.families import FAMILIES, TOOLS, Answer, Family
from ..support.writing import Writer

USER = {"role": "user", "content": "What is the weather in São Paulo? 😀\n"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "abcdef123",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"location": "São \\"Paulo\\"", "n": [1, 2.5, null]}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "abcdef123", "content": '{"sky": "blue"}'}
SYSTEM = {"role": "system", "content": "Be <brief>."}
CHATS = {
    "one question": [USER],
    "a conversation": [USER, {"role": "assistant", "content": "Nice & warm."}, {"role": "user", "content": "Thanks!"}],
    "a system message": [SYSTEM, USER],
    "a tool call": [USER, CALL, RESULT],
    "a tool call answered": [USER, CALL, RESULT, {"role": "assistant", "content": "Blue."}, USER],
}


def with_jinja2(model: LlamaModel, family: Family, messages: list[dict[str, Any]], tools: Any, thinking: bool) -> str:
    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = refuse
    messages = copy.deepcopy(messages)
    for message in messages:
        for call in message.get("tool_calls", ()):
            if family.object_arguments:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    vocab = model.vocab
    bos, eos = (vocab.token_to_piece(token, special=True).decode() for token in (vocab.bos, vocab.eos))
    variables: dict[str, Any] = {"bos_token": bos, "eos_token": eos, "enable_thinking": thinking}
    if tools:
        variables["tools"] = tools
    text = environment.from_string(family.template).render(messages=messages, add_generation_prompt=True, **variables)
    return text.removeprefix(bos) if vocab.add_bos else text


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_those_of_jinja2(name: str, chat: str, model: LlamaModel, templates: ChatTemplates):
    family, messages = FAMILIES[name], CHATS[chat]
    has_calls = any(message["role"] == "tool" for message in messages)
    if family.own_tools and has_calls:
        return
    if not family.system and messages[0]["role"] == "system":  # becomes part of the first message
        messages = [{"role": "user", "content": f"{SYSTEM['content']}\n{USER['content']}"}]
        rendered = templates.render(CHATS[chat], chat_template=family.template)
        assert rendered == with_jinja2(model, family, messages, None, True)
        return
    for tools in (None, [] if family.own_tools else TOOLS):
        for thinking in (True, False):
            rendered = templates.render(messages, tools=tools, chat_template=family.template, enable_thinking=thinking)
            assert rendered == with_jinja2(model, family, messages, tools, thinking)


def check(message: Message, answer: Answer) -> None:
    assert message.content == answer.content
    assert message.reasoning_content.strip() == answer.reasoning.strip()
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
    assert calls == list(answer.calls)
    assert all(call.id and call.type == "function" for call in message.tool_calls)


def pieces(text: str, *cuts: int) -> Iterator[str]:
    """Yield text cut at bytes, in characters as soon as they are complete."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    data = text.encode()
    for begin, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        yield decoder.decode(data[begin:end])


def stream(plan: ChatPlan, *texts: str) -> tuple[Message, list[ChatDelta]]:
    parser = plan.parser()
    deltas = [parser.push(text) for text in texts]
    deltas.append(parser.finish())
    assert add_up(deltas) == parser.message
    return parser.message, deltas


ANSWERS = [(name, i) for name, family in FAMILIES.items() for i in range(len(family.answers))]


def plan_for(templates: ChatTemplates, name: str, answer: Answer) -> ChatPlan:
    return templates.prepare(
        [USER], tools=TOOLS, chat_template=FAMILIES[name].template, parallel_tool_calls=answer.parallel
    )


@pytest.mark.parametrize(("name", "index"), ANSWERS)
def test_answers_are_read_whole_and_cut_at_every_byte(name: str, index: int, templates: ChatTemplates):
    answer = FAMILIES[name].answers[index]
    plan = plan_for(templates, name, answer)
    check(plan.parse(answer.text), answer)
    size = len(answer.text.encode())
    for cut in range(size):
        message, _ = stream(plan, *pieces(answer.text, cut))
        check(message, answer)
    message, deltas = stream(plan, *pieces(answer.text, *range(1, size)))
    check(message, answer)
    if answer.calls:
        fragments = [piece for delta in deltas for piece in delta.tool_calls if piece.function.arguments]
        assert len(fragments) >= len(answer.calls)


@pytest.mark.parametrize(("name", "index"), ANSWERS)
def test_answers_that_are_cut_off_are_read_as_far_as_they_go(name: str, index: int, templates: ChatTemplates):
    answer = FAMILIES[name].answers[index]
    plan = plan_for(templates, name, answer)
    for end in range(len(answer.text)):
        message = plan.parse(answer.text[:end])
        streamed, _ = stream(plan, *answer.text[:end])
        for one in (message, streamed):
            assert len(one.tool_calls) <= len(answer.calls)
            for call, (called, _) in zip(one.tool_calls, answer.calls, strict=False):
                assert call.function.name == called
        assert streamed.model_dump(exclude={"tool_calls"}) == message.model_dump(exclude={"tool_calls"})
        assert [call.function for call in streamed.tool_calls] == [call.function for call in message.tool_calls]


@pytest.mark.parametrize("choice", ["auto", "required", "add"])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_random_model_writes_is_a_valid_call(
    name: str, choice: str, model: LlamaModel, templates: ChatTemplates, write_randomly: Writer
):
    for parallel in (False, True):
        plan = templates.prepare(
            [USER],
            tools=TOOLS,
            tool_choice=choice,
            chat_template=FAMILIES[name].template,
            parallel_tool_calls=parallel,
        )
        assert plan.prompt == templates.render([USER], tools=TOOLS, chat_template=FAMILIES[name].template)
        assert plan.grammar is not None
        assert plan.grammar.lazy == (choice == "auto")
        if choice == "auto":
            assert grammar_sampler(model.vocab, plan) is not None
            continue
        for seed in range(2):
            text, finished = write_randomly(plan, max_tokens=200, seed=seed)
            message, _ = stream(plan, *text)
            if not finished:
                continue
            assert message.tool_calls, text
            assert parallel or len(message.tool_calls) == 1
            for call in message.tool_calls:
                assert choice != "add" or call.function.name == "add"
                parameters = next(tool for tool in TOOLS if tool["function"]["name"] == call.function.name)
                if name != "qwen-coder" or call.function.name != "get_weather":  # its strings are not constrained
                    jsonschema.validate(json.loads(call.function.arguments), parameters["function"]["parameters"])


def fits(model: LlamaModel, plan: ChatPlan, text: str) -> bool:
    sampler = grammar_sampler(model.vocab, plan)
    assert sampler is not None
    try:
        sampler.accept(model.vocab.tokenize(text, add_special=False, parse_special=True))
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(("name", "index"), ANSWERS)
def test_answers_fit_the_grammar(name: str, index: int, model: LlamaModel, templates: ChatTemplates):
    answer = FAMILIES[name].answers[index]
    plan = plan_for(templates, name, answer)
    assert fits(model, plan, answer.text)
    if answer.calls:
        tool, _ = answer.calls[0]
        assert not fits(model, plan, answer.text.replace(tool, "nobody"))


def test_what_is_thought_about_a_call_is_no_call(model: LlamaModel, templates: ChatTemplates):
    plan = templates.prepare([USER], tools=TOOLS, chat_template=FAMILIES["qwen"].template)
    assert fits(model, plan, "<think>\nA <tool_call>\nof nobody?\n</think>\n\nHello <tool_call> you")
    assert not fits(model, plan, "<think>\nWell.\n</think>\n\n<tool_call>\nof nobody")
    assert not fits(model, plan, "Hello <tool_call>\nof nobody")


def test_several_calls_only_where_they_are_asked_for(model: LlamaModel, templates: ChatTemplates):
    template, answer = FAMILIES["qwen"].template, FAMILIES["qwen"].answers[4]
    assert len(answer.calls) == 2
    for parallel in (False, True):
        plan = templates.prepare([USER], tools=TOOLS, chat_template=template, parallel_tool_calls=parallel)
        assert fits(model, plan, answer.text) == parallel
