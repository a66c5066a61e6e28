"""One stream: its rate beside llama-bench, and what the choice of threads is worth."""

from __future__ import annotations

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

from kit import generate_rate
from kit.models import BUILD, bench_model
from peers.tools import llama_bench_rate

GENERATE_RATE = Path(generate_rate.__file__)
ROOT = Path(__file__).resolve().parents[2]


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
        native = llama_bench_rate(case.path, case.n_tokens, ["-t", n_threads])
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
