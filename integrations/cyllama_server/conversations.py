"""Which conversation a request belongs to, and what of its messages counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers

from .errors import ApiError

HEADERS = ("x-session-id", "x-conversation-id", "x-litellm-session-id", "x-claude-code-session-id")
"""Headers in which clients name a conversation, the most explicit one first."""

VOLATILE = "x-anthropic-"
"""What lines of a system text begin with that are about the request, and differ in every one."""

MOST_CHARACTERS = 512


class NamesConversation(BaseModel):
    """The fields by which a request names its conversation.

    `user` and `safety_identifier` name a person, who may have many conversations, and so none of these.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    session_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt_cache_key: str | None = None


def conversation_of(body: NamesConversation, headers: Headers) -> str | None:
    """Return the name of the conversation that a request belongs to; `None` if its history has to tell.

    Raises:
        ApiError: A name is not one.
    """
    whole = body.conversation if not isinstance(body.conversation, dict) else body.conversation.get("id")
    named = (body.session_id, *(headers.get(name) for name in HEADERS), whole, body.prompt_cache_key)
    name = next((each for each in named if each not in (None, "")), None)
    if name is None:
        return None
    if not isinstance(name, str) or len(name) > MOST_CHARACTERS or not name.isprintable():
        raise ApiError(
            400, f"the name of a conversation is a text of at most {MOST_CHARACTERS} characters, not {name!r:.80}"
        )
    return name


def stable_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    r"""Return messages without the lines of system texts that differ in every request: no prefix would be known.

    >>> stable_messages([{"role": "system", "content": "x-anthropic-billing: 7f\nBe brief."}])
    [{'role': 'system', 'content': 'Be brief.'}]
    """
    return [each for message in messages if (each := _stable(message)) is not None]


def _stable(message: Mapping[str, Any]) -> dict[str, Any] | None:
    content = message.get("content")
    if message.get("role") not in ("system", "developer") or VOLATILE not in str(content):
        return dict(message)
    if isinstance(content, str):
        content = stable_text(content)
    elif isinstance(content, Sequence):
        content = [part for part in map(_stable_part, content) if part is not None]
    return dict(message) | {"content": content} if content else None


def _stable_part(part: Any) -> Any:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        return part
    text = stable_text(part["text"])
    return dict(part) | {"text": text} if text else None


def stable_text(text: str) -> str:
    """Return a system text without the lines that differ in every request."""
    if VOLATILE not in text:
        return text
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(VOLATILE))
