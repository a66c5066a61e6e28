"""What depends on the text: answers that fit a schema, and answers that repeat what the prompt says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cases.lookup import MAX_TOKENS, TEXTS
from cases.scenario import Run, note_failures, take_turns
from kit.measurement import Measurement
from peers.contender import OURS, SERVER, Contender
from peers.protocol import Ask
from peers.tools import llama_bench_rate

RECORD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["fox", "river", "bridge"]},
        "amount": {"type": "integer", "minimum": 0, "maximum": 1000},
        "seen": {"type": "boolean"},
    },
    "required": ["name", "kind", "amount", "seen"],
}
CLOSED = RECORD | {"additionalProperties": False}
RECORDS = {"type": "array", "items": CLOSED, "minItems": 20, "maxItems": 20}
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"  # SmolLM2's template without its system message
QUESTION = "A list of what was seen on the walk, in JSON:\n"


def measure_structured(run: Run) -> Iterator[Measurement]:
    """Measure answers that have to fit a JSON schema of many short values, on a trained model."""
    n_tokens = 32 if run.quick else 256
    rates = Measurement("structured", "JSON that fits a schema, many short values", "tokens/s")
    only = (OURS, SERVER, "xllamacpp", "llama-cpp-python")
    with run.field(n_ctx=1024, n_parallel=1, model=run.real_model, only=only) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            (answer,) = contender.ask([Ask([], QUESTION, n_tokens, schema=RECORDS)]).answers
            if round_ != "warm-up":
                rates.add(name, (answer.n_tokens - 1) / (answer.seconds - answer.first))

        def measure_limit(round_: object) -> None:
            if run.tools and round_ != "warm-up":
                rate = llama_bench_rate(run.real_model, n_tokens, ["-t", run.n_threads], repetitions=1)
                rates.add("llama-bench", rate)

        take_turns(field, ["warm-up", *range(run.rounds)], measure, measure_limit)
        note_failures(field, rates)
    yield rates


def measure_lookup(run: Run) -> Iterator[Measurement]:
    """Measure answers that repeat their prompt, with tokens that are drafted by looking them up in it, and prose.

    cyllama takes part twice: with drafts, and as "cyllama, plain". llama-server drafts as well.
    """
    n_tokens = 16 if run.quick else MAX_TOKENS
    rates = Measurement("lookup", "Answers that repeat the prompt, and prose", "tokens/s", axis="text")
    only = (OURS, SERVER, "xllamacpp", "llama-cpp-python")
    with run.field(n_ctx=2048, n_parallel=1, model=run.real_model, only=only, drafts=True) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            for text in TEXTS:
                plain = Ask([], CHAT.format(text.question), n_tokens, schema=text.response_format, ends=True)
                asks = {name: replace(plain, lookup=True), f"{name}, plain": plain} if name == OURS else {name: plain}
                for who, each in asks.items():
                    (answer,) = contender.ask([each]).answers
                    if round_ != "warm-up":
                        rates.add(who, (answer.n_tokens - 1) / (answer.seconds - answer.first), text.name)

        take_turns(field, ["warm-up", *range(run.rounds)], measure)
        note_failures(field, rates)
    yield rates
