#!/usr/bin/env python3
"""Measure cyllama beside its peers and the native limit: all scenarios, or those that are named.

Every contender runs in a process and an environment of its own. They are measured in turn in every round, so that a
machine whose speed drifts drifts for all; what counts are the medians of the rounds' ratios. It writes every round with
the machine and the versions to results.json, a plot of each measurement for light and for dark pages, and a table.
At the end it names the three places where cyllama stands worst.

    make bench
    make bench BENCH_ARGS="--scenario callers --rounds 5"
    make bench BENCH_ARGS=--quick
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cases.agents import measure_agents
from cases.embedding import measure_embeddings
from cases.kernels import kernel_table, measure_kernels, models
from cases.scaling import measure_callers, measure_idle, measure_length, measure_stream
from cases.scenario import Run
from cases.start import measure_energy, measure_start
from cases.texts import measure_lookup, measure_structured
from cyllama.engine.hardware import physical_cores
from kit.machine import describe_machine
from kit.measurement import Measurement, markdown, missing_lines, worst, worst_lines
from kit.models import BUILD
from kit.plots import write_plots
from kit.report import describe_run
from peers.contender import EVERYONE

SCENARIOS: dict[str, Callable[[Run], Iterator[Measurement]]] = {
    "stream": measure_stream,
    "callers": measure_callers,
    "length": measure_length,
    "idle": measure_idle,
    "structured": measure_structured,
    "lookup": measure_lookup,
    "agents": measure_agents,
    "embeddings": measure_embeddings,
    "start": measure_start,
    "energy": measure_energy,
    "kernels": measure_kernels,
}
ROUNDS = 3


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Return what reads a number of this kind that is more than 0."""

    def read(text: str) -> float:
        if not (value := kind(text)) > 0:  # nor "nan"
            raise argparse.ArgumentTypeError(f"expected more than 0, not {text}")
        return value

    read.__name__ = kind.__name__  # what argparse calls it in its message about other texts
    return read


def main() -> None:
    """Measure, print, and write the results."""
    suffix = f"-{variant}" if (variant := os.environ.get("CYLLAMA_CPU")) else ""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="measure only this; may be repeated")
    parser.add_argument(
        "--quick", action="store_true", help="show in seconds that everything runs; the figures mean nothing"
    )
    parser.add_argument("--rounds", type=positive(int), help=f"of every contender; {ROUNDS} by default")
    parser.add_argument("--threads", type=positive(int), default=physical_cores())
    parser.add_argument("--peer", choices=EVERYONE[1:], action="append", help="compare with this only; may be repeated")
    parser.add_argument("--skip-peers", action="store_true", help="measure cyllama alone")
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / f"results{suffix}", help="folder for the results")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="of kernels: cpu is on one thread")
    parser.add_argument(
        "--minutes", type=positive(float), default=float("inf"), help="for the models of kernels, all together"
    )
    parser.add_argument("--model", action="append", help='of kernels, such as "0.5b Q4_0"; may be repeated')
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else ROUNDS)
    peers = () if args.skip_peers else tuple(args.peer or EVERYONE[1:])
    threads = 1 if args.clock == "cpu" else args.threads
    run = Run(threads, rounds, args.quick, peers, args.clock, args.minutes, tuple(args.model or ()))
    models(run)  # now, and not after the other scenarios, an unknown name is an error

    print(describe_run(threads, rounds), flush=True)
    measurements: list[Measurement] = []
    took: dict[str, float] = {}
    for name in args.scenario or SCENARIOS:
        start = time.perf_counter()
        for measurement in SCENARIOS[name](run):
            print(f"\n{measurement}", flush=True)
            measurements.append(measurement)
        took[name] = time.perf_counter() - start
        write_results(args.out, run, measurements, took)
    print("\nWhere cyllama stands worst:\n" + worst_lines(measurements))


def write_results(folder: Path, run: Run, measurements: list[Measurement], took: dict[str, float]) -> None:
    """Write what was measured so far: results.json, results.md and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": describe_machine(run.n_threads),
        "rounds": run.rounds,
        "quick": run.quick,
        "seconds": took,
        "measurements": [measurement.to_json() for measurement in measurements],
        "worst": [{**s._asdict(), "ratio": s.ratio._asdict()} for s in worst(measurements)],
    }
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    others = [measurement for measurement in measurements if measurement.scenario != "kernels"]
    lines = [markdown(others), "", kernel_table(measurements), "", "Worst:", "", worst_lines(measurements)]
    lines += ["", missing_lines(measurements)]
    (folder / "results.md").write_text("\n".join(lines) + "\n")
    write_plots([measurement for measurement in measurements if measurement.samples], folder)


if __name__ == "__main__":
    main()
