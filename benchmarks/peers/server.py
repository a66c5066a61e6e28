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
from kit.process import cpu_seconds
from peers.processes import PeerProcess
from peers.protocol import Answer, Ask, Clock, Outcome, answer_all
from peers.tools import TOOLS

START_SECONDS = 120.0
REQUEST_SECONDS = 600.0
JSON = {"Content-Type": "application/json"}


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
        embedding: Embed texts, and do not generate.
        drafts: Draft tokens by looking them up in the prompt, ``--spec-type ngram-simple``.
    """

    def __init__(
        self,
        model: Path,
        n_threads: int,
        *,
        n_slots: int,
        slot_cells: int,
        cache_ram_mib: int,
        embedding: bool = False,
        drafts: bool = False,
    ) -> None:
        start = time.perf_counter()
        self._port = _free_port()
        options = {"-m": model, "-t": n_threads, "-np": n_slots, "-c": n_slots * slot_cells}
        options |= {"--cache-ram": cache_ram_mib, "--host": "127.0.0.1", "--port": self._port}
        command = [str(part) for option in options.items() for part in option]
        command += ["--no-kv-unified", "--no-webui", "--log-verbosity", "1"]
        command += ["--embedding"] if embedding else []
        command += ["--spec-type", "ngram-simple"] if drafts else []
        super().__init__([str(TOOLS / "llama-server"), *command], "llama-server")
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.started = {"load": time.perf_counter() - start}
        self.version = "of the same build"

    def ask(self, asks: list[Ask]) -> Outcome:
        """Make requests at once, each on a connection of its own."""
        cpu = cpu_seconds(self.pid)
        reply = answer_all(self._answer, asks)
        return Outcome(reply["seconds"], cpu_seconds(self.pid) - cpu, [Answer(**answer) for answer in reply["answers"]])

    def embed(self, texts: list[str]) -> float:
        """Embed texts in one request; return the seconds."""
        start = time.perf_counter()
        with closing(self._connect()) as connection:
            connection.request("POST", "/v1/embeddings", json.dumps({"input": texts}), JSON)
            response = connection.getresponse()
            reply = response.read()
        if response.status != http.client.OK:
            raise RuntimeError(f"llama-server answered {response.status}: {reply.decode()}")
        return time.perf_counter() - start

    def _answer(self, ask: Ask) -> Answer:
        """Stream an answer: after its first token it is read as a whole, which takes the least of the client's time."""
        options: dict[str, Any] = {"cache_prompt": ask.conversation is not None, "stream": True}
        options["logit_bias"] = [] if ask.bias is None else [[ask.bias, ANSWER_BIAS]]
        if ask.schema is not None:
            options["json_schema"] = ask.schema
        options["ignore_eos"] = ask.schema is None and not ask.ends
        clock = Clock()
        with self._post(ask.tokens or ask.text, ask.n_tokens, options) as response:
            while not (line := response.readline()).startswith(b"data:"):
                assert line, "llama-server ended its answer before the first token"
            clock.token()
            lines = (line + response.read()).strip().splitlines()
        seconds = clock.now()
        last = next(json.loads(line[5:]) for line in reversed(lines) if line.startswith(b"data: {"))
        if "tokens_predicted" not in last:
            raise RuntimeError(f"llama-server ended its answer with {json.dumps(last)}")
        return Answer(clock.first, seconds, last["tokens_predicted"])

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

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
    def _post(
        self, prompt: list[int] | str, n_tokens: int, options: dict[str, Any]
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request, on a connection of its own: llama-server ends those that streamed or were idle.

        A top_k of 1 is its cheapest way to sample at temperature 0.
        """
        sampling = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True}
        bias = {"logit_bias": [[ANSWER_TOKEN, ANSWER_BIAS]]}
        body = {"prompt": prompt, "n_predict": n_tokens, **sampling, **bias, **options}
        with closing(self._connect()) as connection:
            connection.request("POST", "/completion", json.dumps(body), JSON)
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
        raise RuntimeError(f"it did not start: {self.last_words()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
