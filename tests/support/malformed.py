"""Requests that are wrong, by the kind of what is wrong with them: hundreds of each, all different."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

CHAT = "/v1/chat/completions"
MESSAGES: list[Any] = [{"role": "user", "content": "Hi."}]
GOOD: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 1}


class Malformed(NamedTuple):
    """A request that is to be refused.

    Attributes:
        path: Where it goes.
        body: Its body.
        headers: Headers beside those that every request has.
    """

    path: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def chat(**fields: Any) -> Malformed:
    return Malformed(CHAT, json.dumps(GOOD | fields).encode())


# -------------------- types

_VALUES: dict[str, list[Any]] = {
    "text": ["x", "", "[]", "5"],
    "integer": [0, 7, -3, 10**12],
    "float": [0.5, -1.5],
    "truth": [True, False],
    "list": [[], [1], ["x"], [[]], [None]],
    "object": [{}, {"a": 1}],
}
_NUMBER, _INTEGER, _TRUTH, _TEXT = {"integer", "float"}, {"integer"}, {"truth"}, {"text"}
_TYPES: dict[str, set[str]] = {
    "messages": {"list"}, "model": _TEXT, "n": _INTEGER, "stream": _TRUTH, "stream_options": {"object"},
    "tools": {"list"}, "tool_choice": {"text", "object"}, "parallel_tool_calls": _TRUTH, "functions": {"list"},
    "function_call": {"text", "object"}, "response_format": {"object"}, "json_schema": {"object"}, "grammar": _TEXT,
    "logprobs": _TRUTH, "top_logprobs": _INTEGER, "reasoning_effort": _TEXT, "chat_template_kwargs": {"object"},
    "enable_thinking": _TRUTH, "reasoning_budget": _INTEGER, "continue_final_message": _TRUTH,
    "max_tokens": _INTEGER, "max_completion_tokens": _INTEGER, "n_predict": _INTEGER, "temperature": _NUMBER,
    "top_p": _NUMBER, "frequency_penalty": _NUMBER, "presence_penalty": _NUMBER, "seed": _INTEGER,
    "stop": {"text", "list"}, "logit_bias": {"list", "object"}, "top_k": _INTEGER, "min_p": _NUMBER,
    "typical_p": _NUMBER, "repeat_penalty": _NUMBER, "repeat_last_n": _INTEGER, "dry_multiplier": _NUMBER,
    "dry_base": _NUMBER, "xtc_probability": _NUMBER, "top_n_sigma": _NUMBER, "samplers": {"list"},
    "mirostat": _INTEGER, "ignore_eos": _TRUTH, "n_probs": _INTEGER, "session_id": _TEXT,
    "conversation": {"text", "object"}, "prompt_cache_key": _TEXT,
}  # fmt: skip


def types() -> Iterator[Malformed]:
    """Every field with values of every type that it cannot have."""
    for field, right in _TYPES.items():
        for kind, values in _VALUES.items():
            if kind not in right:
                yield from (chat(**{field: value}) for value in values)


# -------------------- sizes

_OUTSIDE: dict[str, list[Any]] = {
    "n": [0, -1, 129, 10**6], "max_tokens": [0, -2, -(10**30)], "max_completion_tokens": [0, -9],
    "temperature": [-0.1, -5, -1e300], "top_p": [-0.1, 1.1, 7, -1e30], "top_k": [-2**40, 2**40, 10**30],
    "min_p": [-0.1, 1.5, 1e30], "typical_p": [-0.1, 2, 1e30], "repeat_penalty": [0, -1, -1e30],
    "top_logprobs": [21, -1, 10**9], "n_probs": [-1, 1001, 10**12], "mirostat": [-1, 3, 10**9],
    "reasoning_budget": [-2, -(10**30)], "xtc_probability": [-0.1, 1.1, 1e9], "presence_penalty": [],
}  # fmt: skip


def sizes() -> Iterator[Malformed]:
    """Numbers outside of their ranges, texts and lists that are too long, and what is nested too deep."""
    for field, values in _OUTSIDE.items():
        yield from (chat(**{field: value}) for value in values)
    for exponent in range(20, 60):
        yield chat(max_tokens=-(10**exponent))
        yield chat(n=10**exponent)
        yield chat(top_k=10**exponent)
    for n in range(600, 1000, 40):
        yield chat(session_id="x" * n)
        yield chat(prompt_cache_key="x" * n)
    for n in range(65, 105):
        yield chat(stop=["x"] * n)
    for n in range(129, 149):
        yield chat(tools=[{"type": "function", "function": {"name": f"f{i}"}} for i in range(n)])
    for n in range(1, 11):
        yield chat(messages=[{"role": "user", "content": "word " * (3000 + 1000 * n)}])
        yield Malformed(CHAT, b"[" * 10_000 * n)
        yield Malformed(CHAT, b'{"messages": ' + b'{"a":' * 5000 * n)


# -------------------- encodings


def encodings() -> Iterator[Malformed]:
    """Bodies that are not JSON in UTF-8."""

    def said(text: bytes) -> Malformed:
        return Malformed(CHAT, b'{"messages": [{"role": "user", "content": "' + text + b'"}], "max_tokens": 1}')

    yield from (said(bytes((byte,))) for byte in range(0x80, 0x100))  # no character begins or ends there
    yield from (said(bytes((byte,))) for byte in range(0x20))  # control characters have to be escaped
    yield from (said(b"\\u%04x" % half) for half in range(0xD800, 0xE000, 0x40))  # half of a pair
    yield from (said(b"\\" + bytes((byte,))) for byte in b"acdeghijklmopqsvwxyz")  # no escapes
    yield from (said(text) for text in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xf0\x9f"))
    whole = json.dumps(GOOD)
    for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-7"):
        yield Malformed(CHAT, whole.replace("{", "+{").encode(name) if name == "utf-7" else whole.encode(name))
    yield from (Malformed(CHAT, whole.encode()[:n]) for n in range(0, len(whole), 3))


# -------------------- roles


def roles() -> Iterator[Malformed]:
    """Roles that there are not."""
    names: list[Any] = ["", " ", "User", "USER", "user ", " user", "users", "robot", "model", "human", "ai", "bot"]
    names += ["system\n", "assistant\x00", "tool\u200b", "<|im_start|>", "../system", "user;system", "\U0001f98a"]
    names += [None, 5, 1.5, True, [], ["user"], {}, {"role": "user"}, "x" * 1000, "function"]
    letters = random.Random(1)
    names += ["".join(letters.choices("abcdefgxyz_-", k=letters.randint(3, 9))) + f"{i}" for i in range(190)]
    for i, name in enumerate(names):
        message = {"role": name, "content": "Hi."}
        yield chat(messages=[message] if i % 2 else [*MESSAGES, message])


# -------------------- schemas


def schemas() -> Iterator[Malformed]:
    """Schemas that are not valid, or that no value fits."""

    def wanted(schema: Any) -> Malformed:
        return chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})

    yield from (wanted(each) for each in (5, "x", [], None, [{}], False))
    yield from (wanted({"type": name}) for name in ("colour", "Object", "str", "int", "", 5, ["object", "colour"]))
    yield from (wanted({"type": f"kind-{i}"}) for i in range(40))
    yield from (wanted({"$ref": f"#/$defs/missing{i}"}) for i in range(30))
    yield from (wanted({"type": "integer", "minimum": n, "maximum": n - 1}) for n in range(30))
    yield from (wanted({"type": "string", "minLength": n, "maxLength": n - 1}) for n in range(1, 21))
    yield from (wanted({"type": "array", "minItems": n, "maxItems": n - 1}) for n in range(1, 21))
    yield from (wanted({"type": "string", "pattern": pattern}) for pattern in ("(", "[", "*", "a{2,1}", "(?P<n", "\\"))
    yield from (wanted({"properties": {"a": {"type": f"t{i}"}}, "required": ["a"]}) for i in range(30))
    yield from (wanted({"enum": []} | {"title": f"{i}"}) for i in range(10))
    yield from (wanted({"const": i, "enum": [i + 1]}) for i in range(30))


# -------------------- images


def images() -> Iterator[Malformed]:
    """Images for a model that has no eyes: real, broken, and huge ones, and what is no image."""
    kinds = ("png", "jpeg", "webp", "gif", "svg+xml", "bmp", "x-nothing", "")
    data = ("", "AAAA", "iVBORw0KGgo=", "%%%%", "A" * 1001, "A" * 100_000, "====", "\U0001f98a", "../../etc/passwd")
    urls: list[Any] = [f"data:image/{kind};base64,{text}" for kind, text in itertools.product(kinds, data)]
    urls += [f"data:image/png,{'x' * n}" for n in range(20)] + [f"https://127.0.0.1:1/{i}.png" for i in range(40)]
    urls += ["file:///etc/passwd", "http://169.254.169.254/", "ftp://x", "", "x", None, 5, [], {}, True]
    urls += ["data:image/png;base64," + "A" * (10**6 * n) for n in (1, 2, 4)]
    for url in urls:
        yield chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    for kind in ("image", "input_image", "image_file", "video", "input_audio", "file", "", None, 5):
        for value in ("x", None, 5, [], {}, {"url": "x"}, {"data": "AAAA", "format": "wav"}, {"file_id": "x"}):
            yield chat(messages=[{"role": "user", "content": [{"type": kind, str(kind): value}]}])


# -------------------- headers


def headers() -> Iterator[Malformed]:
    """Headers by which a page or another name would get in, and names that no conversation may have."""
    good = json.dumps(GOOD).encode()

    def with_(name: str, value: str) -> Malformed:
        return Malformed(CHAT, good, ((name, value),))

    hosts = [
        "evil.example",
        "",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "a b",
        "127.0.0.1@evil.example",
    ]
    yield from (with_("host", host) for host in (*hosts, *(f"host{i}.example:{80 + i}" for i in range(60))))
    origins = ["null", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1", "file://", "x", "https://"]
    yield from (with_("origin", origin) for origin in (*origins, *(f"https://site{i}.example" for i in range(60))))
    for name in ("x-session-id", "x-conversation-id", "x-litellm-session-id", "x-claude-code-session-id"):
        yield from (with_(name, "x" * n) for n in range(513, 533))


KINDS: dict[str, Callable[[], Iterator[Malformed]]] = {
    each.__name__: each for each in (types, sizes, encodings, roles, schemas, images, headers)
}
