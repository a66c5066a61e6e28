"""A real cluster of Ray on this machine: answers, sessions and errors while replicas come, go and fail."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM

from ..support.harness import EXACT, NEAR_TIE
from ..support.ray_cluster import RayCluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SETTINGS = {"option": ["flash_attn=disabled", "n_threads=1"], "api_key": ["ada", "ben"], "keep_alive_s": 0.2}
STORY = [{"role": "user", "content": "Tell me a story about a fox."}]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("ray")
    with RayCluster(folder, **arguments(folder)) as cluster:
        yield cluster


def arguments(folder: Path, replicas: int = 2) -> dict[str, Any]:
    # Health checks end replicas that were killed: sooner than Ray's 10 seconds, so that the tests are.
    return {
        "settings": SETTINGS,
        "storage": str(folder / "storage"),
        "replicas": replicas,
        "options": {"health_check_period_s": 1},
    }


@pytest.fixture
def folder(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "ray0"


def ask(cluster: RayCluster, messages: list[Any], key: str = "ada", name: str | None = None, **fields: Any) -> Any:
    """Send a chat; return the response with the replica that gave it."""
    headers = {"Authorization": f"Bearer {key}"} | ({"X-Session-Id": name} if name else {})
    body = {"messages": messages, "temperature": 0, "max_tokens": 24, **fields}
    response = cluster.http.post(CHAT, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json() | {"replica": response.headers["x-cyllama-replica"]}


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
                piece = token.text
                if not text[position:].startswith(piece):
                    others = [each for each in token.top if text[position:].startswith(each.text) and each.text]
                    assert others, (right.text, text)
                    assert token.logprob - max(each.logprob for each in others) < NEAR_TIE, (right.text, text)
                    self.near_ties += 1
                    return
                position += len(piece)
            raise AssertionError((right.text, text))
