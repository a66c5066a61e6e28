"""The side of a measured engine: a process of its own that answers a JSON object per line, from stdin to stdout.

It needs the standard library alone, since it runs in the environment of every peer. contender.py is the other side.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Settings:
    """How an engine is opened.

    Attributes:
        model: The GGUF file.
        n_threads: Threads that decode.
        n_ctx: Most tokens of a conversation.
        n_parallel: Conversations that are answered at once.
        embedding: Whether it embeds texts, and does not generate.
        drafts: Whether it drafts tokens by looking them up, where that is set for all requests.
    """

    model: str
    n_threads: int
    n_ctx: int
    n_parallel: int
    embedding: bool = False
    drafts: bool = False


@dataclass(frozen=True)
class Ask:
    """A request.

    Attributes:
        tokens: The prompt; empty where only its text is known.
        text: The prompt as text, for engines that take nothing else.
        n_tokens: Tokens to generate: as many as that, unless a schema or the model ends the answer.
        conversation: A name, if the prompt goes on a conversation of that name, whose state may be reused.
        bias: Token of which the answer consists.
        schema: JSON schema that the answer has to fit.
        lookup: Whether to draft tokens by looking them up in the prompt.
        ends: Whether the model may end its answer before ``n_tokens``.
    """

    tokens: list[int]
    text: str
    n_tokens: int
    conversation: str | None = None
    bias: int | None = None
    schema: dict[str, Any] | None = None
    lookup: bool = False
    ends: bool = False


@dataclass
class Answer:
    """What a request got.

    Attributes:
        first: Seconds until its first token.
        seconds: Seconds until its end.
        n_tokens: Tokens that were generated.
        tokens: They themselves, where the engine tells and the request had no ``bias``.
    """

    first: float
    seconds: float
    n_tokens: int
    tokens: list[int] | None = None


class Outcome(NamedTuple):
    """What requests that were made at once got.

    Attributes:
        seconds: From the first request to the last end.
        cpu: CPU seconds of the engine's process meanwhile.
        answers: One for each request.
    """

    seconds: float
    cpu: float
    answers: list[Answer]

    @property
    def n_tokens(self) -> int:
        """Tokens that were generated."""
        return sum(answer.n_tokens for answer in self.answers)


class Engine(Protocol):
    """A loaded model of one of the engines."""

    def answer(self, ask: Ask) -> Answer:
        """Answer a request; may be called by many threads at once."""
        ...


def timed_import(name: str) -> tuple[Any, float]:
    """Import a module; return it and the seconds that it took."""
    start = time.perf_counter()
    return importlib.import_module(name), time.perf_counter() - start


class Clock:
    """Seconds since a request was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.first = 0.0

    def token(self) -> None:
        """Note the first token."""
        self.first = self.first or self.now()

    def now(self) -> float:
        """Return the seconds so far."""
        return time.perf_counter() - self._start


def answer_all(answer: Callable[[Ask], Answer], asks: list[Ask]) -> dict[str, Any]:
    """Answer requests at once, each on a thread of its own; return the answers, and the time of all of them.

    ``cpu`` is this process's CPU time.
    """
    results: list[Any] = [None] * len(asks)
    ready = threading.Barrier(len(asks) + 1)

    def run(index: int) -> None:
        ready.wait()
        try:
            results[index] = vars(answer(asks[index]))
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asks))]
    for thread in threads:
        thread.start()
    cpu = time.process_time()
    start = time.perf_counter()
    ready.wait()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    for result in results:
        if isinstance(result, Exception):
            raise result
    return {"seconds": seconds, "cpu": cpu, "answers": results}


def serve(open_engine: Callable[[Settings], Engine], version: str, import_seconds: float) -> None:
    """Load a model and answer until stdin ends.

    The first line has the version, and the seconds of the import and of loading. A line of the input has ``asks`` or
    ``texts``. A request that fails is answered with its ``error``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", help="those of Settings, in JSON")
    settings = Settings(**json.loads(parser.parse_args().settings))
    output = _own_stdout()
    start = time.perf_counter()
    engine: Any = open_engine(settings)
    load = time.perf_counter() - start
    print(json.dumps({"version": version, "import": import_seconds, "load": load}), file=output, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "texts" in request:
                start = time.perf_counter()
                engine.embed(request["texts"])
                reply = {"seconds": time.perf_counter() - start}
            else:
                reply = answer_all(engine.answer, [Ask(**ask) for ask in request["asks"]])
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=output, flush=True)
    os._exit(0)  # an engine whose own end hangs or crashes has been measured all the same


def _own_stdout() -> IO[str]:
    """Return what was stdout; what an engine prints there goes to stderr."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return output


def file_of(settings: Settings) -> tuple[str, str]:
    """Return the folder and the name of the model's file."""
    path = Path(settings.model)
    return str(path.parent), path.name
