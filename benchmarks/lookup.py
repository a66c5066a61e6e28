#!/usr/bin/env python3
"""What prompt lookup (``speculation="lookup"``) gains, and what it costs where nothing is repeated.

make models MODELS=smollm2
python benchmarks/lookup.py --rounds 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cases.lookup import SMOLLM2, measure_callers, measure_texts
from cyllama.engine.hardware import physical_cores
from kit.report import describe_run


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SMOLLM2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds), flush=True)
    tables = []
    for measure in (measure_texts, measure_callers):
        tables.append(measure(args.model, args.threads, args.rounds))
        print(f"\n{tables[-1]}", flush=True)
    sys.exit(not all(table.reached for table in tables))


if __name__ == "__main__":
    main()
