"""llama.cpp's own measuring tools, of the same llama.cpp, compiled with the same options as cyllama."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kit.models import BUILD

TOOLS = Path(os.environ.get("CYLLAMA_TOOLS", BUILD / "tools" / "bin"))


def llama_bench_rate(model: Path, n_tokens: int, options: Sequence[object] = ()) -> float:
    """Return llama-bench's tokens per second, without sampling: the median of three.

    Args:
        model: The GGUF file.
        n_tokens: Tokens that are generated.
        options: Further arguments of llama-bench.
    """
    command = [TOOLS / "llama-bench", "-m", model, "-p", "0", "-n", n_tokens, *options, "-r", "3", "-o", "json"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return statistics.median(json.loads(result.stdout)[0]["samples_ts"])


def batched_bench_seconds(model: Path, n_threads: int, *, n_parallel: int, n_prompt: int, n_tokens: int) -> float:
    """Return the seconds of llama-batched-bench for that many prompts and answers, without sampling."""
    options = {"-m": model, "-t": n_threads, "-c": n_parallel * (n_prompt + n_tokens), "-npp": n_prompt}
    options |= {"-ntg": n_tokens, "-npl": n_parallel, "--output-format": "jsonl"}
    command = [str(part) for option in options.items() for part in option]
    command = [str(TOOLS / "llama-batched-bench"), *command]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\{.*\}", result.stdout)
    if found is None:
        raise RuntimeError(f"llama-batched-bench printed no result:\n{result.stdout}{result.stderr}")
    return json.loads(found[0])["t"]
