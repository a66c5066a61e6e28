"""Agents of LangGraph, as a scenario: see ../agents.py, which measures them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import agents
from cases.scenario import Run
from kit.measurement import OURS, Measurement
from peers.contender import reason_of

N_CONVERSATIONS = 5
PEER = "llama-cpp-python"


def measure_agents(run: Run) -> Iterator[Measurement]:
    """Measure conversations of agents with tools, whose turns begin at once: the seconds until all have ended."""
    seconds = Measurement("agents", "Agents of LangGraph, 5 conversations of 5 turns at once", "s", "less")
    if run.quick:
        seconds.failures["agents"] = "not measured with --quick: a round takes minutes"
        yield seconds
        return
    measure = partial(agents.run_both, "at-once", run.n_threads, min(run.rounds, 2), n_conversations=N_CONVERSATIONS)
    try:
        results, _ = measure(peers=PEER in run.peers)
    except Exception as error:  # the peer may fail in any way; if cyllama did, it does so again
        seconds.failures[PEER] = reason_of(error)
        results, _ = measure(peers=False)
    for name, runs in results.items():
        for each in runs:
            seconds.add(OURS if name == agents.OURS else name, each["seconds"])
    yield seconds
