"""What goes into the next batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from .request import Request


class Chunk(NamedTuple):
    """Tokens of one request for the next batch, and whether its next token is sampled from the last of them."""

    request: Request
    tokens: list[int]
    sample: bool


class Scheduler:
    """First come, first served, ``n_parallel`` requests at a time.

    Attributes:
        n_parallel: How many requests run at once.
        running: Requests that have a sequence.
    """

    def __init__(self, n_parallel: int = 1) -> None:
        self.n_parallel = n_parallel
        self.running: list[Request] = []
        self._waiting: deque[Request] = deque()

    def add(self, request: Request) -> None:
        """Put a request at the end of the line."""
        self._waiting.append(request)

    def admit(self) -> Request | None:
        """Move the next waiting request to the running ones and return it, or ``None`` if its turn has not come."""
        if not self._waiting or len(self.running) >= self.n_parallel:
            return None
        request = self._waiting.popleft()
        self.running.append(request)
        return request

    def drop_cancelled(self) -> list[Request]:
        """Take out the requests that somebody wants to end, waiting ones as well."""
        cancelled = [request for request in (*self.running, *self._waiting) if request.cancelled]
        if cancelled:
            self.running = [request for request in self.running if not request.cancelled]
            self._waiting = deque(request for request in self._waiting if not request.cancelled)
        return cancelled

    def remove(self, request: Request) -> None:
        """Take out a request that has ended."""
        self.running.remove(request)

    def next_batch(self, n_batch: int) -> Iterator[Chunk]:
        """Yield what to evaluate next, of at most ``n_batch`` tokens in all."""
        for request in self.running:
            tokens = request.next_tokens(min(n_batch, request.config.n_batch))
            if not tokens:
                return
            n_batch -= len(tokens)
            end_of_prompt = request.n_evaluated + len(tokens) >= len(request.prompt)
            yield Chunk(request, tokens, sample=end_of_prompt and request.wants_tokens)

    def drain(self) -> list[Request]:
        """Take out all requests, running ones first."""
        requests = [*self.running, *self._waiting]
        self.running.clear()
        self._waiting.clear()
        return requests
