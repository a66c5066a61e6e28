"""What a request is routed by: the model that it names, and the conversation that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import Headers

from cyllama_server.chat_request import ChatRequest
from cyllama_server.completions import CompletionRequest
from cyllama_server.conversations import conversation_of
from cyllama_server.errors import ApiError
from cyllama_server.messages_request import MessagesRequest
from cyllama_server.responses_request import ResponsesRequest

KEY_DIGITS = 16
MOST_CHARACTERS = 256  # of the first line of a prompt, which goes on when the next request is longer

_RESPONSE = "resp_"
_RANDOM_DIGITS = 32  # of the id of a response, behind its key


class Route(NamedTuple):
    """Where a request goes.

    Attributes:
        model: The model that it names.
        key: The key of its conversation: the same for all of its requests; empty for requests that belong to none.
    """

    model: str | None = None
    key: str = ""


def key_of(tenant: str, conversation: str | None, history: str | Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the key of a conversation: of its name, or else of the beginning of its history.

    >>> one = key_of("", None, [{"role": "user", "content": "Hello"}])
    >>> one == key_of("", None, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}])
    True
    >>> one == key_of("acme", None, [{"role": "user", "content": "Hello"}])
    False

    Args:
        tenant: Its owner. Equal conversations of different tenants have different keys.
        conversation: Its name.
        history: All messages, of which the first one after the system's counts and what comes before it; or a prompt,
            of which the first line counts.
    """
    what = ["name", conversation] if conversation is not None else ["beginning", _beginning(history)]
    text = json.dumps([tenant, *what], default=str, sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=KEY_DIGITS // 2).hexdigest()


def _beginning(history: str | Sequence[Mapping[str, Any]]) -> Any:
    if isinstance(history, str):
        return history[:MOST_CHARACTERS].partition("\n")[0]
    opening: list[Any] = []
    for message in history:
        opening.append([message.get("role"), message.get("content")])
        if message.get("role") not in ("system", "developer"):
            break
    return opening


def key_of_response(response_id: str) -> str:
    """Return the key that the id of a response begins with; an empty text if it has none.

    >>> key_of_response("resp_" + "0123456789abcdef" + 32 * "f")
    '0123456789abcdef'
    """
    digits = response_id.removeprefix(_RESPONSE)
    return digits[:KEY_DIGITS] if len(digits) == KEY_DIGITS + _RANDOM_DIGITS else ""


def route(method: str, path: str, headers: Headers, body: bytes, tenant: str) -> Route:
    """Return where a request goes. One that is not valid goes anywhere: the server there says what is wrong.

    Args:
        method: The method of HTTP.
        path: The path of the URL.
        headers: The headers.
        body: The body.
        tenant: Who asks.
    """
    if path.startswith("/v1/responses/"):
        return Route(key=key_of_response(path.removeprefix("/v1/responses/")))
    if path.startswith("/v1/sessions/") and path != "/v1/sessions/load":
        name = path.removeprefix("/v1/sessions/")
        if method == "POST":
            name = name.rpartition("/")[0]
        return Route(key=key_of(tenant, name))
    try:
        value = from_json(body) if body else {}
    except ValueError:
        return Route()
    if not isinstance(value, dict):
        return Route()
    model = value.get("model") if isinstance(value.get("model"), str) else None
    try:
        return Route(model, _key(path, headers, value, tenant))
    except (ApiError, ValidationError):
        return Route(model)


def _key(path: str, headers: Headers, value: dict[str, Any], tenant: str) -> str:
    if path == "/v1/sessions/load":
        return key_of(tenant, str(value.get("conversation")))
    kind = _KINDS.get(path)
    if kind is None:
        return ""
    request: Any = kind.model_validate(value)
    conversation = conversation_of(request, headers)
    if isinstance(request, MessagesRequest):
        conversation = conversation or request.session_of_agent
    if isinstance(request, ResponsesRequest):
        if request.previous_response_id is not None:
            return key_of_response(request.previous_response_id)
        return key_of(tenant, conversation, request.history([]))
    if isinstance(request, CompletionRequest):
        first = request.prompts[0]
        return key_of(tenant, conversation, first if isinstance(first, str) else str(first[:KEY_DIGITS]))
    return key_of(tenant, conversation, request.history)


_KINDS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/messages": MessagesRequest,
    "/v1/responses": ResponsesRequest,
}
