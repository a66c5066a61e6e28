"""A template may be named: by a name that llama.cpp knows, or by a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama import LLM, ChatTemplateError
from cyllama.chat import ChatTemplates
from cyllama.chat.known_templates import resolve_template
from cyllama.llama.llama_cpp import LlamaChatTemplates

CHATS = (
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "Hello")],
    [("user", "What's \\this\\?"), ("assistant", "It's\n'that'."), ("user", "Thanks <|end|>")],
    [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")],
)


def rendered(templates: ChatTemplates, chat: list[tuple[str, str]], name: str) -> str:
    return templates.render([{"role": role, "content": content} for role, content in chat], chat_template=name)


def is_regular(name: str) -> bool:
    try:
        return bool(resolve_template(name))
    except ChatTemplateError:
        return False


KNOWN = LlamaChatTemplates.known_names()


@pytest.mark.parametrize("name", [name for name in KNOWN if is_regular(name)])
def test_a_name_means_the_template_that_llama_cpp_has_for_it(name: str, templates: ChatTemplates):
    for chat in CHATS:
        expected = LlamaChatTemplates.apply_known(name, chat)
        if chat[0][1] not in expected:  # it leaves the system message out, which becomes part of the user's here
            continue
        assert rendered(templates, chat, name) == expected


def test_the_well_known_names_are_there():
    assert {"chatml", "llama2", "llama3", "gemma", "phi3", "zephyr", "mistral-v7", "vicuna"} <= {
        *filter(is_regular, KNOWN)
    }


def test_a_path_is_read(llm: LLM, tmp_path: Path):
    path = tmp_path / "template.jinja"
    path.write_text("{{ messages[0].content }}!", encoding="utf-8")
    assert llm.render([{"role": "user", "content": "Hello"}], chat_template=str(path)) == "Hello!"
    path.write_text("{{ messages[0].content }}?", encoding="utf-8")
    assert llm.render([{"role": "user", "content": "Hello"}], chat_template=str(path)) == "Hello?"


@pytest.mark.parametrize(
    "template", ["llama33", "You are a helpful assistant.", "/no/such/file.jinja", "a\0b", " ", "x" * 9999]
)
def test_what_is_neither_source_nor_name_nor_path_is_refused(template: str, llm: LLM):
    with pytest.raises(ChatTemplateError, match=r"not a chat template|Jinja source"):
        llm.chat([{"role": "user", "content": "Hello"}], chat_template=template)


def test_a_file_that_is_no_template_is_refused(llm: LLM, tmp_path: Path):
    for name, data in {"text": b"Hello", "binary": b"\xff\xfe{{"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ChatTemplateError, match=r"is not a chat template|cannot be read"):
            llm.render([{"role": "user", "content": "Hello"}], chat_template=str(tmp_path / name))
    with pytest.raises(ChatTemplateError, match="not a chat template"):
        llm.render([{"role": "user", "content": "Hello"}], chat_template=str(tmp_path))
