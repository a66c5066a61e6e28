#!/usr/bin/env python3
"""How close cyllama's generation comes to the native limit: the same llama.cpp, in one run, as ratios.

Every round measures llama-bench and cyllama in turn, so that a machine whose speed drifts drifts for both; the medians
of the ratios are printed. The same extension built with OpenMP shows what the choice of threads is worth, alone and
beside one busy process.

    make bench
    python benchmarks/decode.py --rounds 5 --skip-openmp
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from models import BUILD, bench_model
from report import describe_run, verdict

from cyllama.engine.hardware import physical_cores

ROOT = Path(__file__).parent.parent
GENERATE_RATE = Path(__file__).parent / "generate_rate.py"


class Case(NamedTuple):
    """A model to measure with, and the ratios it has to reach."""

    preset: str
    file_type: str
    n_tokens: int
    goal: float

    @property
    def path(self) -> Path:
        """The model's file, which is written unless it is there."""
        return bench_model(self.preset, self.file_type)


CASES = (Case("0.5b", "Q4_0", 128, 0.95), Case("5m", "F16", 512, 0.6))
MAX_OVERHEAD_MS = 0.5
MIN_OPENMP_RATIO = 5.0  # beside one busy process, for the first case


def llama_bench_rate(case: Case, n_threads: int) -> float:
    """Return llama-bench's tokens per second, without sampling: the median of three."""
    command = [BUILD / "tools" / "bin" / "llama-bench", "-m", case.path, "-p", "0", "-n", case.n_tokens]
    command += ["-t", n_threads, "-r", "3", "-o", "json"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return statistics.median(json.loads(result.stdout)[0]["samples_ts"])


def cyllama_rates(
    case: Case, n_threads: int, modes: list[str], *, package: Path | None = None, runs: int = 3
) -> dict[str, float]:
    """Return what generate_rate.py measures, with the installed cyllama or the one in the folder ``package``."""
    # An editable install of cyllama comes before PYTHONPATH: the other one needs an environment without it.
    python = sys.executable if package is None else str(BUILD / "venv" / "bin" / "python")
    command = [python, str(GENERATE_RATE), str(case.path), f"--threads={n_threads}", f"--runs={runs}"]
    command += [f"--tokens={case.n_tokens}", *(f"--mode={mode}" for mode in modes)]
    environment = dict(os.environ)
    if package is not None:
        environment["PYTHONPATH"] = str(package)
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(result.stdout)


def measure_decode(case: Case, n_threads: int, rounds: int) -> dict[str, float]:
    """Return the medians over the rounds: rates, ratios to llama-bench, and the cost of a one-token call."""
    modes = ["stream", "thread", "sampled", "overhead"]
    samples: dict[str, list[float]] = {}
    for _ in range(rounds):
        native = llama_bench_rate(case, n_threads)
        rates = cyllama_rates(case, n_threads, modes)
        samples.setdefault("native", []).append(native)
        samples.setdefault("overhead_ms", []).append(rates["overhead"] * 1000)
        for mode in modes[:3]:
            samples.setdefault(mode, []).append(rates[mode])
            samples.setdefault(f"{mode}_ratio", []).append(rates[mode] / native)
    return {name: statistics.median(values) for name, values in samples.items()}


def _spin() -> None:
    while True:
        pass


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep one core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def openmp_package() -> Path:
    """Return a folder with this cyllama around an extension whose ggml was built with OpenMP (see `make bench`)."""
    folder = BUILD / "openmp" / "package"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "cyllama", folder / "cyllama", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    [extension] = (BUILD / "openmp" / "ext").glob("llama_cpp*.so")
    shutil.copy(extension, folder / "cyllama" / "llama")
    return folder


def measure_threads(case: Case, n_threads: int, rounds: int) -> dict[str, float]:
    """Return rates with a new thread for every request, alone and beside a busy process.

    With OpenMP every caller decodes on its own thread, as bindings do that leave that to their callers; cyllama decodes
    on its engine's thread.
    """
    package = openmp_package()
    short = case._replace(n_tokens=case.n_tokens // 8)
    samples: dict[str, list[float]] = {}

    def measure(suffix: str) -> None:
        ours = cyllama_rates(short, n_threads, ["thread"], runs=3)["thread"]
        theirs = cyllama_rates(short, n_threads, ["direct"], runs=1, package=package)["direct"]
        samples.setdefault(f"cyllama_{suffix}", []).append(ours)
        samples.setdefault(f"openmp_{suffix}", []).append(theirs)
        samples.setdefault(f"ratio_{suffix}", []).append(ours / theirs)

    for _ in range(rounds):
        measure("alone")
        with busy_neighbour():
            measure("busy")
    return {name: statistics.median(values) for name, values in samples.items()}


def report_decode(case: Case, result: dict[str, float]) -> bool:
    """Print a case's results; return whether it reaches its goals."""
    goals = [result["stream_ratio"] >= case.goal, result["thread_ratio"] >= case.goal]
    goals.append(result["overhead_ms"] < MAX_OVERHEAD_MS)
    print(f"\n{case.preset} {case.file_type}, {case.n_tokens} tokens")
    print(f"  llama-bench, no sampling      {result['native']:8.1f} tokens/s")
    print(f"  cyllama, streaming            {result['stream']:8.1f}   ratio {result['stream_ratio']:.3f}", end="")
    print(f"   goal {case.goal}: {verdict(goals[0])}")
    print(f"  a new thread per request      {result['thread']:8.1f}   ratio {result['thread_ratio']:.3f}", end="")
    print(f"   goal {case.goal}: {verdict(goals[1])}")
    print(f"  default sampling              {result['sampled']:8.1f}   ratio {result['sampled_ratio']:.3f}")
    print(f"  one-token call, n_ctx 4096    {result['overhead_ms']:8.3f} ms beyond its native decode", end="")
    print(f"   goal {MAX_OVERHEAD_MS} ms: {verdict(goals[2])}")
    return all(goals)


def report_threads(case: Case, result: dict[str, float], goal: float | None) -> bool:
    """Print the comparison with OpenMP; return whether the ratio beside a busy process reaches its goal."""
    reached = goal is None or result["ratio_busy"] >= goal
    print(f"\n{case.preset} {case.file_type}, a new thread per request    alone   beside one busy process")
    print(f"  OpenMP, decoding in the caller{result['openmp_alone']:11.1f}{result['openmp_busy']:26.1f} tokens/s")
    print(f"  cyllama                       {result['cyllama_alone']:11.1f}{result['cyllama_busy']:26.1f}")
    print(f"  ratio                         {result['ratio_alone']:11.2f}{result['ratio_busy']:26.2f}", end="")
    print("" if goal is None else f"   goal {goal}: {verdict(reached)}")
    return reached


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--skip-openmp", action="store_true", help="leave out the comparison with OpenMP")
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "decode.json")
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds))
    results: dict[str, dict[str, float]] = {}
    reached = True
    for case in CASES:
        results[case.preset] = measure_decode(case, args.threads, args.rounds)
        reached &= report_decode(case, results[case.preset])
        if not args.skip_openmp:
            results[f"{case.preset}_threads"] = measure_threads(case, args.threads, args.rounds)
            goal = MIN_OPENMP_RATIO if case is CASES[0] else None
            reached &= report_threads(case, results[f"{case.preset}_threads"], goal)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(not reached)


if __name__ == "__main__":
    main()
