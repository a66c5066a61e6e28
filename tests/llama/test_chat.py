"""Chat templates: messages to prompt, and templates that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cyllama.llama.llama_cpp import LlamaChatTemplates, LlamaModel

CONVERSATION = [("system", "Be brief."), ("user", "Hello!"), ("assistant", "Hi."), ("user", "How are you?")]
PLAIN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def test_the_models_own_template(model: LlamaModel):
    templates = LlamaChatTemplates(model)
    assert templates.was_explicit
    assert templates.source == (model.chat_template() or "").rstrip("\n")
    prompt = templates.apply(CONVERSATION)
    assert [prompt.index(content) for _, content in CONVERSATION] == sorted(prompt.index(c) for _, c in CONVERSATION)
    assert prompt.startswith(templates.apply(CONVERSATION, add_generation_prompt=False))


def test_another_template_in_its_place(model: LlamaModel):
    templates = LlamaChatTemplates(model, PLAIN)
    assert templates.apply([("user", "Hi")]) == "[user]Hi[assistant]"
    assert templates.apply([("user", "Hi")], add_generation_prompt=False) == "[user]Hi"


def test_templates_outlive_their_model(tiny_chat: Path):
    model = LlamaModel(tiny_chat)
    templates = LlamaChatTemplates(model, PLAIN)
    model.close()
    assert templates.apply([("user", "Hi")]) == "[user]Hi[assistant]"
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
        LlamaChatTemplates(model, source).apply([("user", "Hi")])


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
        assert content.strip() in LlamaChatTemplates(model).apply([("user", content)])
        assert LlamaChatTemplates(model, PLAIN).apply([("odd role", content)]) == f"[odd role]{content}[assistant]"
    with pytest.raises((UnicodeEncodeError, TypeError)):
        LlamaChatTemplates(model, PLAIN).apply([("user", "\ud800")])


def test_a_long_conversation(model: LlamaModel):
    assert LlamaChatTemplates(model, PLAIN).apply([("user", "a"), ("assistant", "b")] * 3000).count("[user]a") == 3000


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
    raised(lambda: LlamaChatTemplates(model, begin + middle + end).apply([("user", "x")]))
print("fine")
"""
    assert in_process(code) == "fine\n"


def test_messages_of_the_wrong_kind(model: LlamaModel):
    templates = LlamaChatTemplates(model)
    for messages in ([("user",)], [("user", 5)], ["user"], 5):
        with pytest.raises(TypeError):
            templates.apply(messages)  # type: ignore[arg-type]
