"""A chat as the model was trained to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..errors import ChatTemplateError, PromptError
from ..llama.llama_cpp import LlamaChatTemplates, LlamaModel


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


def render(model: LlamaModel, messages: Sequence[Message]) -> str:
    """Return the prompt for ``messages``, which ends where the assistant's answer begins.

    The template is the model's own, rendered by llama.cpp's Jinja engine (``common_chat_templates_apply``).

    Raises:
        ChatTemplateError: The model has no template, or it refuses the messages.
        PromptError: A message has lone surrogates.
    """
    if model.chat_template() is None:
        raise ChatTemplateError("the model has no chat template: pass a prompt as text instead of messages")
    pairs = [_role_and_content(message) for message in messages]
    if not pairs:
        raise ChatTemplateError("there are no messages")
    try:
        return LlamaChatTemplates(model).apply(pairs)
    except RuntimeError as error:
        raise ChatTemplateError(f"the model's chat template refuses these messages: {error}") from error


def _role_and_content(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise ChatTemplateError(f"a message is a dict with 'role' and 'content', not {type(message).__name__}")
    for key in ("role", "content"):
        value = message.get(key)
        if not isinstance(value, str):
            raise ChatTemplateError(f"the {key!r} of a message is a str, not {type(value).__name__}: {value!r:.80}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PromptError(f"the {key!r} of a message has a lone surrogate at index {error.start}") from error
    return message["role"], message["content"]
