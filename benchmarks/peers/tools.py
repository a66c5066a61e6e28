"""llama.cpp's own measuring tools, of the same llama.cpp, compiled with the same options as cyllama."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kit.models import BUILD

TRIES = 5
TOOLS = Path(os.environ.get("CYLLAMA_TOOLS", BUILD / "tools" / "bin"))


def llama_bench_rate(model: Path, n_tokens: int, options: Sequence[object] = (), *, repetitions: int = 3) -> float:
    """Return llama-bench's tokens per second, without sampling: the median of three.

    Args:
        model: The GGUF file.
        n_tokens: Tokens that are generated.
        options: Further arguments of llama-bench.
        repetitions: How often it measures.
    """
    return _bench(model, ["-p", "0", "-n", n_tokens, *options], repetitions)


def llama_bench_prefill(model: Path, n_prompt: int, options: Sequence[object] = (), *, repetitions: int = 3) -> float:
    """Return the tokens of a prompt that llama-bench evaluates per second; arguments as of ``llama_bench_rate``."""
    return _bench(model, ["-p", n_prompt, "-n", "0", *options], repetitions)


def _bench(model: Path, options: Sequence[object], repetitions: int) -> float:
    command = [TOOLS / "llama-bench", "-m", model, *options, "-r", repetitions, "-o", "json"]
    return statistics.median(json.loads(_output_of(command))[0]["samples_ts"])


def _output_of(command: Sequence[object]) -> str:
    """Run a tool; return what it prints.

    Raises:
        RuntimeError: It failed.
    """
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        raise RuntimeError(
            f"{Path(str(command[0])).name} failed with {result.returncode}: {lines[-1] if lines else 'it said nothing'}"
        )
    return result.stdout


def batched_bench_seconds(model: Path, n_threads: int, *, n_parallel: int, n_prompt: int, n_tokens: int) -> float:
    """Return the seconds of llama-batched-bench for that many prompts and answers, without sampling."""
    return batched_bench_results(model, n_threads, [n_parallel], n_prompt, n_tokens)[n_parallel]["t"]


def batched_bench_results(
    model: Path, n_threads: int, counts: Sequence[int], n_prompt: int, n_tokens: int
) -> dict[int, dict[str, float]]:
    """Return what llama-batched-bench prints for each number of sequences.

    Seconds are ``t_pp`` for the prompts, ``t_tg`` for the answers, and ``t`` for both. Beside other work it can end
    before its log is written: what is missing is measured again.

    Raises:
        RuntimeError: It failed, or left out results every time.
    """
    found: dict[int, dict[str, float]] = {}
    for _ in range(TRIES):
        missing = [n for n in counts if n not in found]
        options = {"-m": model, "-t": n_threads, "-c": max(missing) * (n_prompt + n_tokens), "-npp": n_prompt}
        options |= {"-ntg": n_tokens, "-npl": ",".join(map(str, missing)), "--output-format": "jsonl"}
        command = [TOOLS / "llama-batched-bench", *(part for option in options.items() for part in option)]
        results = map(json.loads, re.findall(r'\{"n_kv_max".*\}', _output_of(command)))
        found |= {result["pl"]: result for result in results}
        if found.keys() >= set(counts):
            return found
    raise RuntimeError(f"llama-batched-bench printed {len(found)} results instead of {len(counts)}")


class Tool(NamedTuple):
    """How a tool is run for the scenario ``kernels``.

    Attributes:
        model: The GGUF file.
        n_threads: Threads that decode.
        clock: Whether the tool's own wall time counts, or its CPU time: the difference between a run that measures once
            and one that measures three times, so that loading and warming up count for nothing.
    """

    model: Path
    n_threads: int
    clock: str


def bench(tool: Tool, *, n_tokens: int = 0, n_prompt: int = 0) -> float:
    """Return llama-bench's tokens per second of one prompt, or of one answer."""
    options = ["-p", n_prompt, "-n", n_tokens, "-t", tool.n_threads]
    if tool.clock == "wall":
        return _bench(tool.model, options, 1)

    def run(repetitions: int) -> float:
        return _cpu_of("llama-bench", ["-m", tool.model, *options, "-r", repetitions])

    return 2 * (n_tokens + n_prompt) / (run(3) - run(1))


def batched_bench(tool: Tool, n_parallel: int, n_prompt: int, n_tokens: int) -> float:
    """Return the generated tokens per second of llama-batched-bench, the prompts' time included."""
    n_generated = n_parallel * n_tokens
    if tool.clock == "wall":
        shape = {"n_parallel": n_parallel, "n_prompt": n_prompt, "n_tokens": n_tokens}
        return n_generated / batched_bench_seconds(tool.model, tool.n_threads, **shape)

    def run(repetitions: int) -> float:
        options = ["-m", tool.model, "-t", tool.n_threads, "-c", n_parallel * (n_prompt + n_tokens), "-npp", n_prompt]
        return _cpu_of(
            "llama-batched-bench", [*options, "-ntg", n_tokens, "-npl", ",".join([str(n_parallel)] * repetitions)]
        )

    return 2 * n_generated / (run(3) - run(1))


def _cpu_of(name: str, options: Sequence[object]) -> float:
    """Run a tool; return its CPU seconds."""
    command = [str(TOOLS / name), *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with the exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime
