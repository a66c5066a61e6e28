"""One server for all tests that change nothing of it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from ..support.server import ServerProcess


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with ServerProcess() as server:
        yield server


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0) as client:
        yield client
