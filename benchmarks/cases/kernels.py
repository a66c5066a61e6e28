"""What the kernels and the steps of the engine are worth, on the types of models that people have.

Each figure stands beside llama.cpp's own tool for it, which samples nothing, and beside its bound: a token reads every
weight once, and memory is read no faster than by a loop that does nothing else. A step of n callers reads them once for
all n; the products are its bound before that, as they are of prompts.

With ``clock="cpu"`` everything runs on one thread, and CPU time counts: other work on the machine disturbs that little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cases.scenario import REAL, Run
from kit.measurement import BOUND, OURS, Measurement, format_value
from kit.models import ANSWER_TOKEN, bench_model
from kit.prompts import ask
from kit.random_gguf import TINY_CHAT
from kit.read_loop import ReadLoop, weight_bytes
from peers.contender import SERVER, Field
from peers.protocol import Ask, Outcome, Settings
from peers.tools import Tool, batched_bench, bench

#: Seconds after a GiB was loaded in which cyllama puts it into large pages (llama.cpp/huge_pages.cpp).
ENLARGING = 12
#: How often a round measures one caller and llama-bench in turn: both depend on the speed of memory, which changes with
#: what the machine's neighbours do.
DECODE_TURNS = 3
FILE_TYPES = ("Q4_0", "Q4_K_M", "Q8_0", "F16")
N_CALLERS = (8, 32)


class Sizes(NamedTuple):
    """Tokens of each measurement."""

    decode: int
    prefill: int
    prompt: int
    answer: int


def sizes_of(path: Path) -> Sizes:
    """Return the sizes for a model: callers have the same ones of each, one caller fewer tokens of a larger one."""
    mib = path.stat().st_size / 2**20
    if mib < 16:
        return Sizes(8, 32, 8, 4)
    return Sizes(64, 256, 16, 32) if mib < 450 else Sizes(32, 128, 16, 32)


def models(run: Run) -> dict[str, Callable[[], Path]]:
    """Return the models by name, written when they are needed.

    Raises:
        SystemExit: One of the names that were asked for is of no model.
    """
    if run.quick:
        return {"tiny-chat": lambda: TINY_CHAT}
    found: dict[str, Callable[[], Path]] = {
        f"{preset} {kind}": lambda preset=preset, kind=kind: bench_model(preset, kind)
        for preset in ("0.5b", "1b")
        for kind in FILE_TYPES
    }
    for name, path in {"SmolLM2 Q4_1": "smollm2", "Gemma 3 270M Q4_K_M": "gemma3-270m"}.items():
        if (REAL / f"{path}.gguf").exists():
            found[name] = lambda path=path: REAL / f"{path}.gguf"
    unknown = next((name for name in run.models if name not in found), None)
    if unknown is not None:
        raise SystemExit(f"--model: there is no model {unknown!r}: there are {', '.join(found)}")
    return {name: path for name, path in found.items() if not run.models or name in run.models}


def measure_kernels(run: Run) -> Iterator[Measurement]:
    """Measure decode, prefill, 8 and 32 callers on every model."""
    unit = "tokens/s" if run.clock == "wall" else "tokens per CPU second"
    decode = Measurement("kernels", f"Decode{run.suffix}", unit, axis="model")
    prefill = Measurement("kernels", f"Prefill{run.suffix}", unit, axis="model")
    callers = {n: Measurement("kernels", f"{n} callers{run.suffix}", f"{unit} in all", axis="model") for n in N_CALLERS}
    everything = (decode, prefill, *callers.values())
    chosen = models(run)
    budget = 60 * run.minutes / len(chosen)
    loop = ReadLoop(run.n_threads, 2**24 if run.quick else 2**29)
    for name, path_of in chosen.items():
        path = path_of()
        print(f"  {name}", flush=True)
        with _field(run, path) as field:
            cell = Cell(run, path, name, field, loop)
            start = time.perf_counter()
            for round_ in ["warm-up", *range(run.rounds)]:
                cell.measure_round(round_, decode, prefill, callers)
                if round_ != "warm-up" and time.perf_counter() - start > budget:
                    break
            for measurement in everything:
                measurement.failures.update(field.failures)
    loop.close()
    yield from everything


def _field(run: Run, path: Path) -> Field:
    settings = Settings(str(path), run.n_threads, 512, max(N_CALLERS))
    return Field([name for name in (OURS, *run.peers) if name in (OURS, SERVER)], settings)


class Cell:
    """One model: its rounds."""

    def __init__(self, run: Run, path: Path, name: str, field: Field, loop: ReadLoop) -> None:
        self._run, self._path, self._name, self._field, self._loop = run, path, name, field, loop
        self._sizes = sizes_of(path)
        self._n_bytes = weight_bytes(path)
        self._tool = Tool(path, run.n_threads, run.clock) if run.tools else None

    def measure_round(
        self, round_: object, decode: Measurement, prefill: Measurement, callers: dict[int, Measurement]
    ) -> None:
        """Measure one caller a few times and everything else once, cyllama and the tools in turn.

        A warm-up is not noted, and waits for large pages.
        """
        sizes = self._sizes
        if round_ == "warm-up":
            self._ask(OURS, [self._request(8, 4, round_)])
            time.sleep(0 if self._run.quick else 2 + ENLARGING * self._path.stat().st_size / 2**30)
            return
        for turn in range(DECODE_TURNS):
            decode.add(BOUND, self._bound(), self._name)
            decode.add(OURS, self._decode_rate(round_, turn), self._name)
            self._limit("llama-bench", decode, partial(bench, n_tokens=sizes.decode))
        outcome = self._ask(OURS, [self._request(sizes.prefill, 1, round_)])
        prefill.add(OURS, sizes.prefill / self._seconds(outcome), self._name)
        self._limit("llama-bench", prefill, partial(bench, n_prompt=sizes.prefill))
        for n, measurement in callers.items():
            measurement.add(BOUND, n * self._bound(), self._name)
            for who in list(self._field.running):
                asks = [self._request(sizes.prompt, sizes.answer, round_, n, i) for i in range(n)]
                try:
                    outcome = self._ask(who, asks)
                except Exception as error:  # the server may fail in any way: the others go on
                    self._field.fail(who, error)
                    continue
                measurement.add(who, outcome.n_tokens / self._seconds(outcome), self._name)
            rate = partial(batched_bench, n_parallel=n, n_prompt=sizes.prompt, n_tokens=sizes.answer)
            self._limit("llama-batched-bench", measurement, rate)

    def _limit(self, name: str, measurement: Measurement, rate: Callable[[Tool], float]) -> None:
        if self._tool is not None and name not in self._field.failures:
            try:
                measurement.add(name, rate(self._tool), self._name)
            except Exception as error:  # likewise
                self._field.fail(name, error)

    def _bound(self) -> float:
        """Return how often a second all weights can be read."""
        return self._loop.bytes_per_second() / self._n_bytes

    def _decode_rate(self, *seed: object) -> float:
        outcome = self._ask(OURS, [self._request(1, self._sizes.decode, *seed)])
        if self._run.clock == "cpu":
            return outcome.n_tokens / outcome.cpu
        (answer,) = outcome.answers
        return (answer.n_tokens - 1) / (answer.seconds - answer.first)

    def _ask(self, name: str, asks: list[Ask]) -> Outcome:
        return self._field.running[name].ask(asks)

    def _seconds(self, outcome: Outcome) -> float:
        return outcome.cpu if self._run.clock == "cpu" else outcome.seconds

    def _request(self, n_prompt: int, n_tokens: int, *seed: object) -> Ask:
        bias = None if self._path.parent == REAL or self._path == TINY_CHAT else ANSWER_TOKEN
        return ask(self._path, n_prompt, n_tokens, "kernels", *seed, bias=bias)


def kernel_table(measurements: list[Measurement]) -> str:
    """Return the table of all models in Markdown: cyllama's rate, and its ratios to the tools and to the bound."""
    found = {m.title.split(",")[0]: m for m in measurements if m.scenario == "kernels"}
    if not found:
        return ""
    head = "| | decode | of llama-bench | of the bound | prefill, of llama-bench |"
    head += "".join(f" {n} callers | of llama-server | of llama-batched-bench |" for n in N_CALLERS)
    rows = [head, "|---" * (5 + 3 * len(N_CALLERS)) + "|"]
    decode = found["Decode"]
    for x in decode.places():
        cells = [x, format_value(decode.median(OURS, x) or 0)]
        cells += [
            _ratio(decode, "llama-bench", x),
            _ratio(decode, BOUND, x),
            _ratio(found["Prefill"], "llama-bench", x),
        ]
        for n in N_CALLERS:
            callers = found[f"{n} callers"]
            cells.append(format_value(callers.median(OURS, x) or 0))
            cells += [_ratio(callers, SERVER, x), _ratio(callers, "llama-batched-bench", x)]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _ratio(measurement: Measurement, other: str, x: str) -> str:
    ratio = measurement.ratio(other, x)
    return "" if ratio is None else str(ratio)
