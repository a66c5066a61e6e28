"""What a streamed token costs a server beside its computation: CPU time, which other work hardly changes."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from typing import Any

from kit.clock import settle
from kit.http_stream import Streamed, stream
from kit.models import ANSWER_BIAS, ANSWER_TOKEN, bench_model
from kit.process import cpu_seconds
from kit.report import Row, Table
from peers.cyllama_server import CyllamaServer
from peers.server import LlamaServer

MODEL = ("5m", "F16")
"""So small that the server's own work is most of what a token takes."""

CLIENTS = (1, 8, 32)
N_TOKENS = 256
SLOT_CELLS = 512
ROUTES = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


def measure_stream_cost(rounds: int, *, peers: bool) -> Table:
    """Measure the CPU time of 1000 streamed tokens of both servers, in turns.

    One thread computes: several would also count how long they wait for each other.
    """
    path = bench_model(*MODEL)
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        n_slots = max(CLIENTS)
        options = ("--option", "n_threads=1", "--option", f"n_parallel={n_slots}")
        servers: dict[str, Any] = {"cyllama": stack.enter_context(CyllamaServer(path, *options))}
        if peers:
            server = LlamaServer(path, 1, n_slots=n_slots, slot_cells=SLOT_CELLS, cache_ram_mib=0)
            servers["llama-server"] = stack.enter_context(server)
        for round_ in ["warm-up", *range(rounds)]:
            for kind, route in ROUTES.items():
                for n in CLIENTS:
                    for name, server in servers.items():
                        found = _measure(server, route, kind, n)
                        for what, value in found.items() if round_ != "warm-up" else ():
                            samples.setdefault(f"{kind}, {n} clients: {name}, {what}", []).append(value)
    rows = [Row(label, statistics.median(values), "{:.1f} ms") for label, values in samples.items()]
    return Table(f"CPU time of a server per 1000 streamed tokens, {' '.join(MODEL)}", rows)


def _measure(server: Any, route: str, kind: str, n: int) -> dict[str, float]:
    """Return milliseconds of 1000 tokens: of all threads, and of the one that serves where that is known."""
    settle()
    of_all, of_loop = cpu_seconds(server.pid), cpu_seconds(server.pid, server.pid)
    answers = asyncio.run(_ask_all(server.port, route, kind, n))
    assert all(answer.is_whole and answer.n_tokens == N_TOKENS for answer in answers), answers[0]
    scale = 1e6 / (n * N_TOKENS)
    found = {"all": scale * (cpu_seconds(server.pid) - of_all)}
    if isinstance(server, CyllamaServer):
        found["event loop"] = scale * (cpu_seconds(server.pid, server.pid) - of_loop)
    return found


async def _ask_all(port: int, route: str, kind: str, n: int) -> list[Streamed]:
    same: dict[str, Any] = {"max_tokens": N_TOKENS, "temperature": 0, "top_k": 1, "samplers": ["top_k"]}
    same |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    same |= {"logit_bias": [[ANSWER_TOKEN, ANSWER_BIAS]]}
    asks = [{"messages": [{"role": "user", "content": f"Hello, {i}."}]} for i in range(n)]
    if kind == "completion":
        asks = [{"prompt": f"Hello, {i}."} for i in range(n)]
    return await asyncio.gather(*(stream(port, route, same | ask) for ask in asks))
