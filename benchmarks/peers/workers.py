"""llama-cpp-python and its LangChain provider, each in a process of its own.

llama-cpp-python is installed from its source, with its own defaults: its own llama.cpp, for this machine's processor,
with OpenMP.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from peers.contender import BENCHMARKS, EngineProcess, python_of
from peers.processes import PeerProcess
from peers.protocol import Ask, Settings


class _Worker(PeerProcess):
    """A module of this folder in a process with the environment of the peers; leaving the ``with`` block ends it.

    Args:
        module: Its name; it answers a JSON object per line.
        model: The GGUF file.
        n_threads: Threads that decode.
        n_ctx: Size of its context in tokens.
    """

    def __init__(self, module: str, model: Path, n_threads: int, n_ctx: int) -> None:
        command = [python_of("llama-cpp-python"), "-m", f"peers.{module}", str(model)]
        command += [f"--threads={n_threads}", f"--n-ctx={n_ctx}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__(command, module, **pipes, text=True, cwd=BENCHMARKS)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"llama-cpp-python ended; what it said is in {self._log.name}")
        return json.loads(answer)


class LlamaCppPython(EngineProcess):
    """One ``Llama`` of llama-cpp-python in a process of its own; leaving the ``with`` block ends it.

    Args:
        model: The GGUF file.
        n_threads: Threads that decode.
        n_ctx: Size of its context in tokens.
    """

    def __init__(self, model: Path, n_threads: int, *, n_ctx: int) -> None:
        super().__init__("llama-cpp-python", Settings(str(model), n_threads, n_ctx, n_parallel=1))

    def complete_all(self, prompts: list[list[int]], n_tokens: int) -> float:
        """Answer prompts from a thread each, one after the other behind a lock; return the seconds it took."""
        return self.ask([Ask(prompt, "", n_tokens) for prompt in prompts]).seconds

    def first_token_seconds(self, prompt: list[int], n_tokens: int) -> tuple[float, list[int]]:
        """Stream an answer; return the seconds until its first token, and all of its tokens."""
        (answer,) = self.ask([Ask(prompt, "", n_tokens)]).answers
        return answer.first, answer.tokens or []


class ChatLlamaCpp(_Worker):
    """The chat model of langchain-community on llama-cpp-python, in a process of its own.

    It keeps the KV cache of one conversation, and reuses the longest prefix that the next prompt has in common with it.
    Threads take turns behind a lock: two at once would end the process.
    Its ``n_batch`` is 512, not 8 as by default, and it does not stream: both are faster. Leaving the ``with`` block
    ends the process.

    Args:
        model: The GGUF file.
        n_threads: Threads that decode.
        n_ctx: Size of its context in tokens.
    """

    def __init__(self, model: Path, n_threads: int, *, n_ctx: int) -> None:
        super().__init__("chat_llama_cpp", model, n_threads, n_ctx)

    def run_agents(self, scenario: dict[str, Any], run: str, *, at_once: bool) -> dict[str, Any]:
        """Do what ``cases.agent_scenario.run_agents`` does."""
        return self._ask({"scenario": scenario, "run": run, "at_once": at_once})
