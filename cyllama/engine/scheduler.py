"""What goes into the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from .adapters import AdapterKey
from .request import Request

CHUNK_BESIDE_STREAMS = 128  # tokens of prompts in a step that others wait for: about ten times what one of theirs takes
SHORT_PROMPTS = 512  # tokens of all prompts together that may be evaluated in one step, so that more begin than wait
ROWS = 16  # tokens that matrix products take together on the CPU: what is left over takes much longer per token
TURN_STEPS = 8  # with the same adapters while others wait, about as long as a chunk takes; a switch takes 1/5 of a step


class Chunk(NamedTuple):
    """Tokens of one request for the next batch, and whether its next token is sampled from the last of them."""

    request: Request
    tokens: list[int]
    sample: bool


class AdapterTurns:
    """Which adapters the next step is computed with: there can be one set only, and sets take turns.

    A turn ends after ``TURN_STEPS`` steps, or after a chunk of a prompt, which takes as long, unless nobody waits.
    """

    def __init__(self) -> None:
        self._current: AdapterKey | None = None
        self._left = 0  # steps of the current turn
        self._line: list[AdapterKey] = []  # the other sets, in the order of their turns

    def choose(self, running: list[Request]) -> list[Request]:
        """Return the requests whose adapters' turn it is."""
        keys = dict.fromkeys(request.adapters.key for request in running)
        if len(keys) <= 1:
            for key in keys:
                self._begin(key)
            self._line.clear()
            return running
        line = [key for key in self._line if key in keys]
        line += [key for key in keys if key != self._current and key not in line]
        if self._current not in keys:
            self._begin(line.pop(0))
        elif self._left <= 0:
            line.append(self._current)
            self._begin(line.pop(0))
        self._line = line
        return [request for request in running if request.adapters.key == self._current]

    def spend(self, n_prompt: int) -> None:
        """Note a step that evaluated so many tokens of prompts."""
        self._left -= 1 + n_prompt * TURN_STEPS // CHUNK_BESIDE_STREAMS

    def _begin(self, key: AdapterKey) -> None:
        if key != self._current:
            self._current, self._left = key, TURN_STEPS


class Scheduler:
    """First come, first served, ``n_parallel`` requests at a time.

    Every batch has the next token of each request that is generating, and is filled up with prompts in the order in
    which they came. Requests with other LoRA adapters have batches of their own, in turn.

    Attributes:
        n_parallel: How many requests run at once.
        running: Requests that have a sequence, in the order in which they came.
    """

    def __init__(self, n_parallel: int = 1) -> None:
        self.n_parallel = n_parallel
        self.running: list[Request] = []
        self._waiting: deque[Request] = deque()
        self._turns = AdapterTurns()

    def add(self, request: Request) -> None:
        """Put a request at the end of the line."""
        self._waiting.append(request)

    @property
    def n_waiting(self) -> int:
        """How many requests are in the line."""
        return len(self._waiting)

    def next_waiting(self) -> Iterator[Request]:
        """Yield the requests whose turn may have come, while there is a place to run in.

        Generations of one conversation take turns, and some requests wait for another that evaluates their prompt.
        """
        busy = {request.conversation for request in self.running}
        for request in list(self._waiting):
            if len(self.running) >= self.n_parallel:
                return
            conversation = request.conversation
            if conversation is not None and conversation in busy:
                continue
            busy.add(conversation)
            if request.leader is None:
                yield request

    def start(self, request: Request) -> None:
        """Move a waiting request to the running ones."""
        self._waiting.remove(request)
        self.running.append(request)

    def put_back(self, request: Request) -> None:
        """Move a running request to the head of the line."""
        self.running.remove(request)
        self._waiting.appendleft(request)

    def cancelled(self) -> list[Request]:
        """Return the requests that somebody wants to end, waiting ones as well."""
        return [request for request in (*self.running, *self._waiting) if request.cancelled]

    def remove(self, request: Request) -> None:
        """Take out a request that has ended."""
        if request in self.running:
            self.running.remove(request)
        elif request in self._waiting:
            self._waiting.remove(request)

    def next_batch(self, n_batch: int) -> Iterator[Chunk]:
        """Yield what to evaluate next, of at most ``n_batch`` tokens in all."""
        running = self._turns.choose(self.running)
        generating = [request for request in running if request.pending == 1][:n_batch]
        prompts = [request for request in running if request.pending > 1]
        for request in generating:
            yield Chunk(request, request.next_tokens(1), sample=request.wants_tokens)
        budget = n_batch - len(generating)
        n_waiting = len(generating) if running is self.running else sum(r.pending == 1 for r in self.running)
        if n_waiting:
            budget = min(budget, self._beside(prompts, n_waiting))
        if ROWS < budget < sum(request.pending for request in prompts):
            budget -= (len(generating) + budget) % ROWS  # there is a rest for another step anyway
        n_prompt = 0
        for request in prompts:
            if budget <= 0:
                break
            pending = request.pending
            tokens = request.next_tokens(min(budget, request.most_at_once))
            budget -= len(tokens)
            n_prompt += len(tokens)
            yield Chunk(request, tokens, sample=len(tokens) == pending and request.wants_tokens)
        self._turns.spend(n_prompt)

    def _beside(self, prompts: list[Request], n_waiting: int) -> int:
        """Return the most tokens of these requests' prompts in a step that ``n_waiting`` generating ones wait for.

        Callers who come together shall also go on together: with one chunk after the other, those whose turn is first
        would end first, and leave the others to batches that are not full.
        """
        new = [len(r.prompt) - (r.n_reused or 0) for r in prompts]
        if len(new) > n_waiting and sum(new) <= SHORT_PROMPTS:
            return SHORT_PROMPTS
        return CHUNK_BESIDE_STREAMS

    def drain(self) -> list[Request]:
        """Take out all requests, running ones first."""
        requests = [*self.running, *self._waiting]
        self.running.clear()
        self._waiting.clear()
        return requests
