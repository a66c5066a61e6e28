"""The live page and its feed, as HTTP: who sees what, and what a browser is told about the page."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

import cyllama_server

from ..support.server import ServerProcess

PAGE = Path(cyllama_server.__file__).with_name("page")
FILES = sorted(path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*.*"))
SECRET = "The secret word of the vault is xylophone."  # a number might be a part of a measured one


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("sessions")
    keys = ("--api-key", "key-of-ada", "--api-key", "key-of-ben", "--admin-key", "key-of-admin")
    with ServerProcess(*keys, "--session-dir", str(folder)) as server:
        yield server


def bearer(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def say(server: ServerProcess, session: str, key: str | None = None, text: str = SECRET) -> Any:
    asked = {"messages": [{"role": "user", "content": text}], "session_id": session, "max_tokens": 8, "temperature": 0}
    answer = server.http.post("/v1/chat/completions", json=asked, headers=bearer(key))
    assert answer.status_code == 200
    return answer.json()


def live(server: ServerProcess, key: str | None = None) -> Any:
    return server.http.get("/live/state", headers=bearer(key)).json()


def sessions(server: ServerProcess, key: str | None = None) -> dict[str, Any]:
    return {each["conversation"] or each["id"]: each for each in live(server, key)["models"][0]["sessions"]}


# --- the feed


def test_it_says_what_each_session_has(server: ServerProcess):
    usage = say(server, "live one")["usage"]
    [model] = live(server)["models"]
    one = sessions(server)["live one"]
    assert one["tokens"] == usage["total_tokens"]
    assert (one["place"], one["running"], one["waiting"], one["requests"], one["saved"]) == ("context", 0, 0, 1, None)
    assert 0 < one["cells"] + one["shared_cells"] <= one["tokens"]
    assert 0 < model["cells"]["used"] <= model["cells"]["total"]
    assert model["counters"]["generated"] >= usage["completion_tokens"]
    assert model["memory"]["kv_cache"] > 0


def test_a_fork_shares_cells_which_count_once(server: ServerProcess):
    say(server, "live origin")
    server.http.post("/v1/sessions/live origin/fork", json={"conversation": "live branch"}).raise_for_status()
    say(server, "live branch", text=f"{SECRET} What is it?")
    [model] = live(server)["models"]
    found = sessions(server)
    assert found["live origin"]["shared_cells"] > 0
    assert found["live branch"]["shared_cells"] > 0
    assert model["cells"]["shared"] > 0
    assert model["cells"]["used"] - model["cells"]["shared"] >= sum(each["cells"] for each in model["sessions"])


def test_a_running_request_is_seen_and_its_tokens_grow():
    asked = {
        "messages": [{"role": "user", "content": "Hello"}],
        "session_id": "live run",
        "stream": True,
        "ignore_eos": True,
    }
    seen: list[int] = []
    with ServerProcess("--option", "n_ctx=20000") as server:  # it does not end before it was seen three times
        with server.http.stream("POST", "/v1/chat/completions", json=asked) as stream:
            lines = stream.iter_lines()
            while len(set(seen)) < 3:
                next(lines)
                run = sessions(server).get("live run")
                if run is not None and run["running"]:
                    seen.append(run["tokens"])
        assert seen == sorted(seen)
        server.wait_until_idle()
        assert sessions(server)["live run"]["running"] == 0


def test_a_tenant_sees_its_own_sessions_alone_and_an_operator_all(locked: ServerProcess):
    ada, ben = say(locked, "mine", "key-of-ada"), say(locked, "his", "key-of-ben")
    for key, name, answer in (("key-of-ada", "mine", ada), ("key-of-ben", "his", ben)):
        state = live(locked, key)
        [model] = state["models"]
        assert (state["scope"], model["n_sessions"]) == ("own", 1)
        assert list(sessions(locked, key)) == [name]
        assert model["counters"] == {
            "generated": answer["usage"]["completion_tokens"],
            "evaluated": answer["usage"]["prompt_tokens"] - answer["usage"]["prompt_tokens_details"]["cached_tokens"],
            "reused": answer["usage"]["prompt_tokens_details"]["cached_tokens"],
        }
        assert model["cells"]["used"] == sum(each["cells"] for each in model["sessions"])
        assert model["memory"] is None
    state = live(locked, "key-of-admin")
    assert (state["scope"], state["models"][0]["n_sessions"]) == ("all", 2)
    assert len({each["tenant"] for each in state["models"][0]["sessions"]}) == 2


def test_no_key_and_a_wrong_one_see_nothing(locked: ServerProcess):
    for key in (None, "key-of-nobody", "key-of-ad"):
        refused = locked.http.get("/live/state", headers=bearer(key))
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_it_has_nothing_of_prompts_and_an_operator_not_even_names(locked: ServerProcess):
    say(locked, "a private name", "key-of-ada")
    locked.http.post("/v1/sessions/a private name/save", json={"file": "f.session"}, headers=bearer("key-of-ada"))
    assert sessions(locked, "key-of-ada")["a private name"]["saved"] == "f.session"
    text = locked.http.get("/live/state", headers=bearer("key-of-admin")).text
    assert [word for word in ("secret", "xylophone", "private", "f.session", "key-of") if word in text] == []
    assert [each["saved"] for each in live(locked, "key-of-admin")["models"][0]["sessions"]].count(True) == 1
    assert "xylophone" not in locked.http.get("/live/state", headers=bearer("key-of-ada")).text


def test_it_does_not_fill_the_log(server: ServerProcess):
    live(server)
    assert "/live/state" not in server.log
    assert server.metric("cyllama_requests_total") > 0


# --- the page


class _Links(HTMLParser):
    """The files that a page loads, and whatever is inline."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        self.urls += [url for name in ("src", "href") if (url := given.get(name))]


def test_all_that_it_loads_is_here(server: ServerProcess):
    page = server.http.get("/")
    links = _Links()
    links.feed(page.text)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert links.inline == []
    loaded = {url for url in links.urls if not url.startswith("#")}
    scripts = {name for name in FILES if name.endswith(".js")}
    for name in scripts:
        source = (PAGE / name).read_text(encoding="utf-8")
        imported = re.findall(r'from "(.+?)"', source)
        assert all(f"js/{path.removeprefix('./')}" in scripts for path in imported)
    assert loaded <= {f"page/{name}" for name in FILES}
    for name in FILES:
        source = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"\w+://|@import|url\(", source) == []
    for name in FILES:
        assert server.http.get(f"/page/{name}").status_code == 200


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
def test_a_browser_is_told_to_run_no_other_script(server: ServerProcess, path: str):
    headers = server.http.get(path).headers
    rules = [part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";")]
    policy: dict[str, str] = dict(rules)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"


def test_no_script_makes_markup_of_a_text():
    for name in FILES:
        source = (PAGE / name).read_text(encoding="utf-8")
        assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source) == []


@pytest.mark.parametrize("name", ["../app.py", "%2e%2e/app.py", "js/../../app.py", "js", "js/none.js", "..%5capp.py"])
def test_no_other_file_is_served(server: ServerProcess, name: str):
    assert server.http.get(f"/page/{name}").status_code == 404


def test_it_needs_no_key_but_its_feed_does(locked: ServerProcess):
    assert locked.http.get("/").status_code == 200
    assert locked.http.get("/page/js/main.js").status_code == 200


def test_it_can_be_switched_off():
    with ServerProcess("--no-page", "--no-preload") as server:
        for path in ("/", "/page/js/main.js", "/live/state"):
            assert server.http.get(path).status_code == 404
        assert server.http.get("/health").status_code == 200


def test_a_server_with_an_open_page_ends_at_once():
    with ServerProcess("--no-preload", "--shutdown-s", "3600") as server, httpx.Client(base_url=server.url) as page:
        page.get("/live/state").raise_for_status()  # the connection stays open
        assert server.stop() in (0, -signal.SIGTERM)
