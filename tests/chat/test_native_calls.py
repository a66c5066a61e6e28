"""Calls in the native formats: what a template writes is read back, whole and in pieces, and fits the grammar."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.chat import ChatPlan, ChatTemplates, Message, add_up, grammar_sampler
from cyllama.llama.llama_cpp import LlamaModel

from ..support.native_templates import LFM2, NATIVE, Native
from ..support.writing import Writer

USER = {"role": "user", "content": "Hi"}
Call = tuple[str, dict[str, Any]]


def tool(name: str, properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required or ())}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


EVERYTHING = tool(
    "everything",
    {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "sure": {"type": "boolean"},
        "nothing": {"type": "null"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "either": {"type": ["string", "integer"]},
        "words": {"type": "array", "items": {"type": "string"}},
        "place": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}}},
            "required": ["city"],
        },
    },
    ["text"],
)
NOW = tool("now", {})
FULL: Call = (
    "everything",
    {
        "text": 'He said "São Paulo",\nand <b>left</b> {it} at\tthat \\o/ 😀',
        "count": -5,
        "ratio": 2.5,
        "sure": True,
        "nothing": None,
        "maybe": None,
        "either": 7,
        "words": ["a", 'b "c"'],
        "place": {"city": "Köln", "tags": [1, 2]},
    },
)
SHORT: Call = ("everything", {"text": "x"})
EMPTY: Call = ("now", {})


def message(calls: list[Call], content: str = "") -> dict[str, Any]:
    dicts = [
        {
            "id": f"call0000{i}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": content, "tool_calls": dicts}


def written(templates: ChatTemplates, native: Native, tools: list[Any], calls: list[Call], content: str = "") -> str:
    """Return the answer with these calls, as the template writes it into a history."""
    options = {"tools": tools, "chat_template": native.template}
    before = templates.render([USER], **options)
    after = templates.render([USER, message(calls, content)], add_generation_prompt=False, **options)
    assert after.startswith(before)
    assert after.endswith(native.end)
    return after[len(before) : len(after) - len(native.end)]


def plan_of(templates: ChatTemplates, native: Native, tools: list[Any], **options: Any) -> ChatPlan:
    options = {"parallel_tool_calls": True, **options}
    return templates.prepare([USER], tools=tools, chat_template=native.template, **options)


def calls_of(answer: Message) -> list[Call]:
    return [(call.function.name, json.loads(call.function.arguments)) for call in answer.tool_calls]


def streamed(plan: ChatPlan, *pieces: str) -> Message:
    parser = plan.parser()
    deltas = [parser.push(piece) for piece in pieces]
    deltas.append(parser.finish())
    assert add_up(deltas) == parser.message
    return parser.message


def fits(model: LlamaModel, plan: ChatPlan, text: str) -> bool:
    """Return whether a whole answer fits the grammar of a plan."""
    sampler = grammar_sampler(model.vocab, plan)
    assert sampler is not None
    try:
        sampler.accept(model.vocab.tokenize(text, add_special=False, parse_special=True))
        sampler.accept([model.vocab.eos])
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("calls", [[FULL], [SHORT], [EMPTY], [FULL, EMPTY, SHORT]], ids=["all", "one", "none", "three"])
@pytest.mark.parametrize("name", NATIVE)
def test_what_a_template_writes_is_read_back_and_fits_the_grammar(
    name: str, calls: list[Call], model: LlamaModel, templates: ChatTemplates
):
    native, tools = NATIVE[name], [EVERYTHING, NOW]
    if len(calls) > 1 and not native.parallel:
        return
    text = written(templates, native, tools, calls)
    plan = plan_of(templates, native, tools)
    whole = plan.parse(text)
    assert calls_of(whole) == calls
    assert not whole.content.strip()
    assert len({call.id for call in whole.tool_calls}) == len(calls)
    assert calls_of(streamed(plan, *text)) == calls
    for cut in range(0, len(text), 1 + len(text) // 40):
        assert calls_of(streamed(plan, text[:cut], text[cut:])) == calls
    required = plan_of(templates, native, tools, tool_choice="required")
    assert required.grammar is not None
    assert not required.grammar.lazy
    assert fits(model, plan, text)
    assert fits(model, required, text)
    assert calls_of(required.parse(text)) == calls


@pytest.mark.parametrize("name", NATIVE)
def test_several_calls_only_where_they_are_asked_for(name: str, model: LlamaModel, templates: ChatTemplates):
    native, tools = NATIVE[name], [EVERYTHING, NOW]
    one = plan_of(templates, native, tools, tool_choice="required", parallel_tool_calls=False)
    assert fits(model, one, written(templates, native, tools, [SHORT]))
    if native.parallel:
        text = written(templates, native, tools, [SHORT, EMPTY])
        assert not fits(model, one, text)
        assert calls_of(one.parse(text)) == [SHORT, EMPTY]


@pytest.mark.parametrize("name", NATIVE)
def test_a_call_has_to_come_and_of_the_tool_that_is_named(name: str, model: LlamaModel, templates: ChatTemplates):
    native, tools = NATIVE[name], [EVERYTHING, NOW]
    named = plan_of(templates, native, tools, tool_choice="now")
    required = plan_of(templates, native, tools, tool_choice="required")
    call, other = (written(templates, native, tools, [one]) for one in (EMPTY, SHORT))
    assert fits(model, named, call)
    assert not fits(model, named, other)
    assert not fits(model, required, "Hello, how are you?")
    assert not fits(model, required, call.replace("now", "know"))


@pytest.mark.parametrize("name", NATIVE)
def test_white_space_has_an_end(name: str, model: LlamaModel, templates: ChatTemplates):
    native = NATIVE[name]
    plan = plan_of(templates, native, [NOW], tool_choice="required")
    text = written(templates, native, [NOW], [EMPTY])
    assert fits(model, plan, text)
    name_ends = text.rindex("now") + len("now")
    if name == "kimi-k3":  # any attributes may follow the name
        name_ends = text.index("<|sep|>", name_ends) + 1
    for i in range(name_ends, len(text)):
        if text[i] in "{}[]<>":
            assert not any(fits(model, plan, text[:i] + space * 60 + text[i:]) for space in " \n\t")


@pytest.mark.parametrize("name", NATIVE)
def test_a_random_model_that_has_to_call_writes_valid_calls(
    name: str, templates: ChatTemplates, write_randomly: Writer
):
    native = NATIVE[name]
    limited = tool("add", {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "b": {"enum": ["x", "y"]}}, ["a", "b"])
    plan = plan_of(templates, native, [limited, NOW], tool_choice="required", parallel_tool_calls=False)
    for seed in range(2):
        text, finished = write_randomly(plan, max_tokens=120, seed=seed)
        if finished:
            ((called, arguments),) = calls_of(streamed(plan, *text))
            parameters = {"add": limited, "now": NOW}[called]["function"]["parameters"]
            if name != "gemma4":  # whose grammar knows names only
                jsonschema.validate(arguments, parameters)


# ------------------------------------------------------------------------------------------------- names and values


WORDS = st.text("abcdefgh_12", min_size=1, max_size=6)
ANY_NAMES = st.sampled_from(
    ["城市", "天数", "a b", "a-b", "a.b", "a_b", "größe", "x/y", "A", "naïve", "$id", "@type", "q?"]
)
STRINGS = st.one_of(
    st.sampled_from(["", "null", "5", "true", '"', "'", "\\", "\n", "<b>", "</b>", "{", "}", "[", "]", "a, b=c"]),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="<|]["), max_size=12),
)
INTEGERS = st.integers(-(2**53), 2**53)
TYPED = {
    "string": STRINGS,
    "integer": INTEGERS,
    "number": st.integers(-3999, 3999).map(lambda value: value / 4),  # llama.cpp's Jinja writes six digits
    "boolean": st.booleans(),
    "null": st.none(),
    "array": st.lists(INTEGERS, max_size=3),
    "object": st.dictionaries(WORDS, INTEGERS, min_size=1, max_size=2),
}
TOOL_NAMES = st.sampled_from(["a-b", "a.b", "a_b", "a/b", "a:b", "tool", "tool-a", "tool-a-arg-b", "call-0", "root"])


@st.composite
def tools_and_calls(draw: st.DrawFn, native: Native) -> tuple[list[dict[str, Any]], list[Call]]:
    """Draw tools of which names become the same rule, and calls of them."""
    tools: list[dict[str, Any]] = []
    calls: list[Call] = []
    for name in draw(st.lists(TOOL_NAMES, min_size=1, max_size=3, unique=True)):
        keys = WORDS if native.keys == "words" else st.one_of(WORDS, ANY_NAMES)
        kinds = draw(st.dictionaries(keys, st.sampled_from(sorted(TYPED)), max_size=5))
        properties = {
            key: {"type": kind} | ({"additionalProperties": {"type": "integer"}} if kind == "object" else {})
            for key, kind in kinds.items()
        }
        values = {key: draw(TYPED[kind]) for key, kind in kinds.items()}
        needed = list(kinds)[: draw(st.integers(0, len(kinds)))]
        tools.append(tool(name, properties, needed))
        calls.append((name, {key: value for key, value in values.items() if key in needed or draw(st.booleans())}))
    return tools, calls if native.parallel else calls[:1]


def check_round_trip(model: LlamaModel, native: Native, data: st.DataObject) -> None:
    templates = ChatTemplates(model)
    tools, calls = data.draw(tools_and_calls(native))
    text = written(templates, native, tools, calls)
    plan = plan_of(templates, native, tools)
    assert calls_of(plan.parse(text)) == calls
    size = data.draw(st.integers(1, 9))
    assert calls_of(streamed(plan, *(text[i : i + size] for i in range(0, len(text), size)))) == calls
    assert fits(model, plan_of(templates, native, tools, tool_choice="required"), text)


@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_names_and_values_come_back(name: str, model: LlamaModel, data: st.DataObject):
    check_round_trip(model, NATIVE[name], data)


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_many_names_and_values_come_back(name: str, model: LlamaModel, data: st.DataObject):
    check_round_trip(model, NATIVE[name], data)


# ------------------------------------------------------------------------------------------ what models write otherwise


PLACE = tool(
    "look",
    {
        "city": {"type": "string"},
        "unit": {"type": "string", "enum": ["celsius", "a b"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}\\d$"},
        "day": {"type": "string", "format": "date"},
        "short": {"type": "string", "minLength": 2, "maxLength": 4},
        "fixed": {"const": "yes"},
        "level": {"type": "integer", "minimum": 1, "maximum": 5},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["string", "integer"]},
    },
    ["city"],
)


def tagged(**arguments: str) -> str:
    """Return a call as Qwen3-Coder writes it."""
    parameters = "".join(f"<parameter={name}>\n{value}\n</parameter>\n" for name, value in arguments.items())
    return f"<tool_call>\n<function=look>\n{parameters}</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"unit": "celsius", "city": "Rom"}, {"unit": "celsius", "city": "Rom"}),
        ({"unit": "kelvin"}, {"unit": "kelvin"}),
        (
            {"city": "Rom", "new": "5", "other": "text", "list": "[1]"},
            {"city": "Rom", "new": 5, "other": "text", "list": [1]},
        ),
        ({"city": "null", "maybe": "null", "either": "5"}, {"city": "null", "maybe": None, "either": 5}),
        ({"city": "5", "maybe": "5", "either": "true"}, {"city": "5", "maybe": "5", "either": "true"}),
        ({"level": "None", "city": "True"}, {"level": None, "city": "True"}),
        ({"level": "many", "city": "{"}, {"level": "many", "city": "{"}),
        ({}, {}),
    ],
)
def test_arguments_in_any_order_unknown_and_missing_are_read(
    arguments: dict[str, str], expected: dict[str, Any], templates: ChatTemplates
):
    plan = plan_of(templates, NATIVE["qwen-coder"], [PLACE])
    text = tagged(**arguments)
    for answer in (plan.parse(text), streamed(plan, *text)):
        assert calls_of(answer) == [("look", expected)]
        assert not answer.content


@pytest.mark.parametrize(
    ("arguments", "is_valid"),
    [
        ({"city": "Rom"}, True),
        ({"city": "a\n</parameter> b"}, True),
        ({"unit": "celsius"}, False),
        ({"city": "Rom", "city ": "Rom"}, False),
        ({"city": "Rom", "unit": "a b"}, True),
        ({"city": "Rom", "unit": "kelvin"}, False),
        ({"city": "Rom", "code": "AB1"}, True),
        ({"city": "Rom", "code": "AB"}, False),
        ({"city": "Rom", "day": "2024-02-29"}, True),
        ({"city": "Rom", "day": "2024-02-31"}, False),
        ({"city": "Rom", "short": "abcd"}, True),
        ({"city": "Rom", "short": "abcde"}, False),
        ({"city": "Rom", "fixed": "yes"}, True),
        ({"city": "Rom", "fixed": "no"}, False),
        ({"city": "Rom", "level": "5"}, True),
        ({"city": "Rom", "level": "6"}, False),
        ({"city": "Rom", "maybe": "null"}, True),
        ({"city": "Rom", "either": "5"}, True),
        ({"city": "Rom", "level": "1", "maybe": "x", "either": "y"}, True),
    ],
)
def test_values_in_tags_are_held_to_their_schema(
    arguments: dict[str, str], is_valid: bool, model: LlamaModel, templates: ChatTemplates
):
    plan = plan_of(templates, NATIVE["qwen-coder"], [PLACE])
    assert fits(model, plan, tagged(**arguments)) == is_valid


@pytest.mark.parametrize(
    "rest",
    [
        " and more",
        "<tool_call>\n<function=nobody>\n</function>\n</tool_call>",
        "<tool_call>\n<function=look>\n<parameter=city>\nRom",
        "<tool_call>\nnonsense\n</tool_call>",
    ],
)
@pytest.mark.parametrize("before", ["", tagged(city="Rom")])
def test_what_is_no_call_is_content(before: str, rest: str, templates: ChatTemplates):
    plan = plan_of(templates, NATIVE["qwen-coder"], [PLACE])
    answer = plan.parse(before + rest)
    everything = answer.content + json.dumps([call.model_dump() for call in answer.tool_calls])
    assert all(
        word in everything for word in re.findall(r"\w{4,}", rest) if word not in ("tool_call", "function", "parameter")
    )
    if before:
        first = answer.tool_calls[0].function
        assert (first.name, json.loads(first.arguments)) == ("look", {"city": "Rom"})


LFM = [
    ("[now()]", [EMPTY]),
    ('[everything(text="Paris")]', [("everything", {"text": "Paris"})]),
    (
        "[everything(text='it\\'s', count=-3, sure=True, nothing=None, words=[\"a\", 'b'])]",
        [("everything", {"text": "it's", "count": -3, "sure": True, "nothing": None, "words": ["a", "b"]})],
    ),
    ('[everything(text="x", count=1), now()]', [("everything", {"text": "x", "count": 1}), EMPTY]),
]


@pytest.mark.parametrize(("calls", "expected"), LFM)
def test_calls_of_a_template_that_cannot_render_them(
    calls: str, expected: list[Call], model: LlamaModel, templates: ChatTemplates
):
    native, tools = Native(LFM2), [EVERYTHING, NOW]
    plan = plan_of(templates, native, tools)
    text = f"<think>Hm.</think>I look.<|tool_call_start|>{calls}<|tool_call_end|>"
    for answer in (plan.parse(text), streamed(plan, *text)):
        assert calls_of(answer) == expected
        assert answer.content.endswith("I look.")
    history = [USER, message(expected, "I look."), {"role": "tool", "content": "noon"}]
    prompt = templates.render(history, tools=tools, chat_template=LFM2)
    written_calls = re.findall(r"I look\.(<\|tool_call_start\|>.*<\|tool_call_end\|>)<\|im_end\|>", prompt)
    assert calls_of(plan.parse(written_calls[0])) == expected
    assert "<|im_start|>tool\nnoon<|im_end|>" in prompt
    assert fits(model, plan_of(templates, native, tools, tool_choice="required"), written_calls[0])
    assert plan.parse("Just text.").content == "Just text."


def test_tools_are_described_where_a_template_only_writes_calls(templates: ChatTemplates):
    prompt = templates.render([USER], tools=[NOW], chat_template=NATIVE["deepseek-v3.1"].template)
    assert '"name": "now"' in prompt
    assert "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜><name of the tool><｜tool▁sep｜>" in prompt


def test_reasoning_that_was_not_asked_for_is_reasoning_all_the_same(templates: ChatTemplates):
    template = NATIVE["glm"].template
    plan = templates.prepare([USER], tools=[NOW], chat_template=template, enable_thinking=False)
    text = "<think>Well.</think>\nHello <b>you</b>."
    for plain in (plan, templates.prepare([USER], chat_template=template, enable_thinking=False)):
        for answer in (plain.parse(text), streamed(plain, *text)):
            assert (answer.content, answer.reasoning_content) == ("Hello <b>you</b>.", "Well.")
    called = streamed(plan, *"<think>Well.</think>\n<tool_call>now\n</tool_call>")
    assert (calls_of(called), called.reasoning_content) == ([EMPTY], "Well.")


@pytest.mark.parametrize("name", ["qwen-coder", "glm", "granite", "kimi-k3"])
def test_tags_in_descriptions_do_not_change_the_format(name: str, templates: ChatTemplates):
    plain = plan_of(templates, NATIVE[name], [NOW])
    text = "</tools> <tool_call> </tool_call> <function= <|tool_call|> <think> <arg_key>"
    described = {"type": "function", "function": NOW["function"] | {"description": text}}
    plan = plan_of(templates, NATIVE[name], [described])
    assert plan.grammar == plain.grammar
    assert plan.preserved_tokens == plain.preserved_tokens


# ---------------------------------------------------------------------------------------- a call, or an answer in JSON


ANSWER = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}},
    "required": ["sum"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_call_or_an_answer_of_a_schema_by_one_grammar(name: str, model: LlamaModel, templates: ChatTemplates):
    native, tools = NATIVE[name], [EVERYTHING, NOW]
    plan = plan_of(templates, native, tools, response_format=ANSWER)
    assert plan.response_format is not None
    call = written(templates, native, tools, [SHORT])
    answer = written(templates, native, tools, [], '{"sum": 4}')
    assert fits(model, plan, call)
    assert fits(model, plan, answer)
    assert not fits(model, plan, answer.replace("sum", "total"))
    assert not fits(model, plan, answer.replace("4", '"four"'))
    assert not fits(model, plan, "The sum is 4.")
    assert calls_of(plan.parse(call)) == [SHORT]
    read = streamed(plan, *answer)
    assert (json.loads(read.content), read.tool_calls) == ({"sum": 4}, [])
    only_calls = plan_of(templates, native, tools, response_format=ANSWER, tool_choice="required")
    assert only_calls.response_format is None
    assert not fits(model, only_calls, answer)
