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
    """Measure a conversation's tokens per second beside 63 that are idle, and alone.

    The idle ones are loaded from the file of one, which is far faster than evaluating each, and then answered with a
    token each, so that they are in the KV cache as far as it has room for them.
    """
    path = bench_model(*MODEL)
    rates: dict[str, list[float]] = {"alone": [], "beside": [], "ample": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        open_llm(path, n_threads) as alone,
        open_llm(path, n_threads) as beside,
        open_llm(path, n_threads, kv_cells=AMPLE_CELLS) as ample,
    ):
        file = Path(folder) / "idle.session"
        history = random_prompt(N_HISTORY, "idle")
        alone(history, session="idle", max_tokens=1)
        alone.session("idle").save(file)
        alone.reset_context()
        for llm in (beside, ample):
            _fill(llm, file, history)
        llms = {"alone": alone, "beside": beside, "ample": ample}
        for llm in llms.values():
            _decode_rate(llm, "warm-up")
        for round_ in range(rounds):
            for name in sorted(llms, reverse=round_ % 2 == 1):  # nobody is always measured after the same one
                settle()
                rates[name].append(_decode_rate(llms[name], f"active {round_}"))
        resident = {name: llm.stats.resident for name, llm in llms.items()}
    return _idle_table(rates, resident)


def _idle_table(rates: dict[str, list[float]], resident: dict[str, int]) -> Table:
    rows = [Row("alone", statistics.median(rates["alone"]), "{:.1f} tokens/s")]
    labels = {"beside": "default kv_cells", "ample": f"kv_cells={AMPLE_CELLS}"}
    for name, label in labels.items():
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates["alone"], strict=True))
        rows.append(Row(f"beside the others, {label}", statistics.median(rates[name]), "{:.1f} tokens/s"))
        rows.append(Row(f"  of the rate alone, {label}", ratio, "{:.3f}", MIN_BESIDE_IDLE))
        rows.append(Row(f"  of them in the KV cache, {label}", resident[name], "{:d}"))
    title = f"one conversation beside {N_CONVERSATIONS - 1} idle ones of {N_HISTORY} tokens"
    return Table(f"{title}: {N_DECODE} tokens, {' '.join(MODEL)}", rows)


def _fill(llm: LLM, file: Path, history: list[int]) -> None:
    for i in range(N_CONVERSATIONS - 1):
        llm.load_session(file, f"idle {i}")
        llm([*history, *random_prompt(1, "touch", i)], session=f"idle {i}", max_tokens=1)


def _decode_rate(llm: LLM, name: str) -> float:
    """Return tokens per second from the first token to the last, as the engine clocked them."""
    response = llm(random_prompt(N_HISTORY, name), session=name, max_tokens=N_DECODE)
    assert response.usage.completion_tokens == N_DECODE
    llm.reset_context(session=name)
    return (N_DECODE - 1) / response.timings.generation
