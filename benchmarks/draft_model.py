#!/usr/bin/env python3
"""What a draft model (``draft_model=``) gains where it is right, and what it costs where it is wrong.

make models MODELS=smollm2
python benchmarks/draft_model.py --rounds 3 --threads 1 --clock cpu
"""

from __future__ import annotations

import argparse
import sys

from cases.draft_model import CLOCKS, PAIRS, measure_pair
from cyllama.engine.hardware import physical_cores
from kit.report import describe_run


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="CPU time means most with one thread")
    parser.add_argument("--pair", choices=[pair.name for pair in PAIRS], help="measure only this")
    parser.add_argument("--callers", type=int, default=8, help="so many at once besides one; 0 for none")
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds), flush=True)
    tables = []
    for pair in PAIRS:
        if args.pair in (None, pair.name):
            tables.append(measure_pair(pair, args.threads, args.rounds, args.clock, args.callers))
            print(f"\n{tables[-1]}", flush=True)
    sys.exit(not all(table.reached for table in tables))


if __name__ == "__main__":
    main()
