"""Schemas to grammars, grammars that are checked, and text that stays UTF-8 under them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cyllama.llama.llama_cpp import LlamaModel, LlamaSampler, check_grammar, json_schema_to_grammar


def test_a_schema_becomes_a_grammar():
    grammar = json_schema_to_grammar('{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}')
    check_grammar(grammar)
    assert "root ::=" in grammar


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "5",
        "[]",
        '"x"',
        '{"type": "colour"}',
        '{"$ref": 5}',
        '{"$ref": "#/nothing"}',
        '{"$ref": "file:x"}',
        '{"a": {"$ref": "#/a"}, "allOf": [{"$ref": "#/a"}]}',
        '{"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}, "allOf": [{"$ref": "#/b"}]}',
        '{"type": "integer", "minimum": "x"}',
        '{"type": "array", "items": {}, "minItems": []}',
        '{"type": "string", "pattern": "^(a$"}',
        '{"pattern": 5}',
        '{"anyOf":[' * 2000 + "{}" + "]}" * 2000,
        " " * (5 << 20),
    ],
)
def test_what_is_no_schema_is_refused(schema: str):
    with pytest.raises((ValueError, RuntimeError)):
        json_schema_to_grammar(schema)


def test_schemas_that_would_take_llama_cpp_down(in_process: Callable[..., str]):
    code = """
import json
deep = '{"items":' * 900 + "{}" + "}" * 900
names = {"%" * 500_000: {}, "x" * 500_000: {}}
long = json.dumps({"type": "object", "properties": names, "additionalProperties": True})
many = json.dumps({"d": {str(i): {"type": "string"} for i in range(2000)},
                   "anyOf": [{"$ref": f"#/d/{i}"} for i in range(2000)]})
tree = '{"a": {"items": {"$ref": "#/a"}}, "$ref": "#/a"}'
wide = json.dumps({"type": "string", "minLength": 2**40, "maxLength": -5})
for schema in (deep, long, many, tree, wide):
    raised(json_schema_to_grammar, schema)
print("fine")
"""
    assert in_process(code) == "fine\n"


@pytest.mark.parametrize(
    ("grammar", "match"),
    [
        ("", "empty"),
        ("root ::=", ""),
        ("root ::= (", "not valid GBNF"),
        ("root ::= [a", "not valid GBNF"),
        ("root ::= other", "other"),
        ("root ::= root", "begin with itself"),
        ('rule ::= "a"', "no rule named root"),
        ('root ::= "a"{5,2}', "n < m"),
        ("%llguidance {}", "llguidance"),
        ("root ::= <nothing>", "vocab"),
    ],
)
def test_broken_grammars_are_refused_with_a_reason(grammar: str, match: str, in_process: Callable[..., str]):
    if grammar == "root ::=":
        check_grammar(grammar)  # the empty text
        return
    with pytest.raises(ValueError, match=match):
        check_grammar(grammar)
    assert in_process(f"print(raised(check_grammar, {grammar!r}))").startswith("ValueError: ")


def pieces(model: LlamaModel) -> list[bytes]:
    return [model.vocab.token_to_piece(token, special=True) for token in range(model.vocab.n_tokens)]


def test_text_under_a_grammar_stays_utf8(model: LlamaModel):
    tokens = {piece: token for token, piece in enumerate(pieces(model))}
    for begin, bad, good in (
        (b"", b"\xc0", b"a"),
        (b"", b"\xf5", b"a"),
        (b"\xe0", b"\x82", b"\xa4"),
        (b"\xed", b"\xa0", b"\x9f"),
        (b"\xf0", b"\x80", b"\x9f"),
        (b"\xf4", b"\x90", b"\x8f"),
    ):
        sampler = LlamaSampler.grammar(model.vocab, "root ::= [^x]*")
        if begin:
            sampler.accept([tokens[begin]])
        for one in (sampler, sampler.clone()):
            with pytest.raises(RuntimeError, match="does not fit the grammar"):
                one.accept([tokens[bad]])
            one.accept([tokens[good]])
        sampler.reset()
        sampler.accept([tokens[b"a"]])


def test_chats_with_tools(model: LlamaModel):
    from cyllama.llama.llama_cpp import LlamaChatTemplates

    templates = LlamaChatTemplates(model)
    assert templates.caps["supports_tools"]
    assert templates.caps["supports_tool_calls"]
    tool: dict[str, Any] = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    messages = '[{"role": "user", "content": "Hi"}]'
    params = templates.apply(messages, tools=json.dumps([tool]))
    assert params.grammar_lazy
    assert params.grammar_triggers == [("word", "<tool_call>\n")]
    assert params.preserved_tokens == ["<tool_call>", "</tool_call>"]
    assert params.prompt.endswith(params.generation_prompt)
    assert params.parse('Hi<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>') == (
        "Hi",
        "",
        [("", "f", '{"x": 1}')],
    )
    with pytest.raises(RuntimeError, match="does not match"):
        params.parse('<tool_call>\n{"name": "g"}')
    with pytest.raises(ValueError, match="tool_choice"):
        templates.apply(messages, tool_choice="maybe")
    for tools in ("5", "[5]", "[{}]", '[{"type": "function"}]', '[{"type": "function", "function": {"name": 5}}]'):
        with pytest.raises((ValueError, RuntimeError)):
            templates.apply(messages, tools=tools)
    with pytest.raises((ValueError, RuntimeError)):
        templates.apply(messages, json_schema='{"a": {"$ref": "#/a"}, "allOf": [{"$ref": "#/a"}]}')


def test_templates_without_end_are_ended(in_process: Callable[..., str]):
    code = r"""
import threading
model = load()
for source in (
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f() %}{% filter upper %}{{ f() }}{% endfilter %}{% endmacro %}{{ f() }}",
    "{% macro f() %}{% call f() %}x{% endcall %}{% endmacro %}{{ f() }}",
    "{% macro f() %}{{ f() if messages|length > 5 }}{% endmacro %}{{ f() }}",
):
    messages = "[" + ", ".join(['{"role": "user", "content": "x"}'] * 9) + "]"
    reason = raised(lambda: LlamaChatTemplates(model, source).apply(messages))
    # the variables of every call are copied: where calls are nested, that is too much before the depth is
    assert "without end" in reason or ("{% call" in source and "too much memory" in reason), source

# A template that was left in the middle, and one that many threads use at once.
source = "{% filter upper %}{{ messages[0].content }}{{ raise_exception('x') if messages|length > 1 }}{% endfilter %}"
templates = LlamaChatTemplates(model, source)
one, two = ('[' + ', '.join(['{"role": "user", "content": "x"}'] * n) + ']' for n in (1, 2))
def work():
    for _ in range(20):
        raised(templates.apply, two)
        raised(templates.apply, one)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("fine")
"""
    assert in_process(code) == "fine\n"
