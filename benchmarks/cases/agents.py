"""Agents of LangGraph, as a scenario: see ../agents.py, which measures them."""

from __future__ import annotations

from collections.abc import Iterator

import agents
from cases.scenario import Run
from kit.measurement import OURS, Measurement

N_CONVERSATIONS = 5


def measure_agents(run: Run) -> Iterator[Measurement]:
    """Measure conversations of agents with tools, whose turns begin at once: the seconds until all have ended."""
    seconds = Measurement("agents", "Agents of LangGraph, 5 conversations of 5 turns at once", "s", "less")
    if run.quick:
        seconds.failures["agents"] = "not measured with --quick: a round takes minutes"
        yield seconds
        return
    peers = "llama-cpp-python" in run.peers
    options = {"peers": peers, "n_conversations": N_CONVERSATIONS}
    results, _ = agents.run_both("at-once", run.n_threads, min(run.rounds, 2), **options)
    for name, runs in results.items():
        for each in runs:
            seconds.add(OURS if name == agents.OURS else name, each["seconds"])
    yield seconds
