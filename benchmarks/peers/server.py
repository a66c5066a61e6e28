"""llama-server of the same llama.cpp, compiled with the same options as cyllama."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kit.clock import wall_seconds
from kit.models import ANSWER_BIAS, ANSWER_TOKEN
from peers.processes import PeerProcess
from peers.tools import TOOLS

START_SECONDS = 120.0
REQUEST_SECONDS = 600.0


class LlamaServer(PeerProcess):
    """A llama-server of its own on a free port of this machine; leaving the ``with`` block ends it.

    It runs with ``-t N -c CELLS -np SLOTS --no-webui``. Its slots have separate KV caches of CELLS / SLOTS tokens
    (``--no-kv-unified``, the default for a given number of slots), which is fastest where conversations share nothing.
    Flash attention, batch sizes and polling are as they are by default, and in cyllama. Only errors are logged
    (``--log-verbosity 1``).

    Args:
        model: The GGUF file.
        n_threads: Threads that decode.
        n_slots: Requests that are decoded at once.
        slot_cells: Most tokens of each.
        cache_ram_mib: Host memory for conversations that lost their slot, ``--cache-ram``. 0 spares requests that are
            never continued from being copied there.
    """

    def __init__(self, model: Path, n_threads: int, *, n_slots: int, slot_cells: int, cache_ram_mib: int) -> None:
        self._port = _free_port()
        options = {"-m": model, "-t": n_threads, "-np": n_slots, "-c": n_slots * slot_cells}
        options |= {"--cache-ram": cache_ram_mib, "--host": "127.0.0.1", "--port": self._port}
        command = [str(part) for option in options.items() for part in option]
        command += ["--no-kv-unified", "--no-webui", "--log-verbosity", "1"]
        super().__init__([str(TOOLS / "llama-server"), *command], "llama-server")
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    def complete_all(self, prompts: list[list[int]], n_tokens: int) -> float:
        """Answer prompts at once, each from a thread of its own; return the seconds it took."""
        return wall_seconds([partial(self._complete, prompt, n_tokens) for prompt in prompts])

    def first_token_seconds(self, prompt: list[int], n_tokens: int) -> float:
        """Stream the answer to a prompt whose beginning may be cached; return the seconds until its first token."""
        start = time.perf_counter()
        first = None
        with self._post(prompt, n_tokens, {"cache_prompt": True, "stream": True}) as response:
            while first is None:
                line = response.readline()
                assert line, "llama-server ended its answer before the first token"
                if line.startswith(b"data:"):
                    first = time.perf_counter() - start
            response.read()
        return first

    def _complete(self, prompt: list[int], n_tokens: int) -> None:
        with self._post(prompt, n_tokens, {"cache_prompt": False, "stream": False}) as response:
            answer = json.loads(response.read())
        assert answer["tokens_predicted"] == n_tokens, answer
        assert answer["tokens_evaluated"] == len(prompt), answer

    @contextmanager
    def _post(self, prompt: list[int], n_tokens: int, options: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """Send a request, on a connection of its own: llama-server ends those that streamed or were idle.

        A top_k of 1 is its cheapest way to sample at temperature 0.
        """
        sampling = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True}
        bias = {"logit_bias": [[ANSWER_TOKEN, ANSWER_BIAS]]}
        body = {"prompt": prompt, "n_predict": n_tokens, **sampling, **bias, **options}
        with closing(self._connect()) as connection:
            connection.request("POST", "/completion", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise RuntimeError(f"llama-server answered {response.status}: {response.read().decode()}")
            yield response

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=REQUEST_SECONDS)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with closing(self._connect()) as connection:
                try:
                    connection.request("GET", "/health")
                    if connection.getresponse().status == http.client.OK:
                        return
                except OSError:  # it does not listen yet
                    pass
            time.sleep(0.05)
        raise RuntimeError(f"llama-server did not start; what it said is in {self._log.name}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
