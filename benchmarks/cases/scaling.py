"""How speed changes with the number of callers, the length of a conversation, and the number of idle conversations."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from cases.scenario import Run, note_failures, take_turns
from kit.measurement import Measurement
from kit.models import ANSWER_TOKEN
from kit.prompts import ask, prompt
from peers.contender import OURS, SERVER, Contender
from peers.protocol import Answer, Ask
from peers.tools import batched_bench_results, llama_bench_rate

N_PROMPT = 60
WITH_SESSIONS = (OURS, SERVER, "xllamacpp", "llama-cpp-python")


def measure_stream(run: Run) -> Iterator[Measurement]:
    """Measure one caller's tokens per second, from the first token to the last."""
    n_tokens = 16 if run.quick else 128
    rates = Measurement("stream", f"One caller, {n_tokens} tokens", "tokens/s")
    with run.field(n_ctx=512, n_parallel=1) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            (answer,) = contender.ask([ask(run.model, 8, n_tokens, "stream", round_, bias=run.bias)]).answers
            if round_ != "warm-up":
                rates.add(name, (answer.n_tokens - 1) / (answer.seconds - answer.first))

        def measure_limit(round_: object) -> None:
            if run.tools and round_ != "warm-up":
                rates.add("llama-bench", llama_bench_rate(run.model, n_tokens, ["-t", run.n_threads], repetitions=1))

        take_turns(field, ["warm-up", *range(run.rounds)], measure, measure_limit)
        note_failures(field, rates)
    yield rates


def measure_callers(run: Run) -> Iterator[Measurement]:
    """Measure callers who come at once: when each has its first token, and the tokens of all of them per second.

    A contender whose callers wait for each other is measured with 8 callers at most. llama-batched-bench decodes as
    many sequences of the same lengths.
    """
    counts, n_tokens = ((1, 2), 8) if run.quick else ((1, 2, 4, 8, 16, 32), 64)
    rates = Measurement("callers", f"{N_PROMPT} + {n_tokens} tokens for each caller", "tokens/s in all", axis="callers")
    firsts = Measurement("callers", "Time to the first token of callers at once", "ms", "less", axis="callers")
    n_ctx = 256
    with run.field(n_ctx=n_ctx, n_parallel=max(counts)) as field:

        def measure(name: str, contender: Contender, round_: object) -> None:
            for n in counts if name in WITH_SESSIONS[:3] else counts[: counts.index(min(8, max(counts))) + 1]:
                asks = [ask(run.model, N_PROMPT, n_tokens, "callers", n, round_, i, bias=run.bias) for i in range(n)]
                outcome = contender.ask(asks)
                if round_ != "warm-up":
                    rates.add(name, outcome.n_tokens / outcome.seconds, n)
                    firsts.add(name, 1000 * median(answer.first for answer in outcome.answers), n)

        def measure_limit(round_: object) -> None:
            if run.tools and round_ != "warm-up":
                for n, seconds in batched_bench_results(run.model, run.n_threads, counts, N_PROMPT, n_tokens).items():
                    rates.add("llama-batched-bench", n * n_tokens / seconds["t"], n)

        take_turns(field, ["warm-up", *range(run.rounds)], measure, measure_limit)
        note_failures(field, rates, firsts)
    yield rates
    yield firsts


def measure_length(run: Run) -> Iterator[Measurement]:
    """Measure the next turn of a conversation, by the number of tokens it already has.

    Every contender may reuse the state of the conversation.
    """
    lengths, n_turn, n_tokens = ((100, 200), 8, 8) if run.quick else ((1000, 4000, 16000), 32, 32)
    rates = Measurement("length", "Decoding after a conversation of", "tokens/s", axis="tokens")
    firsts = Measurement("length", "First token of the next turn after", "ms", "less", axis="tokens")
    histories: dict[str, list[int]] = {}
    rounds = [(length, round_) for length in lengths for round_ in ("grow", *range(run.rounds))]
    with run.field(n_ctx=max(lengths) + 512, n_parallel=1, only=WITH_SESSIONS) as field:

        def measure(name: str, contender: Contender, place: object) -> None:
            assert isinstance(place, tuple)
            length, round_ = place
            history = histories.setdefault(name, [])
            n = n_turn if round_ != "grow" else length - len(history)
            tokens, _ = prompt(run.model, n, "length", place)
            history += tokens
            (answer,) = contender.ask([Ask(history, "", n_tokens, conversation="long", bias=run.bias)]).answers
            history += _generated(answer, run)
            if round_ != "grow":
                rates.add(name, (n_tokens - 1) / (answer.seconds - answer.first), length)
                firsts.add(name, 1000 * answer.first, length)

        def measure_limit(place: object) -> None:
            assert isinstance(place, tuple)
            length, round_ = place
            if run.tools and round_ == 0:  # it evaluates the conversation from scratch: once is enough
                options = ["-t", run.n_threads, "-fa", 1, "-d", length]
                rates.add("llama-bench", llama_bench_rate(run.model, n_tokens, options, repetitions=1), length)

        take_turns(field, rounds, measure, measure_limit)
        note_failures(field, rates, firsts)
    yield rates
    yield firsts


def _generated(answer: Answer, run: Run) -> list[int]:
    """Return the tokens of an answer, as far as they are known; a shorter history continues it too."""
    if answer.tokens is not None:
        return answer.tokens
    return [] if run.bias is None else [ANSWER_TOKEN] * answer.n_tokens


def measure_idle(run: Run) -> Iterator[Measurement]:
    """Measure conversations of which one at a time goes on, by how many there are."""
    counts, n_history, n_tokens = ((1, 2), 50, 8) if run.quick else ((1, 8, 32, 64), 500, 32)
    rates = Measurement("idle", "Decoding in one of many conversations", "tokens/s", axis="conversations")
    firsts = Measurement("idle", "First token of a returning conversation", "ms", "less", axis="conversations")
    histories: dict[tuple[str, int], list[int]] = {}
    with run.field(n_ctx=1024, n_parallel=min(8, max(counts)), only=WITH_SESSIONS[:3]) as field:

        def go_on(contender: Contender, name: str, i: int, *seed: object) -> Answer:
            history = histories.setdefault((name, i), [])
            history += prompt(run.model, n_history if not history else 8, "idle", i, *seed)[0]
            (answer,) = contender.ask([Ask(history, "", n_tokens, conversation=f"idle {i}", bias=run.bias)]).answers
            history += _generated(answer, run)
            return answer

        def measure(name: str, contender: Contender, place: object) -> None:
            assert isinstance(place, tuple)
            n, round_ = place
            for i in range(n):
                if (name, i) not in histories:
                    go_on(contender, name, i)
            answer = go_on(contender, name, round_ * 7 % n, place)
            rates.add(name, (n_tokens - 1) / (answer.seconds - answer.first), n)
            firsts.add(name, 1000 * answer.first, n)

        take_turns(field, [(n, round_) for n in counts for round_ in range(run.rounds)], measure)
        note_failures(field, rates, firsts)
    yield rates
    yield firsts
