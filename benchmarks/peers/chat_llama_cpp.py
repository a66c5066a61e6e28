#!/usr/bin/env python3
"""Run agents with ChatLlamaCpp of langchain-community: a JSON object per line, from stdin to stdout. See workers.py."""

from __future__ import annotations

import argparse
import json
import sys
import threading
from typing import Any

from langchain_community.chat_models import ChatLlamaCpp  # pyright: ignore[reportMissingImports]
from langchain_core.outputs import ChatResult

from cases.agent_scenario import Scenario, run_agents


class LockedChatLlamaCpp(ChatLlamaCpp):
    """A ``ChatLlamaCpp`` that threads may share: they take turns."""

    def _generate(self, *args: Any, **options: Any) -> ChatResult:
        with _lock:
            return super()._generate(*args, **options)


_lock = threading.Lock()


def main() -> None:
    """Answer until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--n-ctx", type=int, required=True)
    args = parser.parse_args()
    model = LockedChatLlamaCpp(
        model_path=args.model,
        n_ctx=args.n_ctx,
        n_batch=512,
        n_threads=args.threads,
        temperature=0.0,
        repeat_penalty=1.0,
        streaming=False,
        verbose=False,
        model_kwargs={"n_threads_batch": args.threads},
    )
    for line in sys.stdin:
        request = json.loads(line)
        answer = run_agents(model, Scenario(**request["scenario"]), request["run"], at_once=request["at_once"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
