"""Branches: many answers to what was evaluated once. What counts are the tokens that were evaluated, exactly."""

from __future__ import annotations

from functools import partial

from cyllama import LLM
from kit.clock import wall_seconds
from kit.models import bench_model, random_prompt
from kit.report import Row, Table

MODEL = ("5m", "F16")
N_BRANCHES = 8
N_TRUNK = 1000
N_SUFFIX = 8
N_PROMPT = 200
N_TOKENS = 16


def measure_forks(n_threads: int) -> Table:
    """Count the tokens that are evaluated when a session is forked and each of its forks goes on by itself."""
    with LLM(str(bench_model(*MODEL)), n_threads=n_threads, n_parallel=N_BRANCHES, ignore_eos=True) as llm:
        trunk = random_prompt(N_TRUNK, "trunk")
        llm(trunk, session="trunk", max_tokens=1)
        forks = [llm.session("trunk").fork(f"fork {i}") for i in range(N_BRANCHES)]
        before = llm.stats.prompt_tokens_evaluated
        prompts = [[*trunk, *random_prompt(N_SUFFIX, "fork", i)] for i in range(N_BRANCHES)]

        def go_on(index: int) -> None:
            llm(prompts[index], session=forks[index].name, max_tokens=N_TOKENS)

        wall_seconds([partial(go_on, i) for i in range(N_BRANCHES)])
        evaluated = llm.stats.prompt_tokens_evaluated - before
    title = f"{N_BRANCHES} forks of a session of {N_TRUNK} tokens, {N_SUFFIX} more tokens each, {' '.join(MODEL)}"
    return Table(title, [_exactly("prompt tokens evaluated by all forks", evaluated, N_BRANCHES * N_SUFFIX)])


def measure_best_of(n_threads: int) -> Table:
    """Count the tokens that are evaluated for eight answers to one prompt."""
    with LLM(str(bench_model(*MODEL)), n_threads=n_threads, n_parallel=N_BRANCHES, ignore_eos=True) as llm:
        before = llm.stats
        answers = llm(random_prompt(N_PROMPT, "best of"), n=N_BRANCHES, max_tokens=N_TOKENS, temperature=0.8)
        after = llm.stats
    evaluated = after.prompt_tokens_evaluated - before.prompt_tokens_evaluated
    generated = after.tokens_generated - before.tokens_generated
    rows = [
        _exactly("answers", len(answers), N_BRANCHES),
        _exactly("prompt tokens evaluated", evaluated, N_PROMPT),
        _exactly("tokens generated", generated, N_BRANCHES * N_TOKENS),
    ]
    return Table(f"n={N_BRANCHES} for a prompt of {N_PROMPT} tokens, {' '.join(MODEL)}", rows)


def _exactly(label: str, value: int, goal: int) -> Row:
    return Row(label, value, "{:d}", goal, "exactly")
