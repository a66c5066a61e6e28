"""Many long requests of one key, and a single one of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from ..support.server import ServerProcess

CHAT = "/v1/chat/completions"
LONG: Any = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "max_tokens": 19_000}
PLACES, QUEUE = 2, 4


@pytest.fixture(scope="module")
def small() -> Iterator[ServerProcess]:
    options = ("--option", f"n_parallel={PLACES}", "--option", "n_ctx=20000", "--max-queue", f"{QUEUE}")
    with ServerProcess(*options, "--api-key", "many", "--api-key", "single", "--admin-key", "admin") as server:
        server.http.headers["Authorization"] = "Bearer admin"  # for metrics
        yield server


def begin(stack: ExitStack, server: ServerProcess, key: str) -> httpx.Response:
    """Return the response with a stream, once it has begun."""
    headers = {"Authorization": f"Bearer {key}"}
    request = server.http.build_request("POST", CHAT, json=LONG | {"stream": True}, headers=headers)
    response = server.http.send(request, stream=True)
    stack.callback(response.close)
    return response


def test_a_key_with_many_long_requests_does_not_hold_up_another_one(small: ServerProcess):
    with ExitStack() as stack:
        many = [begin(stack, small, "many").iter_lines() for _ in range(PLACES + QUEUE)]
        for lines in many:  # all have begun
            assert next(line for line in lines if '"content"' in line)
        headers = {"Authorization": "Bearer single"}
        answer = small.http.post(CHAT, json=LONG | {"max_tokens": 50}, headers=headers)
        assert answer.json()["usage"]["completion_tokens"] == 50
        small.wait_for("cyllama_running", PLACES)  # fewer for a moment, while one is paused for another
        small.wait_for("cyllama_waiting", QUEUE)  # no long one has ended meanwhile
    small.wait_until_idle()


def test_a_full_queue_has_a_part_for_every_key(small: ServerProcess):
    with ExitStack() as stack:
        assert [begin(stack, small, "many").status_code for _ in range(PLACES + QUEUE + 1)] == [200] * 6 + [429]
        assert [begin(stack, small, "single").status_code for _ in range(4)] == [200] * 3 + [429]
    small.wait_until_idle()
