"""Chat templates that callers name instead of writing them: by a name that llama.cpp knows, or by a file."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

from ..errors import ChatTemplateError
from ..llama.llama_cpp import LlamaChatTemplates

_MOST_BYTES = 4 * 2**20
_IS_JINJA = re.compile(r"\{\{|\{%")


def resolve_template(chat_template: object, limit: int = 2**20) -> str:
    """Return the Jinja source that a caller means: source, a name that llama.cpp knows, or the path of a file.

    Args:
        chat_template: What the caller passed.
        limit: Most characters of a source.

    Raises:
        ChatTemplateError: It is not one of these, or too long.
    """
    source = _resolve(chat_template, limit)
    if len(source) > limit:
        raise ChatTemplateError(_too_long(source, limit))
    return source


def _too_long(text: str, limit: int) -> str:
    return f"the chat template has {len(text)} characters, but {limit} are the limit"


def _resolve(chat_template: object, limit: int) -> str:
    if isinstance(chat_template, os.PathLike):
        return _read(Path(chat_template))
    if not isinstance(chat_template, str) or not chat_template.strip():
        raise ChatTemplateError(
            f"a chat template is Jinja source, the name of one, or the path of a file, not {chat_template!r:.80}"
        )
    if _IS_JINJA.search(chat_template):
        return chat_template
    if len(chat_template) > limit:
        raise ChatTemplateError(_too_long(chat_template, limit))
    name = chat_template.strip()
    if name in LlamaChatTemplates.known_names():
        return _source_of(name)
    try:
        is_file = len(name) < 4096 and Path(name).expanduser().is_file()
    except (OSError, ValueError):  # not a path: a text with a NUL, for example
        is_file = False
    if is_file:
        return _read(Path(name).expanduser())
    raise ChatTemplateError(
        f"{name!r:.80} is not a chat template: it has neither {{{{ nor {{%, there is no such file, and the known "
        f"names are {', '.join(LlamaChatTemplates.known_names())}"
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        source = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ChatTemplateError(f"the chat template {os.fspath(path)!r} cannot be read: {error}") from error
    if not _IS_JINJA.search(source):
        raise ChatTemplateError(f"the file {os.fspath(path)!r} is not a chat template: it has neither {{{{ nor {{%")
    return source


# ----------------------------------------------------------------------------------------------- from what it renders

_SYSTEM, _USER, _ASSISTANT = "\ue000S\ue001", "\ue000U\ue001", "\ue000A\ue001"
_CONTENT = re.compile("\ue000([SUA])\ue001")
_CHATS = ("u", "su", "uau", "suau", "uaua", "suaua")
_ROLES = {"s": ("system", _SYSTEM), "u": ("user", _USER), "a": ("assistant", _ASSISTANT)}


@lru_cache
def _source_of(name: str) -> str:
    """Return Jinja source that renders the same as llama.cpp's own code for a template's name.

    The source is found from what that code renders: the text around a message must depend on its role and on the role
    before it, and on nothing else.

    Raises:
        ChatTemplateError: The text around a message depends on something else.
    """
    added: dict[tuple[str, str], str] = {}
    answers: dict[str, str] = {}
    trims = _render(name, "u", "  x  ") == _render(name, "u", "x")
    for chat in _CHATS:
        before = ""
        for i, role in enumerate(chat):
            text = _render(name, chat[: i + 1])
            pair = (chat[i - 1] if i else "", role)
            if not text.startswith(before) or added.setdefault(pair, text[len(before) :]) != text[len(before) :]:
                raise ChatTemplateError(f"the chat template {name!r} has no Jinja source: pass the source of one")
            before = text
        with_answer = _render(name, chat, add_generation_prompt=True)
        if not with_answer.startswith(before):
            raise ChatTemplateError(f"the chat template {name!r} has no Jinja source: pass the source of one")
        answers[chat[-1]] = with_answer[len(before) :]
    return _write(added, answers["u"], trims)


def _render(name: str, chat: str, content: str | None = None, *, add_generation_prompt: bool = False) -> str:
    messages = [(_ROLES[role][0], _ROLES[role][1] if content is None else content) for role in chat]
    return LlamaChatTemplates.apply_known(name, messages, add_generation_prompt)


def _write(added: dict[tuple[str, str], str], answer: str, trims: bool) -> str:
    lines = ["{%- set ns = namespace(before='', system='') -%}", "{%- for message in messages -%}"]
    lines.append("{%- set content = message.content" + (" | trim -%}" if trims else " -%}"))
    for n, ((before, role), text) in enumerate(added.items()):
        condition = f"ns.before == {_ROLES[before][0] if before else ''!r} and message.role == {_ROLES[role][0]!r}"
        lines.append(f"{{%- {'elif' if n else 'if'} {condition} -%}}")
        lines.append("".join(_expressions(text, role)))
    lines.append("{%- else -%}{{- raise_exception('roles must alternate: ' + message.role + ' after ' + ns.before) -}}")
    lines.append("{%- endif -%}{%- set ns.before = message.role -%}")
    lines.append("{%- if message.role == 'system' -%}{%- set ns.system = content -%}{%- endif -%}")
    lines.append("{%- endfor -%}{%- if add_generation_prompt -%}")
    lines += [*_expressions(answer, ""), "{%- endif -%}"]
    return "".join(lines)


def _expressions(text: str, role: str) -> list[str]:
    """Return expressions for a text in which marks stand for the contents of messages."""
    parts = _CONTENT.split(text)
    result = []
    for i, part in enumerate(parts):
        if i % 2:
            result.append("{{- content -}}" if part.lower() == role else "{{- ns.system -}}")
        elif part:
            escaped = part.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
            result.append(f"{{{{- '{escaped}' -}}}}")
    return result
