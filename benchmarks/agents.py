#!/usr/bin/env python3
"""Agents of LangGraph in many conversations that take turns: ChatCyllama beside ChatLlamaCpp, as ratios.

The agents are `create_agent` with two tools and a checkpointer in memory. Both models do the same work, as
agent_scenario.py says, and every turn sends them the whole history. ChatLlamaCpp, which must not be called by two
threads at once, takes one call after the other. ChatCyllama is measured with a turn of all conversations at once, as a
program with that many users has them, and also one by one: even if generating took no time, the latter could be no more
than three times as fast over five turns, since what one conversation's next turn sees evaluated again are the two turns
before it, on average.

    make bench
    python benchmarks/agents.py --rounds 3 --conversations 5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent_scenario import Scenario, run_agents
from clock import settle
from models import ANSWER_BIAS, BUILD, FIRST_FILLER, bench_model
from peers import ChatLlamaCpp
from report import Row, Table, describe_run

from cyllama import LLM
from cyllama.engine.hardware import physical_cores
from langchain_cyllama import ChatCyllama

MODEL = ("0.5b", "Q4_0")
N_CTX = 4096
ANSWER = "7"  # a token that stays one where many of them are one text: answers come back as text, in the next history
MIN_RATIO = 3.0
MIN_CACHED = 0.9
ONE_BY_ONE, AT_ONCE, PEER = "ChatCyllama, one by one", "ChatCyllama, all at once", "ChatLlamaCpp, one by one"

Result = dict[str, Any]


def words_of(llm: LLM) -> list[str]:
    """Return the words that are one token after a space."""
    pieces = [llm.detokenize([token]) for token in range(FIRST_FILLER)]
    return [text[1:] for text in pieces if re.fullmatch(r" [a-z]{2,}", text)]


def measure(n_threads: int, rounds: int, *, peers: bool, n_conversations: int) -> Table:
    """Measure all contenders in turn, in every round with other conversations."""
    path = bench_model(*MODEL)
    results: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        model = ChatCyllama(model_path=str(path), n_threads=n_threads, temperature=0.0, n_ctx=N_CTX)
        stack.enter_context(model)
        words = words_of(model.client)
        (token,) = model.client.tokenize(ANSWER, add_bos=False)
        scenario = Scenario(words, token, ANSWER_BIAS, n_conversations)
        peer = stack.enter_context(ChatLlamaCpp(path, n_threads, n_ctx=N_CTX)) if peers else None
        short = dataclasses.replace(scenario, n_conversations=1, n_turns=1)
        for round_ in ["warm-up", *range(rounds)]:
            each = short if round_ == "warm-up" else scenario
            for name, result in _run_all(model, peer, each, f"{round_}"):
                if round_ != "warm-up":
                    results.setdefault(name, []).append(result)
    return _tabulate(scenario, results)


def _run_all(model: ChatCyllama, peer: ChatLlamaCpp | None, scenario: Scenario, run: str) -> list[tuple[str, Result]]:
    results = []
    for name, at_once in ((ONE_BY_ONE, False), (AT_ONCE, True)):
        settle()
        model.reset_sessions()
        results.append((name, run_agents(model, scenario, run, at_once=at_once)))
    if peer is not None:
        settle()
        results.append((PEER, peer.run_agents(dataclasses.asdict(scenario), run)))
    return results


def _tabulate(scenario: Scenario, results: dict[str, list[Result]]) -> Table:
    rows: list[Row] = []
    for name, runs in results.items():
        rows.append(Row(name, statistics.median(run["seconds"] for run in runs), "{:.1f} s"))
        rows.append(Row(f"  {name}: tokens of prompts", sum(runs[0]["prompt"]), "{:d}"))
        if name != PEER:
            rows.append(Row(f"  {name}: cached from turn 2 on", _cached(runs), "{:.3f}", MIN_CACHED))
    for name in (ONE_BY_ONE, AT_ONCE):
        if PEER in results:
            pairs = zip(results[PEER], results[name], strict=True)
            ratio = statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)
            goal = MIN_RATIO if name == AT_ONCE else None
            rows.append(Row(f"times as fast as ChatLlamaCpp, {name.partition(', ')[2]}", ratio, "{:.2f}", goal))
    n_generated = scenario.n_call + scenario.n_answer
    conversations = f"{scenario.n_conversations} conversations, {scenario.n_turns} turns with a tool"
    return Table(f"{conversations}, {n_generated} tokens generated in each, {' '.join(MODEL)}", rows)


def _cached(runs: list[Result]) -> float:
    return statistics.median(sum(run["cached"][1:]) / sum(run["prompt"][1:]) for run in runs)


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="of some minutes each")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--conversations", type=int, default=20)
    parser.add_argument("--skip-peers", action="store_true", help="measure cyllama alone")
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "agents.json")
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds), flush=True)
    table = measure(args.threads, args.rounds, peers=not args.skip_peers, n_conversations=args.conversations)
    print(f"\n{table}")
    args.out.write_text(json.dumps({row.label.strip(): row.value for row in table.rows}, indent=2) + "\n")
    sys.exit(not table.reached)


if __name__ == "__main__":
    main()
