"""Idle conversations: what they cost the one that is active."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from clock import settle
from conversations import MODEL, N_CONVERSATIONS, N_HISTORY, open_llm
from models import bench_model, random_prompt
from report import Row, Table

from cyllama import LLM

N_DECODE = 128
MIN_BESIDE_IDLE = 0.95
AMPLE_CELLS = 65536  # room for all of them


def measure_beside_idle(n_threads: int, rounds: int) -> Table:
    """Measure a conversation's tokens per second beside 63 that are idle, and alone, in the same ``LLM``.

    Two with the same options differ by some percent, by where their weights happen to be in memory. The idle ones are
    loaded from the file of one, which is far faster than evaluating each, and then answered with a token each, so that
    they are in the KV cache as far as it has room for them.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "idle.session"
        for label, options in {"default kv_cells": {}, f"kv_cells={AMPLE_CELLS}": {"kv_cells": AMPLE_CELLS}}.items():
            with open_llm(bench_model(*MODEL), n_threads, **options) as llm:
                _save_idle(llm, file)
                pairs = [_measure_round(llm, file, f"{round_}") for round_ in range(-1, rounds)][1:]
                rows += _idle_rows(label, pairs, llm.stats.resident)
    title = f"one conversation beside {N_CONVERSATIONS - 1} idle ones of {N_HISTORY} tokens"
    return Table(f"{title}: {N_DECODE} tokens, {' '.join(MODEL)}", rows)


def _idle_rows(label: str, pairs: list[tuple[float, float]], n_resident: int) -> list[Row]:
    alone, beside = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratio = statistics.median(beside / alone for alone, beside in pairs)
    return [
        Row(f"alone, {label}", alone, "{:.1f} tokens/s"),
        Row(f"beside the others, {label}", beside, "{:.1f} tokens/s"),
        Row(f"  of the rate alone, {label}", ratio, "{:.3f}", MIN_BESIDE_IDLE),
        Row(f"  of them in the KV cache, {label}", n_resident, "{:d}"),
    ]


def _measure_round(llm: LLM, file: Path, name: str) -> tuple[float, float]:
    """Return the rates of a conversation alone and beside idle ones."""
    llm.reset_context()
    settle()
    alone = _decode_rate(llm, name)
    _fill(llm, file)
    settle()
    return alone, _decode_rate(llm, name)


def _save_idle(llm: LLM, file: Path) -> None:
    llm(_history(), session="idle", max_tokens=1)
    llm.session("idle").save(file)


def _history() -> list[int]:
    return random_prompt(N_HISTORY, "idle")


def _fill(llm: LLM, file: Path) -> None:
    for i in range(N_CONVERSATIONS - 1):
        llm.load_session(file, f"idle {i}")
        llm([*_history(), *random_prompt(1, "touch", i)], session=f"idle {i}", max_tokens=1)


def _decode_rate(llm: LLM, name: str) -> float:
    """Return tokens per second from the first token to the last, as the engine clocked them."""
    response = llm(random_prompt(N_HISTORY, name), session=name, max_tokens=N_DECODE)
    assert response.usage.completion_tokens == N_DECODE
    llm.reset_context(session=name)
    return (N_DECODE - 1) / response.timings.generation
