#!/usr/bin/env python3
"""What a chat costs beside the native limit: llama-bench of the same llama.cpp, in one run, as ratios.

Every round measures llama-bench, a chat, and chats whose answers have to fit a JSON schema, in turn, and the medians of
the ratios are printed. Time is what the caller waits from the first token to the last, with the messages put together
on the caller's thread.

The model has random weights. Left to itself it never writes JSON: wherever a schema allows few tokens, its first choice
is refused. So an answer that is mostly one long string is what a trained model comes close to, and one of many short
values is the worst that can be.

    make bench
    python benchmarks/chat.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from cases.decode import Case
from cases.texts import RECORD
from cyllama import LLM
from cyllama.engine.hardware import physical_cores
from kit.clock import settle
from kit.models import BUILD
from kit.report import Row, Table, describe_run
from peers.tools import llama_bench_rate

CASE = Case("0.5b", "Q4_0", 128, 0.95)
MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
TEXT = {"type": "object", "properties": {"story": {"type": "string"}}, "required": ["story"]}
RECORDS = {"type": "array", "items": RECORD, "minItems": 100}


class Chat(NamedTuple):
    """A chat to measure, and the ratio to llama-bench that it has to reach."""

    name: str
    options: dict[str, Any]
    goal: float


CHATS = (
    Chat("a chat", {}, CASE.goal),
    Chat("JSON schema, one long string", {"response_format": TEXT}, 0.8),
    Chat("JSON schema, many short values", {"response_format": RECORDS}, 0.8),
)


def chat_rate(llm: LLM, chat: Chat, n_tokens: int) -> float:
    """Stream an answer; return tokens per second from the first token to the last, as its caller sees them."""
    start = time.perf_counter()
    with llm.chat(MESSAGES, stream=True, max_tokens=n_tokens, ignore_eos=True, **chat.options) as stream:
        for _ in stream:
            pass
        seconds = time.perf_counter() - start
    usage, timings = stream.response.usage, stream.response.timings
    assert usage.completion_tokens == n_tokens
    return (n_tokens - 1) / (seconds - timings.queued - timings.prompt)


def measure(n_threads: int, rounds: int) -> Table:
    """Measure all of them in turn, in every round."""
    samples: dict[str, list[float]] = {}
    with LLM(str(CASE.path), n_threads=n_threads, temperature=0) as llm:
        for chat in CHATS:
            chat_rate(llm, chat, n_tokens=16)
        for _ in range(rounds):
            settle()
            samples.setdefault("llama-bench", []).append(llama_bench_rate(CASE.path, CASE.n_tokens, ["-t", n_threads]))
            for chat in CHATS:
                samples.setdefault(chat.name, []).append(chat_rate(llm, chat, CASE.n_tokens))
    return _tabulate(samples)


def _tabulate(samples: dict[str, list[float]]) -> Table:
    native = samples["llama-bench"]
    rows = [Row("llama-bench, no sampling", statistics.median(native), "{:.1f} tokens/s")]
    for chat in CHATS:
        ours = samples[chat.name]
        ratio = statistics.median(rate / limit for rate, limit in zip(ours, native, strict=True))
        rows.append(Row(chat.name, statistics.median(ours), "{:.1f} tokens/s"))
        rows.append(Row(f"  {chat.name}, of llama-bench", ratio, "{:.3f}", chat.goal))
    return Table(f"chats of {CASE.n_tokens} tokens at temperature 0, {CASE.preset} {CASE.file_type}", rows)


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "chat.json")
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds), flush=True)
    table = measure(args.threads, args.rounds)
    print(f"\n{table}")
    args.out.write_text(json.dumps({row.label.strip(): row.value for row in table.rows}, indent=2) + "\n")
    sys.exit(not table.reached)


if __name__ == "__main__":
    main()
