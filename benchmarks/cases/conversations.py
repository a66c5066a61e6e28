"""Conversations: how soon the next turn of one is answered, when others had theirs in between."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cyllama import LLM
from kit.clock import first_chunk_seconds, settle
from kit.models import ANSWER_BIAS, ANSWER_TOKEN, bench_model, random_prompt
from kit.report import Row, Table
from peers.server import LlamaServer
from peers.workers import LlamaCppPython

MODEL = ("0.5b", "Q4_0")

# Interleaved conversations: four, a turn of 100 tokens each in turn.
N_INTERLEAVED = 4
N_TURNS = 6
N_PROMPT = 84
N_ANSWER = 16
MAX_TURN_GROWTH = 1.4
MAX_TO_SERVER = 1.0
N_SLOTS = 8
SLOT_CELLS = 1024

# Returning ones: more conversations than the KV cache has room for.
N_CONVERSATIONS = 64
N_HISTORY = 500
RESIDENT_CELLS = 8 * 512
N_RETURN = 8
N_RETURN_ANSWER = 2
MAX_RETURN_COST = 0.1

FirstToken = Callable[[str, list[int]], tuple[float, list[int]]]  # conversation, history: seconds, answer


def open_llm(path: Path, n_threads: int, **options: Any) -> LLM:
    """Load the model of these benchmarks."""
    return LLM(str(path), n_threads=n_threads, temperature=0, ignore_eos=True, **options)


def measure_interleaved(n_threads: int, rounds: int, *, peers: bool) -> Table:
    """Measure the time to the first token of every turn of four conversations that take turns.

    Every turn sends the whole history. llama-server chooses the slots itself. llama-cpp-python, which holds one
    conversation and so evaluates every history from scratch, is measured in the first round only: it takes longest, and
    has no goal.
    """
    path = bench_model(*MODEL)
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contenders = {"cyllama": ask_cyllama(stack.enter_context(open_llm(path, n_threads)))}
        if peers:
            server = LlamaServer(path, n_threads, n_slots=N_SLOTS, slot_cells=SLOT_CELLS, cache_ram_mib=1024)
            python = LlamaCppPython(path, n_threads, n_ctx=SLOT_CELLS)
            contenders["llama-server"] = _ask_server(stack.enter_context(server))
            contenders["llama-cpp-python"] = _ask_python(stack.enter_context(python))
        for ask in contenders.values():
            converse(ask, "warm-up", n_conversations=1)
        for round_ in range(rounds):
            for name, ask in contenders.items():
                if round_ == 0 or name != "llama-cpp-python":
                    _note_turns(samples, name, converse(ask, round_))
    return _interleaved_table(samples)


def converse(ask: FirstToken, round_: object, *, n_conversations: int = N_INTERLEAVED) -> list[list[float]]:
    """Hold conversations whose turns alternate; return the seconds to the first token by turn and conversation."""
    settle()
    histories: dict[str, list[int]] = {f"{round_}-{i}": [] for i in range(n_conversations)}
    seconds: list[list[float]] = []
    for turn in range(N_TURNS):
        seconds.append([])
        for name, history in histories.items():
            history += random_prompt(N_PROMPT, "conversations", name, turn)
            first, answer = ask(name, history)
            seconds[-1].append(first)
            history += answer
    return seconds


def measure_returning(n_threads: int, rounds: int) -> Table:
    """Measure what a turn costs in a conversation that others have driven out of the KV cache since its last one.

    All share cells for eight. A returning one is compared with its whole history in a call of its own,
    which evaluates all of it.
    """
    path = bench_model(*MODEL)
    returning, from_scratch = [], []
    with open_llm(path, n_threads, kv_cells=RESIDENT_CELLS) as llm:
        histories = {f"{i}": random_prompt(N_HISTORY, "returning", i) for i in range(N_CONVERSATIONS)}
        for name, history in histories.items():
            llm(history, session=name, max_tokens=1)
        for name in [f"{i}" for i in range(min(3 * rounds, N_CONVERSATIONS))]:
            history = histories[name]
            history += random_prompt(N_RETURN, "return", name)
            returning.append(_first_token(llm, history, N_RETURN_ANSWER, session=name))
            from_scratch.append(_first_token(llm, history, N_RETURN_ANSWER))
        stats = llm.stats
    ratio = statistics.median(a / b for a, b in zip(returning, from_scratch, strict=True))
    rows = [
        Row("its history evaluated from scratch", 1000 * statistics.median(from_scratch), "{:.1f} ms"),
        Row("a returning conversation", 1000 * statistics.median(returning), "{:.1f} ms"),
        Row("  of its history evaluated from scratch", ratio, "{:.3f}", MAX_RETURN_COST, "at most"),
        Row("conversations dropped", stats.dropped, "{:d}", 0, "at most"),
        Row("host memory of the others", stats.host_bytes / 2**20, "{:.0f} MiB"),
    ]
    conversations = f"{N_CONVERSATIONS} conversations of {N_HISTORY} tokens in {RESIDENT_CELLS} cells"
    return Table(f"{conversations}: time to the first token of {N_RETURN} more, {' '.join(MODEL)}", rows)


def ask_cyllama(llm: LLM) -> FirstToken:
    """Return a function that asks an LLM, a session per conversation."""

    def ask(name: str, history: list[int]) -> tuple[float, list[int]]:
        first = _first_token(llm, history, N_ANSWER, session=name)
        return first, [ANSWER_TOKEN] * N_ANSWER

    return ask


def _ask_server(server: LlamaServer) -> FirstToken:
    def ask(_: str, history: list[int]) -> tuple[float, list[int]]:
        return server.first_token_seconds(history, N_ANSWER), [ANSWER_TOKEN] * N_ANSWER

    return ask


def _ask_python(llama_cpp_python: LlamaCppPython) -> FirstToken:
    def ask(_: str, history: list[int]) -> tuple[float, list[int]]:
        return llama_cpp_python.first_token_seconds(history, N_ANSWER)

    return ask


def _first_token(llm: LLM, history: list[int], max_tokens: int, **options: Any) -> float:
    bias = {ANSWER_TOKEN: ANSWER_BIAS}
    return first_chunk_seconds(lambda: llm(history, max_tokens=max_tokens, logit_bias=bias, stream=True, **options))


def _note_turns(samples: dict[str, list[float]], name: str, seconds: list[list[float]]) -> None:
    """Note the medians over the conversations: of the first turn, of the last, and of how far it grew."""
    first, last = seconds[0], seconds[-1]
    growth = statistics.median(b / a for a, b in zip(first, last, strict=True))
    for key, value in {"first": statistics.median(first), "last": statistics.median(last), "growth": growth}.items():
        samples.setdefault(f"{name} {key}", []).append(value)


def _interleaved_table(samples: dict[str, list[float]]) -> Table:
    medians = {key: statistics.median(values) for key, values in samples.items()}
    rows: list[Row] = []
    for name in ("cyllama", "llama-server", "llama-cpp-python"):
        if f"{name} first" in medians:
            goal = MAX_TURN_GROWTH if name == "cyllama" else None
            rows.append(Row(f"{name}, turn 1", 1000 * medians[f"{name} first"], "{:.1f} ms"))
            rows.append(Row(f"{name}, turn {N_TURNS}", 1000 * medians[f"{name} last"], "{:.1f} ms"))
            rows.append(Row(f"  {name}, turn {N_TURNS} / turn 1", medians[f"{name} growth"], "{:.3f}", goal, "at most"))
    if "llama-server last" in medians:
        pairs = zip(samples["cyllama last"], samples["llama-server last"], strict=True)
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        rows.append(Row(f"turn {N_TURNS}, cyllama / llama-server", ratio, "{:.3f}", MAX_TO_SERVER, "at most"))
    conversations = f"{N_INTERLEAVED} interleaved conversations, {N_TURNS} turns of {N_PROMPT} + {N_ANSWER} tokens"
    return Table(f"{conversations}: time to the first token, {' '.join(MODEL)}", rows)
