"""Many callers at once: how many tokens per second they get together."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cyllama import LLM
from kit.clock import settle, wall_seconds
from kit.models import ANSWER_BIAS, ANSWER_TOKEN, bench_model, random_prompt
from kit.report import Row, Table
from peers.server import LlamaServer
from peers.tools import batched_bench_seconds
from peers.workers import LlamaCppPython

N_CALLERS = 8
N_PROMPT = 60
N_TOKENS = 64
SLOT_CELLS = 256

Contender = Callable[[list[list[int]]], float]


class Model(NamedTuple):
    """A model to measure with, and the ratios to each peer that it has to reach."""

    preset: str
    file_type: str
    min_to_server: float | None = None
    min_to_llama_cpp_python: float | None = None
    min_to_batched_bench: float | None = None


MODELS = (Model("0.5b", "Q4_0", 0.95, 3.0, 0.85), Model("5m", "F16"))


def measure_callers(model: Model, n_threads: int, rounds: int, *, peers: bool) -> Table:
    """Measure the tokens per second of all callers together, from the first submit to the last finish.

    In every round each contender gets the same prompts, in turn. llama-batched-bench decodes as many sequences of the
    same lengths without sampling.
    """
    path = bench_model(model.preset, model.file_type)
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contenders = _contenders(stack, path, n_threads, peers=peers)
        for round_ in ["warm-up", *range(rounds)]:
            prompts = [random_prompt(N_PROMPT, "callers", round_, caller) for caller in range(N_CALLERS)]
            for name, complete_all in contenders.items():
                settle()
                rate = N_CALLERS * N_TOKENS / complete_all(prompts)
                if round_ != "warm-up":
                    samples.setdefault(name, []).append(rate)
    return _tabulate(model, samples)


def _contenders(stack: ExitStack, path: Path, n_threads: int, *, peers: bool) -> dict[str, Contender]:
    """Return by name what answers all prompts at once and tells the seconds; the stack ends them."""
    llm = LLM(str(path), n_threads=n_threads, n_parallel=N_CALLERS, temperature=0, ignore_eos=True)
    contenders: dict[str, Contender] = {"cyllama": partial(complete_all, stack.enter_context(llm))}
    if peers:
        server = LlamaServer(path, n_threads, n_slots=N_CALLERS, slot_cells=SLOT_CELLS, cache_ram_mib=0)
        python = LlamaCppPython(path, n_threads, n_ctx=SLOT_CELLS)
        shape = {"n_parallel": N_CALLERS, "n_prompt": N_PROMPT, "n_tokens": N_TOKENS}
        contenders["llama-server"] = partial(stack.enter_context(server).complete_all, n_tokens=N_TOKENS)
        contenders["llama-batched-bench"] = lambda _: batched_bench_seconds(path, n_threads, **shape)
        contenders["llama-cpp-python"] = partial(stack.enter_context(python).complete_all, n_tokens=N_TOKENS)
    return contenders


def complete_all(llm: LLM, prompts: list[list[int]]) -> float:
    """Answer all prompts at once; return the seconds from the first submit to the last finish."""

    def complete(prompt: list[int]) -> None:
        response = llm(prompt, max_tokens=N_TOKENS, logit_bias={ANSWER_TOKEN: ANSWER_BIAS})
        assert response.usage.completion_tokens == N_TOKENS
        assert response.usage.cached_tokens == 0

    return wall_seconds([partial(complete, prompt) for prompt in prompts])


def _tabulate(model: Model, samples: dict[str, list[float]]) -> Table:
    goals = {
        "llama-server": model.min_to_server,
        "llama-batched-bench": model.min_to_batched_bench,
        "llama-cpp-python": model.min_to_llama_cpp_python,
    }
    ours = samples["cyllama"]
    rows = [Row("cyllama", statistics.median(ours), "{:.1f} tokens/s")]
    for name, theirs in samples.items():
        if name != "cyllama":
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            rows.append(Row(name, statistics.median(theirs), "{:.1f} tokens/s"))
            rows.append(Row(f"  cyllama / {name}", ratio, "{:.3f}", goals[name]))
    if "llama-cpp-python" in samples:
        pairs = zip(samples["llama-batched-bench"], samples["llama-cpp-python"], strict=True)
        limit = statistics.median(native / serial for native, serial in pairs)
        rows.append(Row("  llama-batched-bench / llama-cpp-python: the limit", limit, "{:.3f}"))
    return Table(f"{N_CALLERS} callers x {N_TOKENS} tokens, {model.preset} {model.file_type}", rows)
