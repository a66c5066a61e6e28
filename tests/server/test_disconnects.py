"""A client that goes away frees its place, wherever its request is."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ..support.server import ServerProcess

LONG: Any = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "max_tokens": 19_000}
ROOM = ("--option", "n_ctx=20000")  # for an answer that does not end before its client leaves, however late that is


@pytest.fixture(scope="module")
def busy() -> Iterator[ServerProcess]:
    """A server that answers one request at a time."""
    with ServerProcess("--option", "n_parallel=1", *ROOM, "--max-queue", "2") as server:
        yield server


def connect(server: ServerProcess, body: dict[str, Any], path: str = "/v1/chat/completions") -> socket.socket:
    """Send a request, and return the connection without reading the answer."""
    url = urlsplit(server.url)
    connection = socket.create_connection((url.hostname, url.port))
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_client_that_goes_away_ends_its_generation(busy: ServerProcess, stream: bool, path: str):
    body = LONG | {"stream": stream, "prompt": "Once upon a time"}
    with connect(busy, body, path):
        busy.wait_for("cyllama_running", 1)
    busy.wait_until_idle()
    assert busy.http.post("/v1/chat/completions", json=LONG | {"max_tokens": 1}).status_code == 200


def test_a_client_that_goes_away_while_it_waits_leaves_the_line(busy: ServerProcess):
    with connect(busy, LONG | {"stream": True}):
        busy.wait_for("cyllama_running", 1)
        with connect(busy, LONG | {"stream": True}):
            busy.wait_for("cyllama_waiting", 1)
        busy.wait_for("cyllama_waiting", 0)
        busy.wait_for("cyllama_running", 1)
    busy.wait_until_idle()


def test_clients_that_go_away_together_are_not_missed(busy: ServerProcess):
    for _ in range(30):  # the first token of one comes as another one leaves
        n_before = busy.metric("cyllama_completion_tokens_total")
        connections = [connect(busy, LONG | {"stream": True}) for _ in range(3)]
        busy.wait_for("cyllama_waiting", 2)
        for connection in connections:
            connection.close()
        busy.wait_until_idle()
        assert busy.metric("cyllama_completion_tokens_total") - n_before < LONG["max_tokens"], "one went on to its end"


def test_a_full_queue_says_when_to_come_again(busy: ServerProcess):
    connections = [connect(busy, LONG | {"stream": True}) for _ in range(3)]
    busy.wait_for("cyllama_waiting", 2)
    assert busy.metric("cyllama_requests_in_progress") == 3
    refused = busy.http.post("/v1/chat/completions", json=LONG)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    counted = busy.http.post("/v1/messages/count_tokens", json={"messages": LONG["messages"]})
    assert counted.json()["input_tokens"] > 0, "what generates nothing does not wait"
    for connection in connections:
        connection.close()
    busy.wait_until_idle()
    assert busy.http.post("/v1/chat/completions", json=LONG | {"max_tokens": 1}).status_code == 200


def test_a_client_that_has_read_a_stream_to_its_end_leaves_no_place_taken():
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 2}
    with ServerProcess("--option", "n_parallel=1", "--max-queue", "0") as server:
        answers = [server.http.post("/v1/chat/completions", json=body) for _ in range(200)]
        assert {answer.status_code for answer in answers} == {200}


def test_a_stream_that_is_silent_says_that_it_is_alive():
    arguments = ("--keep-alive-s", "0.001", "--option", "n_parallel=1", *ROOM)
    with ServerProcess(*arguments) as server, connect(server, LONG | {"stream": True}):
        server.wait_for("cyllama_running", 1)
        with server.http.stream("POST", "/v1/chat/completions", json=LONG | {"stream": True}) as response:
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["content-type"].startswith("text/event-stream")
            assert next(line for line in response.iter_lines() if line.startswith(":")) == ": keep-alive"


def test_an_answer_that_takes_too_long_ends_with_what_there_is():
    with ServerProcess("--max-time-s", "1", *ROOM) as server:
        answer = server.http.post("/v1/chat/completions", json=LONG | {"logit_bias": {"0": 1}}).json()
        [choice] = answer["choices"]
        assert (choice["finish_reason"], bool(choice["message"]["content"])) == ("length", True)
        assert answer["usage"]["completion_tokens"] < LONG["max_tokens"]


def test_an_answer_whose_session_is_deleted_ends_and_says_why():
    with ServerProcess(*ROOM) as server, ThreadPoolExecutor(1) as pool:
        url = f"{server.url}/v1/chat/completions"
        asked = pool.submit(httpx.post, url, json=LONG | {"session_id": "ada"}, timeout=None)
        server.wait_for("cyllama_running", 1)
        assert server.http.delete("/v1/sessions/ada").json()["deleted"] is True
        answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "cancelled"
        assert "the session was deleted" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("seconds", "finish"), [("0", None), ("60", "length")])
def test_a_shutdown_finishes_or_cancels_what_runs(seconds: str, finish: str | None):
    with ServerProcess("--shutdown-s", seconds, *ROOM) as server:
        body = LONG | {"stream": True} | ({"max_tokens": 300} if finish else {})
        with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            stopping = server.stop_soon()
            reasons = list(_finish_reasons(lines))
        stopping.join()
        assert reasons == ([] if finish is None else [finish])


def _finish_reasons(lines: Iterator[str]) -> Iterator[str]:
    try:
        for line in lines:
            if line.startswith("data: {"):
                choices = json.loads(line[6:]).get("choices") or [{}]
                if reason := choices[0].get("finish_reason"):
                    yield reason
    except httpx.TransportError:  # the connection was cut
        return


@pytest.mark.slow
def test_a_connection_may_rest_between_two_requests(server: ServerProcess):
    url = urlsplit(server.url)
    with closing(http.client.HTTPConnection(str(url.hostname), url.port, timeout=120)) as connection:
        for seconds in (7, 0):  # longer than httpx rests a connection, which may be about to send just then
            connection.request("GET", "/v1/models")
            response = connection.getresponse()
            assert (response.status, bool(response.read())) == (200, True)
            time.sleep(seconds)
