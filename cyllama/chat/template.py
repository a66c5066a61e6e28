"""A chat as the model was trained to read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from ..errors import ChatTemplateError
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
    """
    if model.chat_template() is None:
        raise ChatTemplateError("the model has no chat template: pass a prompt as text instead of messages")
    if not messages:
        raise ChatTemplateError("there are no messages")
    try:
        pairs = [(message["role"], message["content"]) for message in messages]
        return LlamaChatTemplates(model).apply(pairs)
    except (KeyError, TypeError) as error:
        raise ChatTemplateError(f"a message is a dict with 'role' and 'content', both str: {error}") from error
    except RuntimeError as error:
        raise ChatTemplateError(f"the model's chat template refuses these messages: {error}") from error
