"""Runs cases that come as lines of JSON on stdin; answers every one with a line."""

from __future__ import annotations

import json
import os
import sys
import traceback

from .registry import generators


def main() -> None:
    """Answer until stdin ends: ``null`` for a good end, else what was raised."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what llama.cpp prints
    known = generators()
    for line in sys.stdin:
        case = json.loads(line)
        try:
            known[case["generator"]].run(case)
            answer = None
        except Exception:
            answer = traceback.format_exc()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
