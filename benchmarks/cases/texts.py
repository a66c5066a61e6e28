"""What depends on the text: answers that fit a schema, and answers that repeat what the prompt says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cases.scenario import Run, note_failures, take_turns
from cyllama import GenerationConfig
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
    "additionalProperties": False,
}
RECORDS = {"type": "array", "items": RECORD, "minItems": 20, "maxItems": 20}
QUESTION = "A list of what was seen on the walk, in JSON:\n"

CODE = '''def read_orders(path):
    """Read the orders of a day, and return those that are paid."""
    orders = []
    with open(path) as file:
        for line in file:
            number, customer, amount, state = line.strip().split(";")
            if state == "paid":
                orders.append((int(number), customer, float(amount)))
    return sorted(orders)
'''
PASSAGE = (
    "The bridge over the river was built in 1874 by the engineer Ada Holm. It is 212 metres long, carries two railway "
    "tracks, and was closed for repairs from 1951 to 1953. Since 1998 it has been a listed monument. About ninety "
    "trains cross it every day, most of them regional ones between the port and the capital."
)
#: Prompts whose answers repeat them, by what they stand for, and one whose answer does not.
REPEATING = {
    "copied code": f"The file:\n```\n{CODE}```\nThe same file again:\n```\n",
    "a retrieved passage": f"Document: {PASSAGE}\n\nThe document says, word for word: ",
    "prose": "Once upon a time there was an old fox who lived beside a river, and one morning",
}


def can_look_up() -> bool:
    """Tell whether this cyllama can draft tokens by looking them up."""
    return "speculation" in GenerationConfig.model_fields


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
    """Measure answers that repeat their prompt, with tokens that are drafted by looking them up in it.

    cyllama takes part twice: as it is then, and as "cyllama, plain".
    """
    if not can_look_up():
        rates = Measurement("lookup", "Answers that repeat the prompt", "tokens/s")
        rates.failures[OURS] = "this version does not draft tokens"
        yield rates
        return
    n_tokens = 16 if run.quick else 128
    rates = Measurement("lookup", f"Answers that repeat the prompt, {n_tokens} tokens", "tokens/s", axis="text")
    only = (OURS, SERVER, "xllamacpp", "llama-cpp-python")
    with run.field(n_ctx=2048, n_parallel=1, model=run.real_model, only=only, drafts=True) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            for label, text in REPEATING.items():
                plain = Ask([], text, n_tokens)
                asks = {name: replace(plain, lookup=True), f"{name}, plain": plain} if name == OURS else {name: plain}
                for who, each in asks.items():
                    (answer,) = contender.ask([each]).answers
                    if round_ != "warm-up":
                        rates.add(who, (answer.n_tokens - 1) / (answer.seconds - answer.first), label)

        take_turns(field, ["warm-up", *range(run.rounds)], measure)
        note_failures(field, rates)
    yield rates
