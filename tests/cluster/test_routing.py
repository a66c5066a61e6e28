"""What a request is routed by: the names that the server reads, too, or the beginning of its history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.datastructures import Headers

from ray_cyllama.routing import KEY_DIGITS, Route, key_of, route

CHAT = "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello"}


def routed(body: Any, path: str = CHAT, headers: dict[str, str] | None = None, tenant: str = "") -> Route:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return route("POST", path, Headers(headers or {}), raw, tenant)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"session_id": "ada"}, {}),
        ({"conversation": {"id": "ada"}}, {}),
        ({"prompt_cache_key": "ada"}, {}),
        ({}, {"X-Session-Id": "ada"}),
        ({}, {"x-claude-code-session-id": "ada"}),
    ],
)
def test_a_named_conversation_has_one_key_whatever_its_messages_are(fields: dict[str, Any], headers: dict[str, str]):
    first = routed({"messages": [HELLO], **fields}, headers=headers)
    later = routed({"messages": [{"role": "user", "content": "Another"}], **fields}, headers=headers)
    assert first.key == later.key == key_of("", "ada")
    assert len(first.key) == KEY_DIGITS


def test_the_apis_agree_on_the_key_of_a_conversation():
    system = {"role": "system", "content": "Be brief."}
    chat = routed({"messages": [system, HELLO]})
    anthropic = {"system": "Be brief.", "messages": [HELLO], "max_tokens": 8}
    assert routed(anthropic, "/v1/messages").key == chat.key
    assert routed({"instructions": "Be brief.", "input": "Hello"}, "/v1/responses").key == chat.key


def test_a_history_that_grows_keeps_its_key_and_lines_that_differ_do_not_count():
    volatile = [{"role": "system", "content": f"x-anthropic-billing: {i}\nBe brief."} for i in range(2)]
    answer = {"role": "assistant", "content": "Hi!"}
    assert routed({"messages": [volatile[0], HELLO]}).key == routed({"messages": [volatile[1], HELLO, answer]}).key
    assert routed({"prompt": "One line\nand"}, "/v1/completions").key == key_of("", None, "One line\nand more")


def test_agents_name_their_session_in_the_metadata():
    body = {"messages": [HELLO], "max_tokens": 8, "metadata": {"session_id": "ada"}}
    assert routed(body, "/v1/messages").key == key_of("", "ada")


def test_tenants_have_keys_of_their_own():
    assert len({routed({"messages": [HELLO]}, tenant=tenant).key for tenant in ("", "acme", "other")}) == 3
    assert key_of("acme", "ada") != key_of("other", "ada")


def test_what_continues_a_response_goes_where_that_was_made():
    key = key_of("", "ada")
    response_id = f"resp_{key}{32 * '0'}"
    body = {"input": "And then?", "previous_response_id": response_id}
    assert routed(body, "/v1/responses").key == key
    assert route("GET", f"/v1/responses/{response_id}", Headers(), b"", "").key == key
    assert routed({"input": "And then?", "previous_response_id": "resp_unknown"}, "/v1/responses").key == ""


def test_routes_of_a_session_go_to_its_conversation():
    for method, path in (("GET", "ada"), ("DELETE", "ada"), ("POST", "ada/fork"), ("POST", "ada/save")):
        assert route(method, f"/v1/sessions/{path}", Headers(), b"", "").key == key_of("", "ada")
    assert routed({"file": "a", "conversation": "ada"}, "/v1/sessions/load").key == key_of("", "ada")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"messages": 1}', b'{"messages": [], "session_id": 7}', b"\xff"])
def test_what_is_not_valid_goes_anywhere(body: bytes):
    assert routed(body).key == ""


def test_the_model_is_found_even_where_the_rest_is_not_valid():
    assert routed({"model": "big", "messages": None}) == Route("big", "")
    assert routed({"model": "big", "input": ["a"]}, "/v1/embeddings") == Route("big", "")
