"""Embeddings: many short texts in one call."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cases.scenario import Run, note_failures, take_turns
from kit.measurement import Measurement
from kit.prompts import words
from kit.random_gguf import TINY_CHAT
from peers.contender import OURS, SERVER, Contender, Field
from peers.protocol import Settings

SCRIPT = Path(__file__).resolve().parents[2] / "tests" / "support" / "sentence_model.py"


def measure_embeddings(run: Run) -> Iterator[Measurement]:
    """Measure short texts per second with a sentence-embedding model; with the embedded one where it is missing."""
    n_texts = 4 if run.quick else 500
    rates = Measurement("embeddings", f"{n_texts} texts of 1 to 15 words in one call", "texts/s")
    model = TINY_CHAT
    if not run.quick:
        done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
        if done.returncode != 0:
            rates.failures["all-MiniLM-L6-v2"] = f"replaced by tiny-chat: {done.stderr.strip().splitlines()[-1:]}"
        else:
            model = Path(done.stdout.strip())
    vocabulary = list(words(TINY_CHAT))
    only = (OURS, SERVER, "xllamacpp", "llama-cpp-python")
    names = [name for name in (OURS, *run.peers) if name in only]
    with Field(names, Settings(str(model), run.n_threads, 512, 8, embedding=True)) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            rng = random.Random(repr(round_))
            texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 15))) for _ in range(n_texts)]
            seconds = contender.embed(texts)
            if round_ != "warm-up":
                rates.add(name, n_texts / seconds)

        take_turns(field, ["warm-up", *range(run.rounds)], measure)
        note_failures(field, rates)
    yield rates
