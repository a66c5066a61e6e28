"""Sessions without a change in the client: a request evaluates only what is new in its conversation."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from ..support.server import ServerProcess


def talk(
    client: openai.OpenAI, texts: list[str], system: str = "", headers: dict[str, str] | None = None, **options: Any
) -> list[Any]:
    """Say some texts in one conversation, as a client does that sends all of it every time; return all usages."""
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    usages: list[Any] = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        completion = client.chat.completions.create(
            model="tiny-chat", messages=messages, temperature=0, max_tokens=16, extra_headers=headers, **options
        )
        messages.append({"role": "assistant", "content": completion.choices[0].message.content})
        usages.append(completion.usage)
    return usages


def cached(usage: Any) -> int:
    return usage.prompt_tokens_details.cached_tokens


def test_the_next_message_evaluates_only_what_is_new(client: openai.OpenAI):
    first, second, third = talk(client, ["My name is Ada.", "What is my name?", "Thank you, and good bye."])
    assert cached(second) >= first.prompt_tokens
    assert cached(third) >= second.prompt_tokens


@pytest.mark.parametrize(
    ("headers", "options"),
    [
        ({"X-Session-Id": "by header"}, {}),
        ({"x-litellm-session-id": "by litellm"}, {}),
        ({}, {"prompt_cache_key": "by cache key"}),
        ({}, {"extra_body": {"session_id": "by session id"}}),
        ({}, {"extra_body": {"conversation": {"id": "by conversation"}}}),
    ],
)
def test_a_conversation_may_have_a_name(
    client: openai.OpenAI, server: ServerProcess, headers: dict[str, str], options: dict[str, Any]
):
    first, second = talk(client, ["I like tea.", "What do I like?"], headers=headers, **options)
    assert cached(second) >= first.prompt_tokens
    name = [*headers.values(), *str(options).split("'")]
    listed = [session["conversation"] for session in server.http.get("/v1/sessions").json()["data"]]
    assert any(each in name for each in listed if each)


def test_the_lines_that_differ_in_every_request_are_left_out(client: openai.OpenAI):
    rules = "You are a careful assistant who answers in one short sentence, and who never invents anything."
    [first] = talk(client, ["Where is Rome?"], system=f"x-anthropic-billing-header: cch=1a2b;\n{rules}")
    [again] = talk(client, ["Where is Rome?"], system=f"x-anthropic-billing-header: cch=9f8e;\n{rules}")
    assert cached(again) == first.prompt_tokens - 1


def test_interleaved_conversations_keep_what_they_know(client: openai.OpenAI):
    histories: list[list[Any]] = [[{"role": "user", "content": f"My number is {i}{i}{i}."}] for i in range(4)]
    for turn in range(3):
        for i, messages in enumerate(histories):
            completion = client.chat.completions.create(
                model="tiny-chat", messages=messages, temperature=0, max_tokens=12
            )
            assert completion.usage is not None
            if turn:
                assert cached(completion.usage) > 8 * turn
            messages.append({"role": "assistant", "content": completion.choices[0].message.content})
            messages.append({"role": "user", "content": f"And number {i}?"})
