"""A real cluster of Ray on this machine: answers, sessions and errors while replicas come, go and fail."""

from __future__ import annotations

import itertools
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from cyllama import LLM

from ..support.harness import EXACT, NEAR_TIE
from ..support.ray_cluster import SECONDS, RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
REPLICA = "x-cyllama-replica"
SETTINGS = {
    "option": ["flash_attn=disabled", "n_threads=1", "n_parallel=8", "n_ctx=16384"],
    "api_key": ["ada", "ben"],
    "keep_alive_s": 0.2,
    "max_queue": 4,
}
NAMES = ["Ada", "Ben", "Eva", "Tom", "Mia", "Leo", "Zoe", "Max", "Ida", "Sam"]
ENDLESS = {"max_tokens": 16_000, "ignore_eos": True}  # a minute or more, and each test leaves before
STORY = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("ray")
    options = {"health_check_period_s": 1}  # how soon Ray replaces a replica that was killed
    with RayCluster(folder, settings=SETTINGS, storage=str(folder / "storage"), replicas=2, options=options) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _two_replicas(cluster: RayCluster) -> None:
    cluster.wait_for_replicas(2)
    headers = {"Authorization": "Bearer ada"}
    seen: set[str] = set()
    deadline = time.monotonic() + SECONDS
    for i in itertools.count():  # until the ingress knows them, too
        seen.add(cluster.http.get(f"/v1/sessions/unknown {i}", headers=headers).headers[REPLICA])
        if seen >= {each["replica"] for each in cluster.replicas()}:
            return
        assert time.monotonic() < deadline, f"the ingress knows {seen} only"


def ask(cluster: RayCluster, messages: list[Any], key: str = "ada", name: str | None = None, **fields: Any) -> Any:
    """Send a chat; return the response with the replica that gave it."""
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Session-Id": name} if name else {})
    body = {"messages": messages, "temperature": 0, "max_tokens": 24, **fields}
    response = cluster.http.post(CHAT, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json() | {"replica": response.headers[REPLICA]}


@contextmanager
def waiting(cluster: RayCluster, names: list[str]) -> Iterator[list[socket.socket]]:
    """Send requests for endless answers, and go away at the end of the block. Refused connections have data."""
    connections: list[socket.socket] = []
    try:
        connections += [send(cluster, name) for name in names]
        yield connections
    finally:
        for connection in connections:
            connection.close()
    cluster.wait_for(lambda replicas: not any(map(n_taken, replicas)))


def send(cluster: RayCluster, name: str) -> socket.socket:
    """Send a request for an endless answer, and return its connection."""
    url = urlsplit(cluster.url)
    data = json.dumps({"messages": STORY, "temperature": 0} | ENDLESS).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {len(data)}\r\n"
    head += f"Authorization: Bearer ada\r\nX-Session-Id: {name}\r\n\r\n"
    connection = socket.create_connection((url.hostname, url.port), SECONDS)
    connection.sendall(head.encode() + data)
    return connection


def n_taken(replica: dict[str, Any]) -> int:
    return replica["running"] + replica["waiting"]


def text_of(answer: Any) -> str:
    return answer["choices"][0]["message"]["content"]


def cached(answer: Any) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


class Reference:
    """The same model in this process, without sessions: what every answer has to be, up to near ties."""

    def __init__(self) -> None:
        self._llm = LLM(**EXACT)
        self._lock = threading.Lock()
        self.near_ties = 0

    def check(self, messages: list[Any], text: str) -> None:
        with self._lock:
            right = self._llm.chat(messages, max_tokens=24, logprobs=4)
            if right.text == text:
                return
            # The first token that differs is one that was nearly as likely.
            position = 0
            for token in right.logprobs or ():
                piece = token.token
                if not text[position:].startswith(piece):
                    others = [each for each in token.top if each.token and text[position:].startswith(each.token)]
                    assert others, (right.text, text)
                    assert token.logprob - max(each.logprob for each in others) < NEAR_TIE, (right.text, text)
                    self.near_ties += 1
                    return
                position += len(piece)
            raise AssertionError((right.text, text))


def talk(cluster: RayCluster, number: int, after_each: Any) -> list[tuple[list[Any], Any]]:
    """Have a conversation of five turns; return what was asked and answered."""
    name = f"conversation {number}" if number % 2 else None
    messages: list[Any] = []
    found: list[tuple[list[Any], Any]] = []
    for text in (
        f"My name is {NAMES[number % len(NAMES)]}, and my number is {number}.",
        "What is my name?",
        "What is the capital of France?",
        "What is my number?",
        "Thank you, and good bye.",
    ):
        messages.append({"role": "user", "content": text})
        answer = ask(cluster, messages, name=name)
        found.append((list(messages), answer))
        messages.append({"role": "assistant", "content": text_of(answer)})
        after_each()
    return found


def test_every_answer_is_right_while_a_replica_is_killed(cluster: RayCluster, record_property: Any):
    victim = cluster.replicas()[0]["replica"]
    answered = itertools.count(1)
    lock = threading.Lock()

    def kill_in_the_middle() -> None:
        with lock:
            if next(answered) == 100:
                cluster.kill(victim)

    with ThreadPoolExecutor(8) as threads:
        conversations = list(threads.map(lambda i: talk(cluster, i, kill_in_the_middle), range(40)))
    reference = Reference()
    for asked, answer in (turn for turns in conversations for turn in turns):
        reference.check(asked, text_of(answer))
    later = [answer for turns in conversations for _, answer in turns[1:]]
    hits = sum(map(cached, later)) / sum(answer["usage"]["prompt_tokens"] for answer in later)
    stayed = [
        (before, after)
        for turns in conversations
        for (_, before), (_, after) in itertools.pairwise(turns)
        if before["replica"] == after["replica"]
    ]
    print(f"{hits:.0%} of the prompt tokens of later turns were cached; near ties: {reference.near_ties}")
    assert all(cached(after) >= before["usage"]["prompt_tokens"] for before, after in stayed)
    assert len(stayed) > 0.7 * len(later)
    assert victim in {answer["replica"] for turns in conversations for _, answer in turns}
    assert reference.near_ties <= 4


def test_a_replica_that_ends_leaves_its_sessions_to_the_others(cluster: RayCluster):
    histories = [[{"role": "user", "content": f"My name is {name}."}] for name in NAMES]
    names = [f"before {i}" if i % 2 else None for i in range(len(NAMES))]
    first = [ask(cluster, history, name=name) for history, name in zip(histories, names, strict=True)]
    assert len({answer["replica"] for answer in first}) == 2
    cluster.change(replicas=1)
    [left] = cluster.wait_for_replicas(1)
    for history, answer, name in zip(histories, first, names, strict=True):
        history += [answer["choices"][0]["message"], {"role": "user", "content": "What is my name?"}]
        second = ask(cluster, history, name=name)
        assert second["replica"] == left["replica"]
        assert cached(second) >= answer["usage"]["prompt_tokens"]
    cluster.change()


def test_streams_come_in_pieces(cluster: RayCluster):
    whole = text_of(ask(cluster, STORY, max_tokens=48))
    events = list(stream(cluster, CHAT, {"messages": STORY, "max_tokens": 48}))
    assert events.pop() == "[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events]
    assert "".join(deltas) == whole
    kinds = [json.loads(event)["type"] for event in stream(cluster, MESSAGES, {"messages": STORY, "max_tokens": 48})]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    endless = stream(cluster, CHAT, {"messages": STORY} | ENDLESS)
    assert next(piece for piece in endless if json.loads(piece)["choices"][0]["delta"].get("content"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": STORY}),
        (MESSAGES, {"messages": STORY}),
        ("/v1/responses", {"input": STORY}),
    ],
)
def test_a_stream_whose_replica_dies_ends_with_an_error(cluster: RayCluster, path: str, body: dict[str, Any]):
    events: list[str] = []
    for event in stream(cluster, path, body | ENDLESS, on_begin=cluster.kill):
        events.append(event)
    last = json.loads(events[-1])
    error = last["error"] if path != "/v1/responses" else last
    assert "the replica ended" in error["message"]
    assert last.get("sequence_number", len(events) - 1) == len(events) - 1
    assert {CHAT: error.get("code"), MESSAGES: error.get("type")}.get(path, last.get("type")) in (
        "replica_unavailable",
        "overloaded_error",
        "error",
    )


def test_a_request_whose_replica_dies_before_the_answer_is_answered_by_another(cluster: RayCluster):
    for _ in range(5):
        victim = ask(cluster, [{"role": "user", "content": "Hello!"}], name="unlucky")["replica"]
        answer = ask_and_kill(cluster, victim)
        if answer["replica"] != victim:
            assert answer["choices"][0]["finish_reason"] == "length"
            return
        cluster.wait_for_replicas(2)  # this thread had to wait so long that the answer was there: once more
    pytest.fail("each answer was there before its replica was killed")


def ask_and_kill(cluster: RayCluster, victim: str) -> Any:
    """Return a long answer; once a replica works on it, that is killed."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(ask, cluster, STORY, name="unlucky", max_tokens=1500, ignore_eos=True)
        cluster.wait_for(
            lambda found: future.done() or any(n_taken(each) for each in found if each["replica"] == victim)
        )
        cluster.kill(victim)
        return future.result()


def test_a_busy_replica_is_passed(cluster: RayCluster):
    preferred = ask(cluster, STORY, name="busy")["replica"]
    with waiting(cluster, ["busy"] * 14):
        found = cluster.wait_for(lambda replicas: sum(map(n_taken, replicas)) == 14)
        counts = {each["replica"]: n_taken(each) for each in found}
        other = ask(cluster, STORY, name="busy")
    assert counts.pop(preferred) >= 8, "as many as it answers together"
    assert sum(counts.values()) >= 3, "it would take 4 more, which would wait"
    assert other["replica"] != preferred


def test_more_requests_than_all_replicas_take_are_refused(cluster: RayCluster):
    taken = 2 * (8 + 4)  # two replicas answer 8 each, and let 4 wait; as many wait in the ingress
    with waiting(cluster, [f"crowd {i}" for i in range(2 * taken)]) as connections:
        # Ray does not count those that it is about to send. So some more may wait, until all replicas have said no.
        deadline = time.monotonic() + SECONDS
        while len(found := select.select(connections, [], [], 0)[0]) < 20:
            assert time.monotonic() < deadline, f"{len(found)} of {len(connections)} were refused"
            time.sleep(0.1)
            connections.append(send(cluster, f"crowd {len(connections)}"))
        refused = [read_refusal(connection) for connection in found]
        assert len(connections) - len(refused) >= taken
    for head, body in refused:
        assert head.startswith("HTTP/1.1 429 ")
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        [seconds] = [line for line in head.lower().splitlines() if line.startswith("retry-after: ")]
        assert int(seconds.removeprefix("retry-after: ")) >= 1


def read_refusal(connection: socket.socket) -> tuple[str, str]:
    """Return head and body of a response."""
    with connection.makefile("rb") as file:
        head = b"".join(iter(file.readline, b"\r\n")).decode()
        [length] = [line for line in head.lower().splitlines() if line.startswith("content-length: ")]
        return head, file.read(int(length.removeprefix("content-length: "))).decode()


def test_a_client_that_goes_away_frees_its_place(cluster: RayCluster):
    for _ in stream(cluster, CHAT, {"messages": STORY} | ENDLESS):
        break
    cluster.wait_for(lambda replicas: not any(each["running"] for each in replicas))


def test_replicas_are_added_where_requests_wait_and_removed_later(cluster: RayCluster):
    scaling = {"upscale_delay_s": 0.5, "downscale_delay_s": 2, "metrics_interval_s": 0.2, "look_back_period_s": 1}
    limits = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2}
    cluster.change(replicas=[1, 2], options={"autoscaling_config": limits | scaling})
    cluster.wait_for_replicas(1)
    with waiting(cluster, [f"story {i}" for i in range(8)]):
        cluster.wait_for_replicas(2)
        assert text_of(ask(cluster, STORY, name="story 8"))
    cluster.wait_for_replicas(1)
    cluster.change()


def test_tenants_are_separate(cluster: RayCluster):
    secret = [{"role": "user", "content": "My secret word is Zorblax. Keep it to yourself, and tell no one."}]
    ask(cluster, secret, key="ada", name="diary")
    assert cached(ask(cluster, secret, key="ben", name="diary")) == 0
    headers = {key: {"Authorization": f"Bearer {key}"} for key in ("ada", "ben")}
    deleted = cluster.http.delete("/v1/sessions/diary", headers=headers["ben"])
    assert deleted.status_code == 200
    assert "diary" not in sessions(cluster, "ben")
    assert "diary" in sessions(cluster, "ada")


def sessions(cluster: RayCluster, key: str = "ada") -> dict[str | None, Any]:
    listed = cluster.http.get("/v1/sessions", headers={"Authorization": f"Bearer {key}"}).json()["data"]
    return {session["conversation"]: session for session in listed}


def test_sessions_are_found_wherever_they_are(cluster: RayCluster):
    headers = {"Authorization": "Bearer ada"}
    history = [{"role": "user", "content": "My name is Ada."}]
    first = ask(cluster, history, name="origin")
    history += [first["choices"][0]["message"], {"role": "user", "content": "What is my name?"}]
    for i in range(4):  # some of these belong to the other replica
        body = {"conversation": f"fork {i}"}
        assert cluster.http.post("/v1/sessions/origin/fork", json=body, headers=headers).status_code == 200
        answer = ask(cluster, history, name=f"fork {i}")
        assert cached(answer) >= first["usage"]["prompt_tokens"]
        assert text_of(answer) == "Your name is Ada."
    for i in range(4):
        found = sessions(cluster)[f"fork {i}"]["id"]
        assert cluster.http.get(f"/v1/sessions/{found}", headers=headers).json()["conversation"] == f"fork {i}"
        assert cluster.http.delete(f"/v1/sessions/{found}", headers=headers).status_code == 200
    assert "fork 0" not in sessions(cluster)
    assert cluster.http.get("/v1/sessions/nowhere", headers=headers).status_code == 404


def test_a_response_goes_on_after_its_replica_has_died(cluster: RayCluster):
    headers = {"Authorization": "Bearer ada"}
    body = {"input": "My name is Ada.", "temperature": 0}
    first = cluster.http.post("/v1/responses", json=body, headers=headers)
    body = {"input": "What is my name?", "previous_response_id": first.json()["id"], "temperature": 0}
    second = cluster.http.post("/v1/responses", json=body, headers=headers)
    assert second.headers[REPLICA] == first.headers[REPLICA]
    assert second.json()["usage"]["input_tokens_details"]["cached_tokens"] >= first.json()["usage"]["input_tokens"]
    cluster.kill(first.headers[REPLICA])
    third = cluster.http.post("/v1/responses", json=body, headers=headers)
    assert third.json()["output"][0]["content"][0]["text"] == "Your name is Ada."


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        (b"{", "ada", 400, "invalid_json"),
        (json.dumps({"messages": STORY, "model": "none"}).encode(), "ada", 404, "model_not_found"),
        (json.dumps({"messages": STORY}).encode(), "wrong", 401, "invalid_api_key"),
        (b" " * (33 * 2**20), "ada", 413, "too_large"),
    ],
)
def test_errors_have_the_form_of_the_api(cluster: RayCluster, body: bytes, key: str, status: int, code: str):
    response = cluster.http.post(CHAT, content=body, headers={"Authorization": f"Bearer {key}"})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def stream(cluster: RayCluster, path: str, body: dict[str, Any], on_begin: Any = None) -> Iterator[str]:
    """Yield the data of the events of a response; `on_begin` is called with its replica at the third of them."""
    headers = {"Authorization": "Bearer ada"}
    body = {"temperature": 0, "stream": True} | body
    with cluster.http.stream("POST", path, json=body, headers=headers) as response:
        assert response.status_code == 200
        data = (line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: "))
        for i, each in enumerate(data):
            if i == 3 and on_begin is not None:
                on_begin(response.headers[REPLICA])
            yield each
