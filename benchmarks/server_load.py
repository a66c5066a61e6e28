#!/usr/bin/env python3
"""Many clients of one `cyllama serve` for minutes, some of which misbehave: errors, memory, times and rates.

    python benchmarks/server_load.py --minutes 10
    python benchmarks/server_load.py --minutes 3 --clients 64 --model model.gguf --max-growth-mib 100

Each client asks again and again. Most hold conversations over several turns and read their streams; some go away in the
middle, some read slowly, and some send bodies that are broken. The exit status is 1 if a request failed that was right,
if one was accepted that was wrong, or if the memory in use grew between the second and the last quarter of the time.
The server's log is in build/bench.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kit.http_stream import request, sent, stream
from kit.report import Row, Table
from peers.cyllama_server import CyllamaServer

CHAT = "/v1/chat/completions"
SUBJECTS = ("a fox", "an owl", "a bear", "the sea", "a train", "a lamp", "a letter", "the rain", "a bridge", "a king")
N_TURNS = 4
SAMPLE_SECONDS = 0.5
HANG_SECONDS = 300.0
BODY_SECONDS = 5

BROKEN = (
    b"{", b"", b"\xff\xfe", b'{"messages": 5}', b'{"messages": []}', b"[" * 20_000, b'{"messages": [{"role": 1}]}',
    b'{"messages": [{"role": "robot", "content": ""}]}', b'{"messages": [{"role": "user", "content": "x"}], "n": -1}',
)  # fmt: skip
"""Bodies that are no request."""

BROKEN_HEADS = ("Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\n", "X: " + "x" * 70_000 + "\r\n")
"""Headers that make a request contradict itself, or too large."""


class Load:
    """What clients do, and what came of it.

    Attributes:
        failures: What should not have happened, with how often it did.
        done: Requests by their kind.
        firsts: Seconds to the first token of streams that were read to their end.
        n_tokens: Tokens of these.
        memory: MiB that the server had in use, one value for every half second.
    """

    def __init__(self, server: CyllamaServer, seconds: float, seed: int) -> None:
        self.failures: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.firsts: list[float] = []
        self.n_tokens = 0
        self.memory: list[float] = []
        self._server = server
        self._host = f"127.0.0.1:{server.port}"
        self._deadline = time.monotonic() + seconds
        self._seed = seed

    async def run(self, n_clients: int) -> None:
        """Let clients ask until the time is up."""
        watching = asyncio.ensure_future(self._watch())
        await asyncio.gather(*(self._client(i) for i in range(n_clients)))
        watching.cancel()

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._deadline

    async def _watch(self) -> None:
        while True:
            self.memory.append(self._server.resident_mib)
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _client(self, number: int) -> None:
        dice = random.Random(f"{self._seed} {number}")
        kinds: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "conversation": self._converse,
            "cancel": self._cancel,
            "slow": self._read_slowly,
            "broken": self._send_broken,
        }
        while self._goes_on:
            kind = dice.choices(list(kinds), weights=(6, 2, 1, 2))[0]
            try:
                await asyncio.wait_for(kinds[kind](dice), HANG_SECONDS)
                self.done[kind] += 1
            except Exception as error:
                self.failures[f"{kind}: {type(error).__name__} {error!s:.200}"] += 1

    async def _converse(self, dice: random.Random) -> None:
        messages: list[dict[str, str]] = []
        for _ in range(dice.randint(1, N_TURNS)):
            messages.append({"role": "user", "content": f"Tell me a story about {dice.choice(SUBJECTS)}."})
            answer = await stream(self._server.port, CHAT, self._body(dice, messages))
            if not answer.is_whole:
                raise RuntimeError(f"{answer.status} {answer.body[-150:]!r}")
            self.firsts.append(answer.first)
            self.n_tokens += answer.n_tokens
            messages.append({"role": "assistant", "content": _text_of(answer.body)})
            if not self._goes_on:
                return

    async def _cancel(self, dice: random.Random) -> None:
        """Go away: at once, or after some of the answer."""
        async with self._asking(dice, stream=dice.random() < 0.7) as reader:
            if dice.random() < 0.8:
                await reader.read(dice.randint(1, 4000))

    async def _read_slowly(self, dice: random.Random) -> None:
        async with self._asking(dice, stream=True) as reader:
            whole = b""
            while part := await reader.read(400):
                whole += part
                await asyncio.sleep(0.02)
        if b"data: [DONE]" not in whole or not whole.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{whole[:20]!r} ... {whole[-150:]!r}")

    async def _send_broken(self, dice: random.Random) -> None:
        """Send what is no request: it is refused, or the connection ends."""
        if dice.random() < 0.3:
            whole = request(CHAT, self._body(dice, [{"role": "user", "content": "Hi."}]), host=self._host)
            async with sent(self._server.port, whole[: dice.randint(1, len(whole) - 1)]):
                return
        headers = dice.choice(BROKEN_HEADS) if dice.random() < 0.2 else ""
        data = request(CHAT, dice.choice(BROKEN), host=self._host, headers=headers)
        async with sent(self._server.port, data) as reader:
            try:
                answer = await reader.read(65536)
            except ConnectionError:
                return
        if answer and not answer.startswith(b"HTTP/1.1 4"):
            raise RuntimeError(f"{answer[:150]!r}")

    def _asking(self, dice: random.Random, *, stream: bool) -> Any:
        messages = [{"role": "user", "content": f"Tell me a story about {dice.choice(SUBJECTS)}."}]
        body = self._body(dice, messages) | {"stream": stream}
        return sent(self._server.port, request(CHAT, body, host=self._host))

    def _body(self, dice: random.Random, messages: list[dict[str, str]]) -> dict[str, Any]:
        options = {"stream": True, "stream_options": {"include_usage": True}, "seed": dice.randrange(2**31)}
        return {"messages": messages, "max_tokens": dice.randint(8, 160), **options}

    def table(self, seconds: float, n_clients: int, max_growth: float) -> Table:
        """Return what was measured."""
        quarter = len(self.memory) // 4
        second, last = self.memory[quarter : 2 * quarter], self.memory[-quarter:]
        growth = statistics.median(last) - statistics.median(second) if quarter else 0.0
        firsts = sorted(self.firsts) or [0.0]
        rows = [
            *(Row(f"requests: {kind}", n, "{:.0f}") for kind, n in sorted(self.done.items())),
            Row("failures", self.failures.total(), "{:.0f}", 0, "exactly"),
            Row("tokens/s of streams that were read", self.n_tokens / seconds),
            Row("time to the first token, median", 1000 * statistics.median(firsts), "{:.0f} ms"),
            Row("time to the first token, p99", 1000 * firsts[int(0.99 * (len(firsts) - 1))], "{:.0f} ms"),
            Row("memory in use, median", statistics.median(self.memory), "{:.1f} MiB"),
            Row("memory in use, last quarter - second", growth, "{:.1f} MiB", max_growth, "at most"),
        ]
        return Table(f"{n_clients} clients of cyllama serve for {seconds:.0f} s", rows)


def _text_of(body: bytes) -> str:
    """Return the text of a stream of chunks."""
    deltas = (json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {"))
    return "".join(choice["delta"].get("content") or "" for delta in deltas for choice in delta["choices"])


def measure(server: CyllamaServer, *, seconds: float, n_clients: int, seed: int = 0) -> Load:
    """Let clients ask a server for some seconds."""
    load = Load(server, seconds, seed)
    asyncio.run(load.run(n_clients))
    return load


def main() -> None:
    """Measure, print, and exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", type=Path, help="a GGUF file; the embedded model by default")
    parser.add_argument("--max-growth-mib", type=float, default=16.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with CyllamaServer(args.model, "--max-body-s", f"{BODY_SECONDS}") as server:
        load = measure(server, seconds=60 * args.minutes, n_clients=args.clients, seed=args.seed)
        log = server.log
    table = load.table(60 * args.minutes, args.clients, args.max_growth_mib)
    print(table)
    for failure, n in load.failures.most_common(20):
        print(f"  {n} times: {failure}")
    if "Traceback" in log:
        print(log[log.index("Traceback") - 200 :][:3000])
    sys.exit(not table.reached or "Traceback" in log)


if __name__ == "__main__":
    main()
