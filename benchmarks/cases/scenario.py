"""What all scenarios share: sizes, and rounds in which every contender is measured in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kit.clock import settle
from kit.measurement import Measurement
from kit.models import ANSWER_TOKEN, bench_model
from kit.random_gguf import TINY_CHAT
from peers.contender import EVERYONE, OURS, Contender, Field
from peers.protocol import Settings
from peers.tools import TOOLS

REAL = Path(__file__).resolve().parents[2] / "build" / "models"


@dataclass(frozen=True)
class Run:
    """How scenarios are run.

    Attributes:
        n_threads: Threads that decode.
        rounds: How often each contender is measured, in turn.
        quick: Whether to show only that everything runs: the smallest model, and small numbers.
        peers: Names of the other contenders.
        clock: What is measured of kernels: wall time, or CPU time on one thread.
        minutes: For the models of the scenario ``kernels``: rounds end where a model's share of it is used up.
        models: Those of that scenario; all of them if it is empty.
    """

    n_threads: int
    rounds: int
    quick: bool = False
    peers: Sequence[str] = EVERYONE[1:]
    clock: Literal["wall", "cpu"] = "wall"
    minutes: float = float("inf")
    models: Sequence[str] = ()

    @property
    def model(self) -> Path:
        """The model of the scenarios where any text will do."""
        return TINY_CHAT if self.quick else bench_model("0.5b", "Q4_0")

    @property
    def bias(self) -> int | None:
        """The token that answers consist of, where the model's own would be halves of characters."""
        return None if self.quick else ANSWER_TOKEN

    @property
    def real_model(self) -> Path:
        """A trained model, for scenarios where the text counts; the embedded one without it."""
        path = REAL / "smollm2.gguf"
        return path if path.exists() and not self.quick else TINY_CHAT

    @property
    def suffix(self) -> str:
        """What titles say of the processor that is computed for, and of the clock."""
        variant = os.environ.get("CYLLAMA_CPU")
        return (f", as {variant}" if variant else "") + (", one thread" if self.clock == "cpu" else "")

    @property
    def tools(self) -> bool:
        """Whether llama.cpp's tools are there."""
        return bool(self.peers) and (TOOLS / "llama-bench").exists()

    def field(
        self,
        *,
        n_ctx: int,
        n_parallel: int,
        model: Path | None = None,
        only: Sequence[str] = EVERYONE,
        drafts: bool = False,
    ) -> Field:
        """Start the contenders that take part.

        Args:
            n_ctx: Most tokens of a conversation.
            n_parallel: Conversations that are answered at once.
            model: The GGUF file.
            only: Contenders that can do what the scenario asks for.
            drafts: Whether those that draft tokens for all requests alike do so.
        """
        names = [name for name in (OURS, *self.peers) if name in only]
        return Field(names, Settings(str(model or self.model), self.n_threads, n_ctx, n_parallel, drafts=drafts))


def take_turns(
    field: Field,
    rounds: Sequence[object],
    measure: Callable[[str, Contender, object], None],
    measure_limit: Callable[[object], None] = lambda _: None,
) -> None:
    """Measure every contender in every round, each round beginning with another one.

    Args:
        field: The contenders; one that fails takes no further part.
        rounds: Names of the rounds.
        measure: Measures a contender in a round.
        measure_limit: Measures llama.cpp's tools in a round.
    """
    for number, round_ in enumerate(rounds):
        names = list(field.running)
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if len(names) > 1:
                settle()
            try:
                measure(name, field.running[name], round_)
            except Exception as error:  # a peer may fail in any way: the others go on
                field.fail(name, error)
        if "llama.cpp's tools" not in field.failures:
            try:
                measure_limit(round_)
            except Exception as error:  # likewise
                field.fail("llama.cpp's tools", error)


def note_failures(field: Field, *measurements: Measurement) -> None:
    """Note in measurements which contenders are missing, and why."""
    for measurement in measurements:
        measurement.failures.update(field.failures)
