"""Who may use a server: keys, the tenants that they stand for, and pages of web sites."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..support.server import ServerProcess

HELLO: Any = {"messages": [{"role": "user", "content": "My secret number is 4711."}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text("key of ben\n\nkey-of-cy\n")
    arguments = ("--api-key", "key-of-ada", "--api-key-file", str(folder / "keys"), "--admin-key", "key-of-admin")
    with ServerProcess(*arguments, "--session-dir", str(folder / "sessions")) as server:
        yield server


def post(
    server: ServerProcess, key: str | None, path: str = "/v1/chat/completions", json: Any = HELLO
) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return server.http.post(path, json=json, headers=headers)


def sessions(server: ServerProcess, key: str) -> list[dict[str, Any]]:
    return server.http.get("/v1/sessions", headers={"x-api-key": key}).json()["data"]


def test_a_request_needs_one_of_the_keys(locked: ServerProcess):
    for key in (None, "key-of-nobody", "key-of-ad", "key-of-admin", "key-of-ada2"):
        refused = post(locked, key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    for key in ("key-of-ada", "key of ben", "key-of-cy"):
        assert post(locked, key).status_code == 200
    assert locked.http.get("/v1/models").status_code == 401
    assert locked.http.get("/health").status_code == 200


def test_metrics_of_all_need_the_key_of_the_operator(locked: ServerProcess):
    for key, status in (("key-of-ada", 401), ("key-of-admin", 200)):
        assert locked.http.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == status


def test_no_key_is_in_the_log_and_no_prompt(locked: ServerProcess):
    post(locked, "key-of-ada")
    post(locked, "key-of-ada", json={"messages": [{"role": "robot", "content": "4711"}]})
    assert [line for line in locked.log.splitlines() if re.search("key-of|secret number|robot", line)] == []


def test_a_session_is_seen_by_its_tenant_alone(locked: ServerProcess):
    named = HELLO | {"session_id": "private"}
    assert post(locked, "key-of-ada", json=named).status_code == 200
    [mine] = [each for each in sessions(locked, "key-of-ada") if each["conversation"] == "private"]
    assert [each for each in sessions(locked, "key of ben") if each["id"] == mine["id"]] == []
    for name in (mine["id"], "private"):
        url = f"/v1/sessions/{name}"
        assert locked.http.get(url, headers={"x-api-key": "key of ben"}).status_code == 404
        assert locked.http.delete(url, headers={"x-api-key": "key of ben"}).status_code == 404
        assert post(locked, "key of ben", f"{url}/fork", {"conversation": "stolen"}).status_code == 404
    assert locked.http.get("/v1/sessions/private", headers={"x-api-key": "key-of-ada"}).status_code == 200


def test_a_tenant_cannot_tell_what_another_one_said(locked: ServerProcess):
    said: Any = [{"role": "user", "content": "The password of the vault is the name of my first dog, which was Rex."}]

    def cached(key: str) -> int:
        usage = post(locked, key, json=HELLO | {"messages": said}).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    opening = 4  # tokens that all prompts begin with, its own ones as well
    assert cached("key-of-ada") <= opening
    assert cached("key of ben") <= opening
    assert cached("key-of-ada") > 2 * opening


def test_a_session_is_saved_loaded_forked_and_deleted(locked: ServerProcess):
    key = "key-of-cy"
    first = post(locked, key, json=HELLO | {"session_id": "origin"}).json()
    assert post(locked, key, "/v1/sessions/origin/fork", {"conversation": "branch"}).json()["tokens"] > 0
    assert post(locked, key, "/v1/sessions/origin/fork", {"conversation": "branch"}).status_code == 409
    assert post(locked, key, "/v1/sessions/origin/save", {"file": "origin.session"}).json()["bytes"] > 0
    headers = {"x-api-key": key}
    assert locked.http.delete("/v1/sessions/origin", headers=headers).json()["deleted"] is True
    assert "origin" not in [each["conversation"] for each in sessions(locked, key)]
    loaded = post(locked, key, "/v1/sessions/load", {"file": "origin.session", "conversation": "again"})
    assert loaded.json()["tokens"] > 0
    for name in ("branch", "again"):
        messages = [*HELLO["messages"], first["choices"][0]["message"], {"role": "user", "content": "Which one?"}]
        again = post(locked, key, json=HELLO | {"session_id": name, "messages": messages}).json()
        assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"]
    for other in ("key-of-ada", "key of ben"):
        stolen = post(locked, other, "/v1/sessions/load", {"file": "origin.session", "conversation": "stolen"})
        assert stolen.status_code == 404


def test_pages_of_other_sites_may_not_use_the_server(server: ServerProcess):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert server.http.post("/v1/chat/completions", json=HELLO, headers=headers).status_code == 403
    own = {"Origin": server.url}
    assert server.http.post("/v1/chat/completions", json=HELLO, headers=own).status_code == 200


def test_pages_of_a_site_that_was_allowed_may(tmp_path: Path):
    config = tmp_path / "server.toml"
    config.write_text('cors_origin = ["https://good.example"]\nmax_tokens = 3\n')
    with ServerProcess("--config", str(config), env={"CYLLAMA_ALLOWED_HOST": "llm.local, llm2.local"}) as server:
        asked = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        assert server.http.options("/v1/chat/completions", headers=asked).status_code == 200
        answer = server.http.post(
            "/v1/chat/completions", json=HELLO, headers={"Origin": "https://good.example", "Host": "llm2.local:80"}
        )
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert server.http.post("/v1/chat/completions", json=HELLO, headers={"Origin": "https://x"}).status_code == 403
