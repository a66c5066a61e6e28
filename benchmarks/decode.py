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
import sys
from pathlib import Path

from cases.decode import CASES, Case, measure_decode, measure_threads
from cyllama.engine.hardware import physical_cores
from kit.models import BUILD
from kit.report import describe_run, verdict

MAX_OVERHEAD_MS = 0.5
MIN_OPENMP_RATIO = 5.0  # beside one busy process, for the first case


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
