#!/usr/bin/env python3
"""Many callers and many conversations, beside llama-server, llama-batched-bench and llama-cpp-python, as ratios.

    make bench
    python benchmarks/concurrency.py --case callers --case branches --rounds 5
    python benchmarks/concurrency.py --skip-peers

All are measured in turns within one run, so that a machine whose speed drifts drifts for all; the medians of the
rounds' ratios count. The exit status is 1 if a goal was missed. The modules of peers/ say how the peers are run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cases.branches import measure_best_of, measure_forks
from cases.callers import MODELS, measure_callers
from cases.conversations import measure_interleaved, measure_returning
from cases.idle import measure_beside_idle
from cases.serving import measure_serving
from cases.stream_cost import measure_stream_cost
from cyllama.engine.hardware import physical_cores
from kit.models import BUILD
from kit.report import Table, describe_run


class Options(NamedTuple):
    """How to measure."""

    n_threads: int
    rounds: int
    peers: bool


def _callers(options: Options) -> Iterator[Table]:
    for model in MODELS:
        yield measure_callers(model, options.n_threads, options.rounds, peers=options.peers)


def _interleaved(options: Options) -> Iterator[Table]:
    yield measure_interleaved(options.n_threads, options.rounds, peers=options.peers)


def _returning(options: Options) -> Iterator[Table]:
    yield measure_returning(options.n_threads, options.rounds)


def _idle(options: Options) -> Iterator[Table]:
    yield measure_beside_idle(options.n_threads, options.rounds)


def _serving(options: Options) -> Iterator[Table]:
    yield measure_serving(options.n_threads, options.rounds, peers=options.peers)


def _stream_cost(options: Options) -> Iterator[Table]:
    yield measure_stream_cost(options.rounds, peers=options.peers)


def _branches(options: Options) -> Iterator[Table]:
    yield measure_forks(options.n_threads)
    yield measure_best_of(options.n_threads)


CASES: dict[str, Callable[[Options], Iterator[Table]]] = {
    "callers": _callers,
    "interleaved": _interleaved,
    "returning": _returning,
    "idle": _idle,
    "serving": _serving,
    "stream-cost": _stream_cost,
    "branches": _branches,
}


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="measure only this; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--skip-peers", action="store_true", help="measure cyllama alone")
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "concurrency.json")
    args = parser.parse_args()
    options = Options(args.threads, args.rounds, peers=not args.skip_peers)

    print(describe_run(args.threads, args.rounds), flush=True)
    results: dict[str, dict[str, float]] = {}
    reached = True
    for name in args.case or CASES:
        for table in CASES[name](options):
            print(f"\n{table}", flush=True)
            reached &= table.reached
            results[table.title] = {row.label.strip(): row.value for row in table.rows}
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    sys.exit(not reached)


if __name__ == "__main__":
    main()
