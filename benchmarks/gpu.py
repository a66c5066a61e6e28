#!/usr/bin/env python3
"""An 8B-shaped model on the GPU: decode, many callers and conversations beside llama.cpp's tools; memory given back.

    make gpu
    python benchmarks/gpu.py --preset 1b --rounds 3

`make gpu` builds cyllama and the tools with CUDA, and sets CYLLAMA_TOOLS to their folder.
The weights are random. The exit status is 1 if a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from cases.callers import N_PROMPT, N_TOKENS, complete_all
from cases.conversations import N_TURNS, ask_cyllama, converse
from cyllama import LLM
from cyllama.llama.llama_cpp import devices
from kit.clock import settle
from kit.generate_rate import stream_rate
from kit.models import BUILD, bench_model, random_prompt
from kit.random_gguf import PRESETS
from kit.report import Row, Table
from peers.tools import batched_bench_seconds, llama_bench_rate

N_DECODE = 128
N_CALLERS = (8, 32)
MIN_DECODE = 0.95  # of llama-bench
MIN_CALLERS = 0.85  # of llama-batched-bench
MAX_TURN_GROWTH = 1.4
MAX_KEPT_MIB = 128  # after close(): the CUDA runtime keeps its own, some 66 MiB, until the process ends


def used_mib() -> float:
    """Return the memory in use on the first GPU, as nvidia-smi tells."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])


def measure_decode(path: Path, llm: LLM, rounds: int) -> Table:
    """Measure one stream, in turn with llama-bench."""
    native, ours = [], []
    stream_rate(llm, N_DECODE)
    for _ in range(rounds):
        native.append(llama_bench_rate(path, N_DECODE, ["-ngl", 99, "-fa", 1]))
        ours.append(stream_rate(llm, N_DECODE))
    ratio = statistics.median(a / b for a, b in zip(ours, native, strict=True))
    rows = [
        Row("llama-bench", statistics.median(native), "{:.1f} tokens/s"),
        Row("cyllama, streamed", statistics.median(ours), "{:.1f} tokens/s"),
        Row("  cyllama / llama-bench", ratio, "{:.3f}", MIN_DECODE),
    ]
    return Table(f"One caller, {N_DECODE} tokens", rows)


def measure_callers(path: Path, llm: LLM, n_callers: int, rounds: int) -> Table:
    """Measure the tokens per second of all callers together, in turn with llama-batched-bench."""
    native, ours = [], []
    for round_ in ["warm-up", *range(rounds)]:
        prompts = [random_prompt(N_PROMPT, "gpu", round_, caller) for caller in range(n_callers)]
        settle()
        seconds = complete_all(llm, prompts)
        if round_ != "warm-up":
            ours.append(n_callers * N_TOKENS / seconds)
            shape = {"n_parallel": n_callers, "n_prompt": N_PROMPT, "n_tokens": N_TOKENS}
            native.append(n_callers * N_TOKENS / batched_bench_seconds(path, 4, **shape))
    ratio = statistics.median(a / b for a, b in zip(ours, native, strict=True))
    rows = [
        Row("llama-batched-bench", statistics.median(native), "{:.1f} tokens/s"),
        Row("cyllama", statistics.median(ours), "{:.1f} tokens/s"),
        Row("  cyllama / llama-batched-bench", ratio, "{:.3f}", MIN_CALLERS),
    ]
    return Table(f"{n_callers} callers, {N_PROMPT} + {N_TOKENS} tokens each", rows)


def measure_sessions(llm: LLM) -> Table:
    """Measure the time to the first token of conversations that take turns."""
    converse(ask_cyllama(llm), "warm-up", n_conversations=1)
    first, *_, last = converse(ask_cyllama(llm), "gpu")
    growth = statistics.median(b / a for a, b in zip(first, last, strict=True))
    rows = [
        Row("turn 1", 1000 * statistics.median(first), "{:.1f} ms"),
        Row(f"turn {N_TURNS}", 1000 * statistics.median(last), "{:.1f} ms"),
        Row(f"  turn {N_TURNS} / turn 1", growth, "{:.3f}", MAX_TURN_GROWTH, "at most"),
    ]
    return Table(f"Interleaved conversations, {N_TURNS} turns: time to the first token", rows)


def measure_memory(path: Path) -> Table:
    """Measure the GPU's memory before, while and after a model and its context are in use."""
    before = used_mib()
    llm = LLM(str(path), temperature=0, ignore_eos=True)
    loaded = used_mib()
    llm([7, 8, 9], max_tokens=1, n_ctx=8192)
    in_use = used_mib()
    llm.close()
    closed = used_mib()
    llm.model.close()
    rows = [
        Row("the model", loaded - before, "{:.0f} MiB"),
        Row("a context of 8,192 tokens", in_use - loaded, "{:.0f} MiB", 1),
        Row("still taken after close()", closed - loaded, "{:.0f} MiB", MAX_KEPT_MIB, "at most"),
        Row("still taken without the model", used_mib() - before, "{:.0f} MiB"),
    ]
    return Table("Memory on the GPU", rows)


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="8b")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "gpu.json")
    args = parser.parse_args()

    gpus = [device.description for device in devices() if device.type != "cpu"]
    if not gpus:
        sys.exit("There is no GPU, or cyllama was built without support for it: `make gpu` builds it with CUDA.")
    path = bench_model(args.preset, args.type)
    print(f"{', '.join(gpus)}: {args.preset} {args.type}, {args.rounds} rounds", flush=True)
    tables = [measure_memory(path)]
    print(f"\n{tables[-1]}", flush=True)
    with LLM(str(path), temperature=0, ignore_eos=True, n_parallel=max(N_CALLERS)) as llm:
        cases = [partial(measure_decode, path, llm, args.rounds)]
        cases += [partial(measure_callers, path, llm, n, args.rounds) for n in N_CALLERS]
        cases += [partial(measure_sessions, llm)]
        for measure in cases:
            tables.append(measure())
            print(f"\n{tables[-1]}", flush=True)
    results = {table.title: {row.label.strip(): row.value for row in table.rows} for table in tables}
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(not all(table.reached for table in tables))


if __name__ == "__main__":
    main()
