"""Requests that are wrong in every way: each is a client's error in the form of the API, and the next one works."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ..support.malformed import KINDS
from ..support.server import ServerProcess

CHAT, MESSAGES = "/v1/chat/completions", [{"role": "user", "content": "Hi."}]
JSON = {"content-type": "application/json"}

#: For each field, values that are not valid.
WRONG: dict[str, list[Any]] = {
    "messages": [
        None, [], "Hi.", {}, [1], [[]], [{}], [{"role": "user"}], [{"content": "x"}],
        [{"role": "robot", "content": ""}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": {"a": 1}}], [{"role": 7, "content": "x"}],
        [{"role": "user", "content": [{"type": "video", "video": "x"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 1}]}], [{"role": "user", "content": ["x"]}],
        [{"role": "tool", "content": "x", "tool_call_id": "none"}],
        [*MESSAGES, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
        [*MESSAGES, {"role": "assistant", "tool_calls": "x"}], [*MESSAGES, {"role": "assistant", "tool_calls": [1]}],
        [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}], [{"role": "user"}] * 10_000,
    ],
    "model": [5, "nope", ["tiny-chat"], {}, "../../etc/passwd", "x" * 100_000],
    "temperature": ["hot", -1, [], {}, True, 1e300], "top_p": [-0.1, 1.1, "1"], "top_k": [-5, 1.5, "x"],
    "n": [0, -1, 1.5, "2", 10**6], "max_tokens": [-2, 0, 1.5, "many", 10**30], "max_completion_tokens": [-7, {}],
    "stop": [5, [5], {"a": 1}, ["x"] * 1000, [None]], "seed": [1.5, "x", []],
    "logit_bias": ["x", {"x": 1}, {"1": "x"}, {"99999999": 1}, [[1]], [[-1, 2]], [["x", True]], {"-1": 1}],
    "logprobs": ["yes", 5], "top_logprobs": [21, -1, "x", 3], "stream": ["yes", 1],
    "stream_options": ["x", {"include_usage": 3}],
    "tools": [
        "x", [1], [{}], [{"type": "function"}], [{"type": "function", "function": {"name": "a b"}}],
        [{"type": "web_search", "function": {"name": "a"}}], [{"type": "function", "function": {"name": "x" * 200}}],
        [{"type": "function", "function": {"name": "f", "parameters": [1]}}],
        [{"type": "function", "function": {"name": "f"}}] * 2, [{"type": "function", "function": {"name": 5}}],
        [{"type": "function", "function": {"name": f"f{i}"}} for i in range(200)],
    ],
    "tool_choice": ["required", "nope", 5, {"type": "function"}, {"type": "function", "function": {"name": "nope"}}],
    "response_format": [
        "json", 5, [], {"type": "nope"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": 5},
        {"type": "json_schema", "json_schema": {"schema": {"type": "colour"}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}},
        {"type": "json_schema", "json_schema": {"schema": {"enum": []}}},
        {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "("}}},
        {"type": "json_schema", "json_schema": {"schema": {"minimum": 5, "maximum": 1, "type": "integer"}}},
    ],
    "grammar": [5, "this is not GBNF", "root ::= nowhere", "root ::= root", "x" * 3_000_000],
    "json_schema": ["x", {"type": "colour"}], "samplers": ["x", ["nope"]], "mirostat": [9, "x"],
    "speculation": ["nope", "draft", 5],
    "dry_sequence_breakers": [5, [5], [""]], "repeat_penalty": [-1, 0, "x"], "lora": [{"nope": 1}, [{}], 5],
    "reasoning_effort": ["extreme", 5], "chat_template_kwargs": [5, "x", []], "reasoning_budget": [-9, "x"],
    "session_id": [5, [], "x" * 1000, "a\nb"], "conversation": [5, {"id": 5}], "prompt_cache_key": [5, {}],
    "parallel_tool_calls": ["yes", 5], "continue_final_message": ["x"], "xtc_probability": [2], "n_probs": [-1, 10**9],
}  # fmt: skip

BODIES: list[bytes] = [
    b"", b"null", b"[]", b"5", b'"x"', b"{", b"}", b"{'messages': 1}", b"\xff\xfe{}", b"\x00", b"{}" * 2, b"NaN",
    json.dumps({"messages": MESSAGES}).encode("utf-16"), b'{"messages": [{"role": "user", "content": "\xe9"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}', b"[" * 100_000, b'{"a":' * 50_000, b"messages=Hi",
    b'{"messages": ' + json.dumps(MESSAGES).encode() + b', "temperature": Infinity}', b"--x\r\n\r\n--x--",
    b'{"messages": ' + json.dumps(MESSAGES).encode() + b', "seed": ' + b"9" * 5000 + b"}", b"<xml/>", b"%00%ff",
]  # fmt: skip

OTHERS: list[tuple[str, dict[str, Any]]] = [
    *(("/v1/completions", {"prompt": wrong}) for wrong in (None, 5, [], {}, [[]], ["a", 1], [1.5], [-1], [10**9], "")),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}), ("/v1/completions", {"prompt": "x", "best_of": 5}),
    ("/v1/completions", {"prompt": ["x"] * 1000}), ("/v1/completions", {"prompt": "x " * 100_000}),
    *(("/v1/embeddings", {"input": wrong}) for wrong in (None, 5, [], "", [""], {}, [1.5], ["x"] * 5000, [-1])),
    ("/v1/embeddings", {"input": "x", "dimensions": 10**6}),
    ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}),
    *(("/v1/rerank", {"query": "x", "documents": wrong}) for wrong in (None, [], [5], [{}], "x")),
    ("/v1/rerank", {"query": "x", "documents": ["y"]}), ("/tokenize", {}), ("/tokenize", {"content": 5}),
    ("/detokenize", {"tokens": "x"}), ("/detokenize", {"tokens": [-1]}), ("/detokenize", {"tokens": [10**12]}),
    ("/v1/sessions/none/fork", {"conversation": "x"}), ("/v1/sessions/none/save", {"file": "x"}),
    ("/v1/sessions/load", {"file": "../../etc/passwd", "conversation": "x"}), ("/v1/nowhere", {}), ("/", {}),
]  # fmt: skip

HEADERS: list[dict[str, str]] = [
    {"host": "evil.example"}, {"host": ""}, {"host": "[::1"}, {"origin": "https://evil.example"}, {"origin": "null"},
    {"x-session-id": "x" * 2000},
]  # fmt: skip


def requests() -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Yield all malformed requests: method, path, body and headers."""
    for field, values in WRONG.items():
        for value in values:
            yield "POST", CHAT, json.dumps({"messages": MESSAGES, "max_tokens": 1} | {field: value}).encode(), JSON
    for body in BODIES:
        yield "POST", CHAT, body, JSON
    for path, value in OTHERS:
        yield "POST", path, json.dumps(value).encode(), JSON
    for headers in HEADERS:
        yield "POST", CHAT, json.dumps({"messages": MESSAGES, "max_tokens": 1}).encode(), {**JSON, **headers}
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        yield method, CHAT, b"", {}
    long: Any = [{"role": "user", "content": "word " * 50_000}]
    yield "POST", CHAT, json.dumps({"messages": long}).encode(), JSON


ALL = list(requests())

#: What errors say: the value, the limit, and what to do instead.
SAID: list[tuple[str, dict[str, Any], str]] = [
    ("/v1/completions", {"prompt": ["x"] * 1000}, "expected 1 to 128 answers in all, of each prompt n, not 1000"),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}, "text before a suffix cannot be generated: leave it out"),
    ("/v1/completions", {"prompt": "x", "best_of": 5}, "best_of: expected the value of n, 1, not 5"),
    ("/v1/rerank", {"query": "x", "documents": [{}]}, "expected a text, or an object with one as 'text', not {}"),
    ("/v1/responses", {"input": "x", "background": True}, "is made while its client waits: leave it out"),
    ("/v1/responses", {"input": [{"type": "web"}]}, "an item of type 'web' cannot be read here, but message, "),
    ("/v1/responses", {"input": "x", "previous_response_id": "y"}, "'y': it is not stored, or was forgotten;"),
    ("/v1/sessions/none/fork", {"conversation": "x"}, "no session 'none': GET /v1/sessions lists them"),
]


@pytest.mark.parametrize(("path", "body", "said"), SAID)
def test_an_error_says_what_to_do_instead(server: ServerProcess, path: str, body: dict[str, Any], said: str):
    response = server.http.post(path, json=body)
    assert is_clients_error(response)
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_enough_of_each_kind(kind: str):
    assert len(set(KINDS[kind]())) >= 200


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_requests_of_each_kind_are_the_clients_error_and_the_next_one_works(
    server: ServerProcess, kind: str, every: int
):
    wrong: list[str] = []
    for path, body, headers in list(KINDS[kind]())[::every]:
        response = server.http.post(path, content=body, headers=[*JSON.items(), *headers])
        if not is_clients_error(response):
            wrong.append(f"{body[:150]!r} {headers}: {response.status_code} {response.text[:200]}")
    assert wrong == []
    assert server.http.post(CHAT, json={"messages": MESSAGES, "max_tokens": 1}).status_code == 200
    assert "Traceback" not in server.log


@pytest.mark.parametrize("part", range(4))
def test_a_malformed_request_is_the_clients_error_and_the_next_one_works(server: ServerProcess, part: int):
    wrong: list[str] = []
    for method, path, body, headers in ALL[part::4]:
        try:
            response = server.http.request(method, path, content=body, headers=headers)
        except (httpx.ProtocolError, httpx.NetworkError):
            continue  # no HTTP: one of both sides ended the connection
        if not is_clients_error(response):
            wrong.append(f"{path} {body[:150]!r} {headers}: {response.status_code} {response.text[:200]}")
    assert wrong == []
    good = {"messages": MESSAGES, "max_tokens": 1}
    assert server.http.post(CHAT, json=good).status_code == 200
    assert "Traceback" not in server.log


def is_clients_error(response: httpx.Response) -> bool:
    """Whether a response is an error of the client in the form of the API; what is not HTTP has a plain text."""
    if not 400 <= response.status_code < 500:
        return False
    if response.headers["content-type"].startswith("text/plain"):
        return response.text == "Invalid HTTP request received."
    error = response.json()["error"]
    return bool(error["message"]) and bool(error["type"]) and {"param", "code"} <= error.keys()


#: Heads of requests that no client makes: each ends the connection, or gets an answer that begins with 4.
HEADS = [
    "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999999\r\n\r\n",
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: -5\r\n\r\n",
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: nonsense\r\n\r\n",
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "POST {path} HTTP/1.1\r\n\r\n",
    "POST {path} HTTP/9.9\r\nHost: {host}\r\n\r\n",
    "POST {path}\r\n\r\n",
    "\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nX: " + "x" * 100_000 + "\r\n\r\n",
    "GET /" + "x" * 100_000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n",
]


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_what_is_not_http_ends_the_connection(server: ServerProcess, head: str):
    url = urlsplit(server.url)
    answer = b""
    with socket.create_connection((url.hostname, url.port)) as connection, suppress(OSError):
        connection.sendall(head.format(path=CHAT, host=url.netloc).encode())  # the server may end it before the end
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            answer += data
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert server.http.get("/health").status_code == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read():
    with ServerProcess("--max-body-mb", "0.01") as server:
        good = {"messages": MESSAGES, "max_tokens": 1}
        large = server.http.post(CHAT, json=good | {"user": "x" * 20_000})
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")

        def chunks() -> Iterator[bytes]:
            for _ in range(30):
                yield b" " * 1000

        with suppress(httpx.NetworkError):  # the server may end the connection before all is sent
            assert server.http.post(CHAT, content=chunks()).status_code == 413
        assert server.http.post(CHAT, json=good).status_code == 200


def test_a_body_that_does_not_arrive_is_not_waited_for():
    with ServerProcess("--max-body-s", "0.2") as server:
        url = urlsplit(server.url)
        for end in ("Content-Length: 50\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"):
            with socket.create_connection((url.hostname, url.port)) as connection:
                connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: {url.netloc}\r\n{end}".encode())
                answer = b""
                while data := connection.recv(65536):  # until the server ends the connection
                    answer += data
            assert answer.startswith(b"HTTP/1.1 408")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
        assert server.http.post(CHAT, json={"messages": MESSAGES, "max_tokens": 1}).status_code == 200


def test_random_values_never_break_the_server(server: ServerProcess):
    rng = random.Random(5)
    values = [
        None,
        0,
        -1,
        1.5,
        "",
        "x",
        [],
        {},
        [[]],
        {"a": {}},
        True,
        10**40,
        "\x00",
        "\U0010ffff",
        [None],
        "a" * 5000,
    ]
    fields = [*WRONG, "prompt", "user", "metadata", "store", "audio"]
    for _ in range(80):
        body = {"messages": MESSAGES, "max_tokens": 1}
        body |= {rng.choice(fields): rng.choice(values) for _ in range(rng.randint(1, 3))}
        assert server.http.post(CHAT, json=body).status_code < 500, body
    assert "Traceback" not in server.log
