"""Run programs one after the other, and report what each printed and raised. See pages.py, which starts this."""

from __future__ import annotations

import builtins
import gc
import io
import json
import sys
import traceback
import types
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

_FILE = "<program>"


def run(program: str) -> dict[str, Any]:
    """Run one program as if it were the only one: its names are those of a new ``__main__``."""
    printed: dict[int, str] = defaultdict(str)

    def recording_print(*values: object, **options: Any) -> None:
        text = io.StringIO()
        builtins.print(*values, **options | {"file": text, "flush": False})
        frame = sys._getframe(1)
        if frame.f_code.co_filename == _FILE:
            printed[frame.f_lineno] += text.getvalue()

    module = types.ModuleType("__main__")
    vars(module)["print"] = recording_print
    sys.modules["__main__"] = module
    error = trace = ""
    try:
        with warnings.catch_warnings():
            # Python says so of a fork beside threads; a page shows what cyllama says of it.
            warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)
            exec(compile(program, _FILE, "exec"), vars(module))
    except Exception as failure:
        error, trace = f"{type(failure).__name__}: {failure}", traceback.format_exc()
    vars(module).clear()  # what nothing else uses is given back
    gc.collect()
    return {"printed": printed, "error": error, "trace": trace}


def main(report: str) -> None:
    """Run the programs of standard input, a JSON list, and write a JSON list of what they did."""
    outcomes = [run(program) for program in json.load(sys.stdin)]
    Path(report).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
