#!/usr/bin/env python3
"""Agents of LangGraph in many conversations that take turns: ChatCyllama beside ChatLlamaCpp, as ratios.

The agents are `create_agent` with two tools and a checkpointer in memory. Both models do the same work, as
cases/agent_scenario.py says: every turn sends them the whole history. By default a turn of all conversations begins at
once, each on a thread of its own, as in a program with that many users. ChatLlamaCpp, which two threads must not call
at once, is behind a lock there. With `--mode one-by-one`, turns follow each other, and so do the two calls of a turn.
A round takes some minutes; beside other work on the machine, ChatLlamaCpp takes many times as long.

    make bench
    python benchmarks/agents.py --mode one-by-one --conversations 5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cases.agent_scenario import Scenario, run_agents
from cyllama import LLM
from cyllama.engine.hardware import physical_cores
from kit.clock import settle
from kit.models import ANSWER_BIAS, BUILD, FIRST_FILLER, bench_model
from kit.report import Row, Table, describe_run
from langchain_cyllama import ChatCyllama
from peers.workers import ChatLlamaCpp

MODEL = ("0.5b", "Q4_0")
N_CTX = 4096
ANSWER = "7"  # a token that stays one where many of them are one text: answers come back as text, in the next history
MIN_RATIO = 3.0
MIN_CACHED = 0.9
MODES = {"at-once": True, "one-by-one": False}
OURS, PEER = "ChatCyllama", "ChatLlamaCpp"

Result = dict[str, Any]
Contender = Callable[[Scenario, str], Result]


def words_of(llm: LLM) -> list[str]:
    """Return the words that are one token after a space."""
    pieces = [llm.detokenize([token]) for token in range(FIRST_FILLER)]
    return [text[1:] for text in pieces if re.fullmatch(r" [a-z]{2,}", text)]


def measure(mode: str, n_threads: int, rounds: int, *, peers: bool, n_conversations: int) -> Table:
    """Measure both in turn."""
    results, scenario = run_both(mode, n_threads, rounds, peers=peers, n_conversations=n_conversations)
    return _tabulate(mode, scenario, results)


def run_both(
    mode: str, n_threads: int, rounds: int, *, peers: bool, n_conversations: int
) -> tuple[dict[str, list[Result]], Scenario]:
    """Return what each took in every round, each with other conversations, and the scenario."""
    path = bench_model(*MODEL)
    results: dict[str, list[Result]] = {}
    with ExitStack() as stack:
        model = ChatCyllama(model_path=str(path), n_threads=n_threads, temperature=0.0, n_ctx=N_CTX)
        stack.enter_context(model)
        (token,) = model.client.tokenize(ANSWER, add_bos=False)
        scenario = Scenario(words_of(model.client), token, ANSWER_BIAS, n_conversations)
        contenders: dict[str, Contender] = {OURS: partial(_run_ours, model, at_once=MODES[mode])}
        if peers:
            peer = stack.enter_context(ChatLlamaCpp(path, n_threads, n_ctx=N_CTX))
            contenders[PEER] = partial(_run_peer, peer, at_once=MODES[mode])
        for run in contenders.values():
            run(dataclasses.replace(scenario, n_conversations=1, n_turns=1), "warm-up")
        for round_ in range(rounds):
            for name, run in contenders.items():
                settle()
                results.setdefault(name, []).append(run(scenario, f"{round_}"))
    return results, scenario


def _run_ours(model: ChatCyllama, scenario: Scenario, run: str, *, at_once: bool) -> Result:
    model.reset_sessions()
    return run_agents(model, scenario, run, at_once=at_once)


def _run_peer(peer: ChatLlamaCpp, scenario: Scenario, run: str, *, at_once: bool) -> Result:
    return peer.run_agents(dataclasses.asdict(scenario), run, at_once=at_once)


def _tabulate(mode: str, scenario: Scenario, results: dict[str, list[Result]]) -> Table:
    rows: list[Row] = []
    for name, runs in results.items():
        rows.append(Row(name, statistics.median(run["seconds"] for run in runs), "{:.1f} s"))
        rows.append(Row(f"  {name}: tokens of prompts", sum(runs[0]["prompt"]), "{:d}"))
    cached = statistics.median(sum(run["cached"][1:]) / sum(run["prompt"][1:]) for run in results[OURS])
    rows.append(Row(f"  {OURS}: of them cached, from turn 2 on", cached, "{:.3f}", MIN_CACHED))
    if PEER in results:
        pairs = zip(results[PEER], results[OURS], strict=True)
        ratio = statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)
        goal = MIN_RATIO if mode == "at-once" else None
        rows.append(Row(f"{PEER} takes this many times as long", ratio, "{:.2f}", goal))
    turns = f"{scenario.n_conversations} conversations {mode}, {scenario.n_turns} turns with a tool"
    return Table(f"{turns}, {scenario.n_call + scenario.n_answer} tokens generated in each, {' '.join(MODEL)}", rows)


def main() -> None:
    """Measure, print, and exit with 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=MODES, default="at-once", help="how the turns of conversations follow")
    parser.add_argument("--rounds", type=int, default=1, help="of some minutes each")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--conversations", type=int, default=20)
    parser.add_argument("--skip-peers", action="store_true", help="measure cyllama alone")
    parser.add_argument("--out", type=Path, default=BUILD / "bench" / "agents.json")
    args = parser.parse_args()

    print(describe_run(args.threads, args.rounds), flush=True)
    options = {"peers": not args.skip_peers, "n_conversations": args.conversations}
    table = measure(args.mode, args.threads, args.rounds, **options)
    print(f"\n{table}")
    args.out.write_text(json.dumps({row.label.strip(): row.value for row in table.rows}, indent=2) + "\n")
    sys.exit(not table.reached)


if __name__ == "__main__":
    main()
