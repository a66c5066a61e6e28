"""Random input for what llama.cpp would end the process for, run in child processes: a death is a finding.

    python -m tests.fuzz --seconds 600

Every module of ``generators`` makes cases of one kind. A case is a dict that JSON can hold, so that a finding can
be kept, sent and run again::

    python -m tests.fuzz --case '{"generator": "grammars", "grammar": "root ::= [a-z]+", "tokens": []}'

To add a kind, add a module with three names:

- ``SEEDS``: cases that failed once, or are known to be near an edge;
- ``generate(rng)``: a random case;
- ``run(case)``: does what the case says. What is documented to be raised is a good end, the rest a finding.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from .registry import generators
from .runner import Child, random_cases, seeds


def main() -> int:
    """Run cases as asked; return 1 if one is a finding."""
    names = sorted(generators())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random cases, in child processes.")
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the random cases; another one each time by default")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a case counts as endless")
    parser.add_argument("--only", choices=names, action="append", help="a kind of cases; may be repeated")
    parser.add_argument("--case", help="run this case, as a finding shows it")
    args = parser.parse_args()
    seed = int(time.time()) if args.seed is None else args.seed
    chosen = args.only or names
    n_cases = n_findings = 0
    end = time.monotonic() + args.seconds
    with Child() as child:
        if args.case is not None:
            finding = child.run(json.loads(args.case), args.limit)
            print(finding or "nothing wrong")
            return int(finding is not None)
        for cases in (seeds(chosen), random_cases(chosen, seed)):
            for case in cases:
                if time.monotonic() > end:
                    break
                finding = child.run(case, args.limit)
                n_cases += 1
                if finding is not None:
                    n_findings += 1
                    print(finding, flush=True)
    print(f"{n_cases} cases with seed {seed}: {n_findings} findings")
    return int(n_findings > 0)


if __name__ == "__main__":
    sys.exit(main())
