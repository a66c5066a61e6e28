"""What goes into the next batch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from .adapters import AdapterKey
from .pace import Pace
from .request import Request
from .tuning import CHUNK, CHUNK_STEPS, GATHER, ROWS, TURN_STEPS
from .waiting import WaitingLine


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

    def spend(self, n_prompt: int, budget: int) -> None:
        """Note a step that evaluated so many tokens of prompts, of ``budget``, which take as long as a turn."""
        self._left -= 1 + n_prompt * TURN_STEPS // max(budget, 1)

    def _begin(self, key: AdapterKey) -> None:
        if key != self._current:
            self._current, self._left = key, TURN_STEPS


class Scheduler:
    """What runs, and what each batch consists of.

    Requests start in the order in which they came, ``n_parallel`` at a time. Every batch has the next token of each
    request that is generating, and is filled up with parts of prompts: half for the one that came first, half for those
    of which least is left. So a short prompt never waits for the end of a long one, and a long one goes on at half its
    speed at least, however many short ones come after it. Requests with other LoRA adapters have batches of their own,
    in turn.

    Attributes:
        n_parallel: How many requests run at once.
        running: Requests that have a sequence, in the order in which they started.
        pace: How long steps take.
    """

    def __init__(self, n_parallel: int = 1, chunk: int = CHUNK) -> None:
        """Make one.

        Args:
            n_parallel: How many requests run at once.
            chunk: Tokens of prompts in a step while no request generates. It does not depend on measured times, so
                that a prompt alone is evaluated in the same steps, and rounded the same way, every time.
        """
        self.n_parallel = n_parallel
        self.running: list[Request] = []
        self.pace = Pace()
        self._chunk_alone = chunk
        self._waiting = WaitingLine()
        self._turns = AdapterTurns()

    def __contains__(self, request: Request) -> bool:
        return request in self._waiting or request in self.running

    def add(self, request: Request) -> None:
        """Put a request at the end of the line."""
        self._waiting.add(request)

    @property
    def n_waiting(self) -> int:
        """How many requests are in the line."""
        return len(self._waiting)

    def next_waiting(self) -> Iterator[Request]:
        """Yield the requests whose turn may have come, while there is a place to run in.

        Generations of one conversation take turns, and some requests wait for another that evaluates their prompt.
        """
        for request in self._waiting.ready():
            if len(self.running) >= self.n_parallel:
                return
            yield request

    def start(self, request: Request) -> None:
        """Move a waiting request to the running ones."""
        self._waiting.take(request)
        self.running.append(request)

    def put_back(self, request: Request) -> None:
        """Move a running request to the head of the line."""
        self.running.remove(request)
        self._waiting.put_back(request)

    def release(self, request: Request) -> None:
        """Let a request start that waited for another one to evaluate its prompt."""
        self._waiting.release(request)

    def remove(self, request: Request) -> None:
        """Take out a request that has ended."""
        if request in self._waiting:
            self._waiting.take(request)
        elif request in self.running:
            self.running.remove(request)
        self._waiting.end(request)

    def next_batch(self, n_batch: int) -> Iterator[Chunk]:
        """Yield what to evaluate next, of at most ``n_batch`` tokens in all."""
        running = self._turns.choose(self.running)
        generating = list(islice((request for request in running if request.pending == 1), n_batch))
        prompts = [request for request in running if request.pending > 1]
        for request in generating:
            yield Chunk(request, request.next_tokens(1), sample=request.wants_tokens)
        n_waiting = sum(request.pending == 1 for request in self.running)
        budget = min(n_batch - len(generating), self._budget(prompts, n_waiting))
        if budget < sum(request.pending for request in prompts):  # there is a rest for another step anyway
            budget = _whole_rows(len(generating), budget)
        n_prompt = 0
        for request, n in _share(prompts, budget):
            pending, tokens = request.pending, request.next_tokens(n)
            n_prompt += len(tokens)
            yield Chunk(request, tokens, sample=len(tokens) == pending and request.wants_tokens)
        self._turns.spend(n_prompt, budget)

    @property
    def chunk(self) -> int:
        """Tokens of prompts in a step that requests wait for which generate."""
        measured = self.pace.prompt_tokens(CHUNK_STEPS)
        return self._chunk_alone if measured is None else max(measured, ROWS)

    def _budget(self, prompts: list[Request], n_generating: int) -> int:
        """Return the most tokens of prompts in a step that ``n_generating`` requests wait for.

        Short prompts of callers who come together are evaluated together, so that they decode as a full batch: with one
        after the other, those whose turn is first would end first, and leave the others to batches that are not full.
        """
        chunk = self.chunk if n_generating else self._chunk_alone
        short = [r for r in prompts if max(r.pending, len(r.prompt) - (r.n_reused or 0)) <= CHUNK]
        if len(short) < max(n_generating, 2):
            return chunk
        return max(chunk, min(sum(request.pending for request in short), GATHER * chunk))

    def drain(self) -> list[Request]:
        """Take out all requests, running ones first."""
        requests = [*self.running, *self._waiting.drain()]
        self.running.clear()
        return requests


def _whole_rows(n_generating: int, budget: int) -> int:
    """Return a budget that fills the rows of matrix products together with the tokens of those that generate."""
    rest = (n_generating + budget) % ROWS
    return budget - rest if budget - rest >= ROWS // 2 else budget


def _share(prompts: list[Request], budget: int) -> Iterator[tuple[Request, int]]:
    """Divide a budget of tokens among prompts.

    The first one has half of it, and all have it in the order of what is left of them: the shortest first.

    Args:
        prompts: Requests whose prompts are not evaluated yet, in the order in which they started.
        budget: Tokens in all.
    """
    if not prompts or budget <= 0:
        return
    limits = {request: request.most_at_once for request in prompts}
    shares = dict.fromkeys(prompts, 0)
    shares[prompts[0]] = min(limits[prompts[0]], budget - budget // 2)
    left = budget - shares[prompts[0]]
    for request in sorted(prompts, key=lambda request: request.pending):
        more = min(limits[request] - shares[request], left)
        shares[request] += more
        left -= more
    yield from ((request, n) for request, n in shares.items() if n > 0)
