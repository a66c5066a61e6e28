"""Chat templates: messages to prompt, and templates that are not valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaChatTemplates, LlamaModel


def to_json(messages: list[tuple[str, str]]) -> str:
    return json.dumps([{"role": role, "content": content} for role, content in messages])


CONVERSATION = [("system", "Be brief."), ("user", "Hello!"), ("assistant", "Hi."), ("user", "How are you?")]
PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_the_models_own_template(model: LlamaModel):
    templates = LlamaChatTemplates(model)
    assert templates.was_explicit
    assert templates.source == (model.chat_template() or "").rstrip("\n")
    prompt = templates.apply(to_json(CONVERSATION)).prompt
    assert [prompt.index(content) for _, content in CONVERSATION] == sorted(prompt.index(c) for _, c in CONVERSATION)
    assert prompt.startswith(templates.apply(to_json(CONVERSATION), add_generation_prompt=False).prompt)


def test_another_template_in_its_place(model: LlamaModel):
    templates = LlamaChatTemplates(model, PLAIN)
    assert templates.apply(to_json([("user", "Hi")])).prompt == "[user]Hi[assistant]"
    assert templates.apply(to_json([("user", "Hi")]), add_generation_prompt=False).prompt == "[user]Hi"


def test_templates_outlive_their_model(tiny_chat: Path):
    model = LlamaModel(tiny_chat)
    templates = LlamaChatTemplates(model, PLAIN)
    model.close()
    assert templates.apply(to_json([("user", "Hi")])).prompt == "[user]Hi[assistant]"
    with pytest.raises(RuntimeError, match="the model is closed"):
        LlamaChatTemplates(model)


@pytest.mark.parametrize("source", ["{{", "{% if %}", "{{ x", "{% endfor %}", "{{ 1 +", "{% for x in %}"])
def test_what_is_no_template_is_an_error_with_a_reason_and_silent(source: str, in_process: Callable[..., str]):
    out = in_process(f"print(raised(LlamaChatTemplates, load(), {source!r}))")
    assert out.startswith(("RuntimeError: ", "ValueError: "))
    assert "std::exception" not in out
    assert len(out) > 30


@pytest.mark.parametrize("source", ["{{ raise_exception('no tools') }}", "{{ 'a'.nope() }}", "{{ 1 // 0 }}"])
def test_what_a_template_refuses_is_an_error(source: str, model: LlamaModel):
    with pytest.raises((RuntimeError, ValueError)):
        LlamaChatTemplates(model, source).apply(to_json([("user", "Hi")]))


def test_long_and_strange_messages(model: LlamaModel):
    for content in (
        "x" * 2_000_000,
        "{{" * 50_000,
        "<|im_start|>" * 10_000,
        "\0",
        "",
        "😀" * 50_000,
        "\\" * 100_000,
        "(" * 100_000,
    ):
        assert content.strip() in LlamaChatTemplates(model).apply(to_json([("user", content)])).prompt
        assert (
            LlamaChatTemplates(model, PLAIN).apply(to_json([("odd role", content)])).prompt
            == f"[odd role]{content}[assistant]"
        )
    with pytest.raises((UnicodeEncodeError, TypeError)):
        LlamaChatTemplates(model, PLAIN).apply("\ud800")
    with pytest.raises(ValueError, match="messages"):
        LlamaChatTemplates(model, PLAIN).apply(to_json([("user", "\ud800")]))


def test_a_long_conversation(model: LlamaModel):
    assert (
        LlamaChatTemplates(model, PLAIN)
        .apply(to_json([("user", "a"), ("assistant", "b")] * 3000))
        .prompt.count("[user]a")
        == 3000
    )


@pytest.mark.parametrize("n", [1000, 10_000])
def test_deeply_nested_templates_do_not_overflow_the_stack(n: int, in_process: Callable[..., str]):
    code = f"""
n, model = {n}, load()
for begin, middle, end in (
    ("{{{{ " + "(" * n, "1", ")" * n + " }}}}"),
    ("{{{{ " + "[" * n, "1", "]" * n + " }}}}"),
    ("{{{{ " + "not " * n, "1", " }}}}"),
    ("{{{{ 1", "|string" * n, " }}}}"),
    ("{{{{ ", "1 if 1 else " * n + "1", " }}}}"),
    ("{{% if 1 %}}" * n, "x", "{{% endif %}}" * n),
):
    raised(lambda: LlamaChatTemplates(model, begin + middle + end).apply('[{{"role": "user", "content": "x"}}]'))
print("fine")
"""
    assert in_process(code) == "fine\n"


@pytest.mark.parametrize(
    "messages",
    [
        "",
        "{",
        "5",
        "[5]",
        "[{}]",
        '[{"role": 5}]',
        '[{"role": "user", "content": 5}]',
        '[{"role": "user"}]',
        "[" * 100_000,
    ],
)
def test_what_is_no_list_of_messages_is_refused(messages: str, model: LlamaModel):
    with pytest.raises((ValueError, RuntimeError)):
        LlamaChatTemplates(model).apply(messages)


def test_messages_of_the_wrong_type(model: LlamaModel):
    with pytest.raises(TypeError):
        LlamaChatTemplates(model).apply([("user", "Hi")])  # type: ignore[arg-type]
