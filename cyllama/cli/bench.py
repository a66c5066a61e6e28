"""`cyllama bench`: how fast a model reads and writes on this machine."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typing_extensions import Unpack

from ..config import MAX_PARALLEL
from ..errors import ConfigError
from ..llm import LLM
from ..response import Timings
from .options import ModelFlags, ModelOption, VerboseOption, with_flags
from .terminal import load

_WIDE = 1000  # columns: no figure is cut
_SEED = 1


@dataclass
class Measured:
    """What was measured.

    Attributes:
        test: "pp512" for prompts of 512 tokens, "tg128" for 128 generated tokens; "x 8" for 8 callers at once.
        n_prompt: Tokens of each prompt.
        n_gen: Tokens that each caller generates.
        n_parallel: How many callers there are at once.
        mean: Tokens per second of all callers together, the mean of the repetitions.
        sd: Its standard deviation.
        samples: Each repetition.
    """

    test: str
    n_prompt: int
    n_gen: int
    n_parallel: int
    mean: float
    sd: float
    samples: list[float]


@with_flags
def bench(
    model: ModelOption = None,
    n_prompt: Annotated[
        list[int], typer.Option("-p", "--n-prompt", min=0, help="Tokens of a prompt; can be repeated, 0 leaves it out.")
    ] = [512],  # noqa: B006 - typer shows it, and nothing changes it
    n_gen: Annotated[
        list[int], typer.Option("-n", "--n-gen", min=0, help="Tokens to generate; can be repeated, 0 leaves it out.")
    ] = [128],  # noqa: B006 - typer shows it, and nothing changes it
    n_parallel: Annotated[
        list[int], typer.Option("--n-parallel", min=1, max=MAX_PARALLEL, help="Callers at once; can be repeated.")
    ] = [1],  # noqa: B006 - typer shows it, and nothing changes it
    repetitions: Annotated[int, typer.Option("-r", "--repetitions", min=1, help="How often each is measured.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one document, with every repetition.")] = False,
    verbose: VerboseOption = False,
    **flags: Unpack[ModelFlags],
) -> None:
    """Measure how many tokens per second a model reads and writes, as llama-bench does."""
    if not any((*n_prompt, *n_gen)):
        raise ConfigError("there is nothing to measure: -p and -n are both 0; give one of them")
    given: dict[str, Any] = dict(flags)
    with load(model, verbose=verbose, n_parallel=max(n_parallel), **given) as llm:
        measured = _measure_all(_Caller(llm), n_prompt, n_gen, n_parallel, repetitions)
        threads = llm.model_config.n_threads
        about = {
            "model": llm.model_name,
            "path": llm.model_path,
            "size": llm.model.size,
            "parameters": llm.model.n_params,
            "kind": llm.model.desc,
            "threads": threads,
        }
    if as_json:
        print(json.dumps(about | {"results": [asdict(each) for each in measured]}, ensure_ascii=False, indent=2))
    else:
        _show(about, measured)


class _Caller:
    """Generates with prompts that were never used before: none of them is in a KV cache.

    Args:
        llm: The model.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._random = random.Random(_SEED)
        control = {token for token, _ in llm.model.vocab.control_tokens()}
        self._tokens = [token for token in range(llm.model.vocab.n_tokens) if token not in control]

    def prefill(self, n_prompt: int, n_parallel: int) -> float:
        """Return how many tokens of prompts are evaluated per second."""
        timings = self._generate(n_prompt, 1, n_parallel)
        return n_prompt * n_parallel / max(each.queued + each.prompt for each in timings)

    def decode(self, n_gen: int, n_parallel: int) -> float:
        """Return how many tokens are generated per second, after a first one that the prompt gives."""
        timings = self._generate(1, n_gen + 1, n_parallel)
        return n_gen * n_parallel / max(each.generation for each in timings)

    def _generate(self, n_prompt: int, max_tokens: int, n_parallel: int) -> list[Timings]:
        prompts = [self._random.choices(self._tokens, k=n_prompt) for _ in range(n_parallel)]
        how = {"max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
        streams = [self._llm(prompt, how, stream=True) for prompt in prompts]
        return [stream.read().timings for stream in streams]


def _measure_all(
    caller: _Caller, n_prompt: Sequence[int], n_gen: Sequence[int], n_parallel: Sequence[int], repetitions: int
) -> list[Measured]:
    """Return what was measured of every size with every number of callers."""
    found = []
    for n in n_parallel:
        suffix = f" x {n}" if n > 1 else ""
        for tokens in filter(None, n_prompt):
            samples = _repeat(caller.prefill, tokens, n, repetitions)
            found.append(_measured(f"pp{tokens}{suffix}", samples, n_prompt=tokens, n_parallel=n))
        for tokens in filter(None, n_gen):
            samples = _repeat(caller.decode, tokens, n, repetitions)
            found.append(_measured(f"tg{tokens}{suffix}", samples, n_gen=tokens, n_parallel=n))
    return found


def _repeat(measure: Callable[[int, int], float], tokens: int, n_parallel: int, repetitions: int) -> list[float]:
    measure(tokens, n_parallel)  # creates the context, and warms up
    return [measure(tokens, n_parallel) for _ in range(repetitions)]


def _measured(test: str, samples: list[float], *, n_parallel: int, n_prompt: int = 0, n_gen: int = 0) -> Measured:
    sd = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Measured(test, n_prompt, n_gen, n_parallel, statistics.fmean(samples), sd, samples)


def _show(about: dict[str, Any], measured: Sequence[Measured]) -> None:
    console = Console(highlight=False, width=_WIDE)
    console.print(
        f"{about['model']}: {about['kind']}, {about['size'] / 2**20:,.1f} MiB, {about['parameters']:,} parameters, "
        f"{about['threads'] or 'all'} threads",
        markup=False,
    )
    table = Table("test", "tokens/s", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for each in measured:
        table.add_row(each.test, f"{each.mean:,.1f} ± {each.sd:,.1f}")
    console.print(table)
