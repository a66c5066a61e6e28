"""Streaming clients over HTTP: what `cyllama serve` and llama-server generate for them together, and how soon."""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from typing import Any

from kit.clock import settle
from kit.http_stream import Streamed, stream
from kit.models import ANSWER_BIAS, ANSWER_TOKEN, bench_model, random_prompt
from kit.process import cpu_seconds
from kit.report import Row, Table
from peers.cyllama_server import CyllamaServer
from peers.server import LlamaServer

MODEL = ("0.5b", "Q4_0")
CLIENTS = (1, 8, 32)
N_PROMPT = 60
N_TOKENS = 48
N_SECOND = 40  # tokens of the second turn
SLOT_CELLS = 512
MIN_RATE, MAX_SECOND_TURN = 1.0, 0.5

Servers = dict[str, CyllamaServer | LlamaServer]


def measure_serving(n_threads: int, rounds: int, *, peers: bool) -> Table:
    """Measure both servers in turns, with the same requests to `/v1/completions`.

    llama-server has a slot for each client. `cyllama serve` chooses by itself how many requests it decodes together.
    """
    path = bench_model(*MODEL)
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        options = ("--option", f"n_threads={n_threads}", "--option", "temperature=0")
        servers: Servers = {"cyllama": stack.enter_context(CyllamaServer(path, *options))}
        if peers:
            n_slots = max(CLIENTS)
            server = LlamaServer(path, n_threads, n_slots=n_slots, slot_cells=SLOT_CELLS, cache_ram_mib=1024)
            servers["llama-server"] = stack.enter_context(server)
        for round_ in ["warm-up", *range(rounds)]:
            found = asyncio.run(_round(servers, round_))
            if round_ != "warm-up":
                for key, value in found.items():
                    samples.setdefault(key, []).append(value)
    return _tabulate(samples)


async def _round(servers: Servers, round_: object) -> dict[str, float]:
    """Return by name what is measured of each server: rates, CPU time, and times to the first token."""
    found: dict[str, float] = {}
    for n in CLIENTS:
        for name, server in servers.items():
            settle()
            port, cpu = server.port, cpu_seconds(server.pid)
            prompts = [random_prompt(N_PROMPT, "serving", round_, n, client) for client in range(n)]
            answers = await _ask_all(port, prompts)
            found[f"{name} rate {n}"] = n * N_TOKENS / max(answer.seconds for answer in answers)
            found[f"{name} cpu {n}"] = (cpu_seconds(server.pid) - cpu) / (n * N_TOKENS)
            if n == max(CLIENTS):
                found[f"{name} first turn"] = statistics.median(answer.first for answer in answers)
                found[f"{name} second turn"] = await _second_turns(port, prompts, round_)
    return found


async def _second_turns(port: int, prompts: list[list[int]], round_: object) -> float:
    """Return the median of the seconds to the first token of the second turns, which all come at once."""
    histories = [
        [*prompt, *[ANSWER_TOKEN] * N_TOKENS, *random_prompt(N_SECOND, "second turn", round_, client)]
        for client, prompt in enumerate(prompts)
    ]
    return statistics.median(answer.first for answer in await _ask_all(port, histories))


async def _ask_all(port: int, prompts: list[list[int]]) -> list[Streamed]:
    bias = [[ANSWER_TOKEN, ANSWER_BIAS]]
    same: dict[str, Any] = {"max_tokens": N_TOKENS, "temperature": 0, "top_k": 1, "samplers": ["top_k"]}
    same |= {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True, "logit_bias": bias}
    answers = await asyncio.gather(*(stream(port, "/v1/completions", same | {"prompt": prompt}) for prompt in prompts))
    for answer in answers:
        assert answer.is_whole, answer
        assert answer.n_tokens == N_TOKENS, answer
    return answers


def _tabulate(samples: dict[str, list[float]]) -> Table:
    medians = {key: statistics.median(values) for key, values in samples.items()}
    peers = "llama-server second turn" in samples
    rows: list[Row] = []

    def compare(key: str, label: str, form: str, scale: float, goal: float | None, bound: Any) -> None:
        for name in ("cyllama", "llama-server") if peers else ("cyllama",):
            rows.append(Row(f"{label}, {name}", scale * medians[f"{name} {key}"], form))
        if peers:
            pairs = zip(samples[f"cyllama {key}"], samples[f"llama-server {key}"], strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            rows.append(Row("  cyllama / llama-server", ratio, "{:.3f}", goal, bound))

    for n in CLIENTS:
        compare(f"rate {n}", f"{n} clients", "{:.1f} tok/s", 1, MIN_RATE, "at least")
        compare(f"cpu {n}", "  CPU time of a token", "{:.2f} ms", 1000, None, "at most")
    compare("second turn", "second turn of 32, first token", "{:.0f} ms", 1000, MAX_SECOND_TURN, "at most")
    return Table(f"streams of {N_TOKENS} tokens over HTTP, prompts of {N_PROMPT}, {' '.join(MODEL)}", rows)
