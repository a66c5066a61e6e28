"""What goes into the next batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from ..errors import ContextMemoryError
from .adapters import AdapterKey
from .admission import Admission
from .batch import Row
from .conversation import Conversation
from .drafting import draft_lengths
from .kv_cache import Wait
from .model_drafts import ModelDrafts
from .pace import Pace
from .request import Request, Status
from .tuning import CHUNK, CHUNK_STEPS, GATHER, MOST_CONSIDERED, MOST_DRAFTED, ROWS, SLICE_STEPS
from .waiting import WaitingLine


class Refused(NamedTuple):
    """A request that cannot run, not even alone, and why."""

    request: Request
    error: Exception


class AdapterSlices:
    """Which adapters the next step is computed with. A step has one set of adapters, so sets have time slices, in turn.

    A slice ends after ``SLICE_STEPS`` steps, or after a chunk of a prompt, which takes as long, if another set waits.
    """

    def __init__(self) -> None:
        self._current: AdapterKey | None = None
        self._left = 0  # steps of the current slice
        self._queue: list[AdapterKey] = []  # the other sets, in the order of their slices

    def choose(self, running: list[Request]) -> list[Request]:
        """Return the requests that the next step is for."""
        keys = dict.fromkeys(request.adapters.key for request in running)
        if len(keys) <= 1:
            for key in keys:
                self._begin(key)
            self._queue.clear()
            return running
        queue = [key for key in self._queue if key in keys]
        queue += [key for key in keys if key != self._current and key not in queue]
        if self._current not in keys:
            self._begin(queue.pop(0))
        elif self._left <= 0:
            queue.append(self._current)
            self._begin(queue.pop(0))
        self._queue = queue
        return [request for request in running if request.adapters.key == self._current]

    def spend(self, n_prompt: int, budget: int) -> None:
        """Count a step as a part of the current slice.

        Args:
            n_prompt: Tokens of prompts that the step evaluates.
            budget: Tokens of prompts that take as long as a slice.
        """
        self._left -= 1 + n_prompt * SLICE_STEPS // max(budget, 1)

    def _begin(self, key: AdapterKey) -> None:
        if key != self._current:
            self._current, self._left = key, SLICE_STEPS


class Scheduler:
    """What runs, and what each batch consists of.

    ``n_parallel`` requests run at a time. Those that got least are next, and take the places of those whose quantum is
    over (:class:`~cyllama.engine.fair_queue.FairQueue`). Every batch has the next token of each request that is
    generating, and is filled up with parts of prompts: half for the one that arrived first, half for those of which
    least is left. So a short prompt never waits for the end of a long one, and a long one proceeds at half its speed at
    least, no matter how many short ones arrive after it. Requests with other LoRA adapters have batches of their own.

    Attributes:
        n_parallel: How many requests run at once.
        running: Requests that have a sequence, in the order in which they started.
        pace: How long steps take.
    """

    def __init__(self, n_parallel: int = 1, chunk: int = CHUNK, model_drafts: ModelDrafts | None = None) -> None:
        """Make one without requests.

        Args:
            n_parallel: How many requests run at once.
            chunk: Tokens of prompts in a step while no request generates. It does not depend on measured times, so
                that a prompt alone is evaluated in the same steps, and rounded the same way, every time.
            model_drafts: Drafts for the requests that ask for those of a model.
        """
        self.n_parallel = n_parallel
        self.running: list[Request] = []
        self.pace = Pace()
        self._chunk_alone = chunk
        self._model_drafts = model_drafts
        self._waiting = WaitingLine(n_parallel)
        self._short_of_memory: set[Request] = set()  # they wait until all that have begun have ended
        self._slices = AdapterSlices()
        self._image_is_next = False  # where steps with images and others alternate

    def __contains__(self, request: Request) -> bool:
        return request in self._waiting or request in self.running

    def add(self, request: Request, *, has_leader: bool = False) -> None:
        """Put a request into the line.

        Args:
            request: A new request.
            has_leader: Whether another one evaluates its prompt: then it may not start before :meth:`release`.
        """
        request.status = Status.WAITING
        self._waiting.add(request, has_leader=has_leader)

    @property
    def n_waiting(self) -> int:
        """How many requests are in the line."""
        return len(self._waiting)

    def admit(self, admission: Admission, pause: Callable[[Request], bool]) -> Iterator[Refused]:
        """Let waiting requests run, the one that got least first: where there is room, or in place of a running one.

        One that waits for a prefix lets others start before it. The first one for which there is no room ends the pass,
        so that the next ones do not overtake it. One for which there is no memory, even with all running ones paused,
        lets only those go on that have begun: it is tried again, and refused if that fails, when they have ended.

        Args:
            admission: The rules of whether a request may run.
            pause: Lets a running request wait, and calls :meth:`pause`; returns whether it could.

        Yields:
            Requests that cannot run. Each has to be removed before the next is asked for.
        """
        only_begun = False
        for request in islice(self._waiting.ready(), MOST_CONSIDERED):
            if only_begun and not request.has_begun:
                continue
            try:
                wait = self._start_or_wait(request, admission, pause)
            except Exception as error:  # the caller's to handle: the engine goes on
                yield Refused(request, error)
            else:
                if wait is Wait.FOR_ROOM:
                    return
                only_begun = only_begun or wait is Wait.FOR_MEMORY

    def _start_or_wait(self, request: Request, admission: Admission, pause: Callable[[Request], bool]) -> Wait | None:
        """Let a request run; return why it has to wait if it does."""
        if self.running and request in self._short_of_memory:
            return Wait.FOR_MEMORY
        others = iter(self._waiting.to_pause(self.running, request))
        if self._is_full:
            if (other := next(others, None)) is None:
                return Wait.FOR_ROOM
            if admission.waits_for_prefix(request):
                return Wait.FOR_PREFIX
            if not pause(other):
                return Wait.FOR_ROOM
        while True:
            next_ones = (each for each in self.next_waiting() if each is not request)
            next_ones = islice(next_ones, max(0, self.n_parallel - len(self.running) - 1))
            try:
                wait = admission.admit(request, self.running, next_ones)
            except ContextMemoryError:
                if request.has_begun or not any(each.has_begun for each in self._waiting.ready()):
                    raise
                self._short_of_memory.add(request)
                return Wait.FOR_MEMORY
            if wait is None:
                self.start(request)
            if wait is not Wait.FOR_ROOM or (other := next(others, None)) is None or not pause(other):
                return wait

    @property
    def _is_full(self) -> bool:
        return len(self.running) >= self.n_parallel

    def next_waiting(self) -> Iterator[Request]:
        """Yield the requests that may start, the next one first, while fewer than ``n_parallel`` run.

        Requests of one conversation run one after the other, and some wait for another one that evaluates their prompt.
        """
        for request in self._waiting.ready():
            if self._is_full:
                return
            yield request

    def start(self, request: Request) -> None:
        """Move a waiting request to the running ones."""
        self._short_of_memory.discard(request)
        self._waiting.start(request)
        request.status = Status.RUNNING
        self.running.append(request)

    def pause(self, request: Request) -> None:
        """Move a running request, whose quantum is over, to its place in the line."""
        self._put_back(request, first=False)

    def preempt(self, request: Request) -> None:
        """Move a running request to the head of the line."""
        self._put_back(request, first=True)

    def _put_back(self, request: Request, *, first: bool) -> None:
        self.running.remove(request)
        request.status = Status.WAITING
        self._waiting.put_back(request, first=first)

    def unfinished(self, conversation: Conversation) -> list[Request]:
        """Return the requests of a conversation that have not ended, running or waiting, in order of arrival."""
        return self._waiting.unfinished(conversation)

    def release(self, request: Request) -> None:
        """Allow a request to start that waited for another one to evaluate its prompt."""
        self._waiting.release(request)

    def remove(self, request: Request) -> None:
        """Take out a request that has ended."""
        if request in self.running:
            self.running.remove(request)
        self._short_of_memory.discard(request)
        self._waiting.remove(request)

    def next_batch(self, n_batch: int) -> Iterator[Row]:
        """Yield what to evaluate next, of at most ``n_batch`` tokens in all."""
        running = self._slices.choose([request for request in self.running if not request.waits_for_image])
        images = [request for request in running if request.image_run is not None]
        if images:
            row = self._image_row(images, n_batch, len(images) < len(running))
            if row is not None:
                self._slices.spend(len(row.tokens), len(row.tokens))
                yield row
                return
            running = [request for request in running if request not in images]
        generating = list(islice((request for request in running if request.pending == 1), n_batch))
        prompts = [request for request in running if request.pending > 1]
        drafts = {} if prompts else self._drafts(generating, n_batch - len(generating))
        for request in generating:
            tokens = request.next_tokens(1) + drafts.get(request, [])
            yield Row(request, tokens, tuple(range(len(tokens))) if request.wants_tokens else ())
        n_generating = sum(request.pending == 1 for request in self.running)
        n_last = sum(not request.tokens for request in generating)  # last tokens of prompts, a part of the chunk too
        budget = min(n_batch - len(generating), self._prefill_budget(prompts, n_generating) - n_last)
        if budget < sum(request.pending for request in prompts):  # there is a rest for another step anyway
            budget = _whole_rows(len(generating), budget)
        n_prompt = 0
        for request, n in _share(prompts, budget):
            pending, tokens = request.pending, request.next_tokens(n)
            n_prompt += len(tokens)
            is_whole = len(tokens) == pending
            yield Row(request, tokens, (pending - 1,) if is_whole and request.wants_tokens else ())
        self._slices.spend(n_prompt, budget)

    def _image_row(self, requests: list[Request], n_batch: int, beside_others: bool) -> Row | None:
        """Return the cells of an image that are evaluated next, in a step of their own; ``None`` for other tokens.

        Images alternate with the tokens of the other requests. As a part of a prompt, an image takes several steps,
        unless its cells attend to each other.
        """
        if beside_others and not self._image_is_next:
            self._image_is_next = True
            return None
        for request in requests:
            run = request.image_run
            assert run is not None
            budget = self.chunk if beside_others else self._chunk_alone
            n = run.n if run.image.whole else min(run.n, n_batch, budget, request.config.n_batch)
            if 0 < n <= n_batch:
                self._image_is_next = False
                is_last = n == request.pending
                return Row(request, request.next_tokens(n), (n - 1,) if is_last and request.wants_tokens else ())
        return None

    def _drafts(self, generating: list[Request], limit: int) -> dict[Request, list[int]]:
        """Return the drafted tokens that are evaluated in a step, at most ``limit`` of them."""
        most = min(limit, MOST_DRAFTED)
        if self._model_drafts is not None:
            self._model_drafts.propose(generating, self.pace.steps, most)
        found = ((request, request.draft(most)) for request in generating)
        drafts = {request: draft for request, draft in found if draft is not None}
        cost = self.pace.steps.costs(len(generating)) if drafts else None
        if cost is None:
            return {}
        lengths = draft_lengths([draft.chances for draft in drafts.values()], len(generating), cost, most)
        chosen = zip(drafts.items(), lengths, strict=True)
        return {request: draft.tokens[:n] for (request, draft), n in chosen}

    @property
    def chunk(self) -> int:
        """Tokens of prompts in a step while requests generate."""
        measured = self.pace.prompt_tokens(CHUNK_STEPS)
        return self._chunk_alone if measured is None else max(measured, ROWS)

    def _prefill_budget(self, prompts: list[Request], n_generating: int) -> int:
        """Return the most tokens of prompts in a step while ``n_generating`` requests generate.

        Simultaneous short prompts are prefilled in one step, so that they decode as a full batch. One after the other,
        the first would end first, and the rest would decode in batches that are not full.
        """
        chunk = self.chunk if n_generating else self._chunk_alone
        short = [r for r in prompts if max(r.pending, len(r.prompt) - (r.n_reused or 0)) <= CHUNK]
        if len(short) < max(n_generating, 2):
            return chunk
        return max(chunk, min(sum(request.pending for request in short), GATHER * chunk))

    def drain(self) -> list[Request]:
        """Take out all requests, running ones first."""
        requests = [*self.running, *self._waiting.in_arrival_order]
        self.running.clear()
        self._short_of_memory.clear()
        self._waiting = WaitingLine(self.n_parallel)
        return requests


def _whole_rows(n_generating: int, budget: int) -> int:
    """Return a budget that fills the rows of matrix products together with the tokens of those that generate."""
    rest = (n_generating + budget) % ROWS
    return budget - rest if budget - rest >= ROWS // 2 else budget


def _share(prompts: list[Request], budget: int) -> Iterator[tuple[Request, int]]:
    """Divide a budget of tokens among prompts.

    The first one has half of it. The other half is for all of them, those with the fewest pending tokens first.

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
