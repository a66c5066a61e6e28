"""Idle conversations: what they cost the one that is active."""

from __future__ import annotations

import itertools
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from cases.conversations import MODEL, N_CONVERSATIONS, N_HISTORY, open_llm
from cyllama import LLM
from kit.clock import settle
from kit.models import bench_model, random_prompt
from kit.report import Row, Table

N_DECODE = 128
MIN_BESIDE_IDLE = 0.95
AMPLE_CELLS = 65536  # room for all of them


def measure_beside_idle(n_threads: int, rounds: int) -> Table:
    """Measure a conversation's tokens per second beside 63 that are idle, and alone.

    Two ``LLM`` with the same options differ by some percent, by where their weights happen to be in memory, and the
    machine drifts by as much. So they are measured in turn, and change places after half of the rounds.
    """
    rows: list[Row] = []
    for label, options in {"default kv_cells": {}, f"kv_cells={AMPLE_CELLS}": {"kv_cells": AMPLE_CELLS}}.items():
        with ExitStack() as stack:
            file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "idle.session"
            one, other = (stack.enter_context(open_llm(bench_model(*MODEL), n_threads, **options)) for _ in range(2))
            _save_idle(one, file)
            halves = [_measure_half(empty, full, file, rounds) for empty, full in ((one, other), (other, one))]
            rows += _idle_rows(label, halves, one.stats.resident)
    title = f"one conversation beside {N_CONVERSATIONS - 1} idle ones of {N_HISTORY} tokens"
    return Table(f"{title}: {N_DECODE} tokens, {' '.join(MODEL)}", rows)


def _idle_rows(label: str, halves: list[list[tuple[float, float]]], n_resident: int) -> list[Row]:
    alone, beside = (statistics.median(rates) for rates in zip(*itertools.chain(*halves), strict=True))
    ratio = statistics.geometric_mean(statistics.median(b / a for a, b in pairs) for pairs in halves)
    return [
        Row(f"alone, {label}", alone, "{:.1f} tokens/s"),
        Row(f"beside the others, {label}", beside, "{:.1f} tokens/s"),
        Row(f"  of the rate alone, {label}", ratio, "{:.3f}", MIN_BESIDE_IDLE),
        Row(f"  of them in the KV cache, {label}", n_resident, "{:d}"),
    ]


def _measure_half(empty: LLM, full: LLM, file: Path, rounds: int) -> list[tuple[float, float]]:
    """Return the rates of a conversation alone in ``empty`` and beside idle ones in ``full``, in turn."""
    empty.reset_context()
    _fill(full, file)
    pairs: list[tuple[float, float]] = []
    for round_ in range(-1, rounds):  # the first is a warm-up
        settle()
        rates = {llm: _decode_rate(llm, f"active {round_}") for llm in ((empty, full) if round_ % 2 else (full, empty))}
        pairs.append((rates[empty], rates[full]))
    return pairs[1:]


def _save_idle(llm: LLM, file: Path) -> None:
    llm(_history(), session="idle", max_tokens=1)
    llm.session("idle").save(file)


def _history() -> list[int]:
    return random_prompt(N_HISTORY, "idle")


def _fill(llm: LLM, file: Path) -> None:
    """Have idle conversations, which are loaded from the file of one, since that is far faster than evaluating each.

    Each is answered with a token, so that they are in the KV cache as far as it has room for them.
    """
    history = _history()
    for i in range(N_CONVERSATIONS - 1):
        llm.load_session(file, f"idle {i}")
        llm([*history, *random_prompt(1, "touch", i)], session=f"idle {i}", max_tokens=1)


def _decode_rate(llm: LLM, name: str) -> float:
    """Return tokens per second from the first token to the last, as the engine clocked them."""
    response = llm(random_prompt(N_HISTORY, name), session=name, max_tokens=N_DECODE)
    assert response.usage.completion_tokens == N_DECODE
    llm.reset_context(session=name)
    return (N_DECODE - 1) / response.timings.generation
