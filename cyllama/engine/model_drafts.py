"""Drafts of a draft model: for which requests it is asked, how far, and whether that has paid so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from statistics import median_low
from time import perf_counter
from typing import NamedTuple

from ..llama.llama_cpp import LlamaContext, LlamaModel
from .context import GenerationContext
from .conversation import Conversation
from .draft_context import DraftContext, DraftModel, InterruptedDraftError, Wanted
from .drafting import Credit, StepTimes, draft_lengths
from .log import EngineLogger
from .model_drafter import ModelDrafter
from .request import Request
from .stats import Stats
from .tuning import (
    CHUNK,
    FIRST_RETRY,
    LAST_RETRY,
    LEARNING_RATE_OF_ALL,
    LEAST_REMAINING,
    LOAN,
    MIN_PROMPT,
    MODEL_USUAL_CHANCE,
    MODEL_WORTH,
    MOST_MISSING,
    PLANNING_PAUSE,
    PREFILL_SPEEDUP,
    SAMPLES,
    STAKE,
)

logger = EngineLogger(__name__)


class _Asking(NamedTuple):
    """A request of which the draft model may be asked.

    Attributes:
        request: The request.
        drafter: What it expects.
        limit: Most tokens to draft.
    """

    request: Request
    drafter: ModelDrafter
    limit: int

    @property
    def owner(self) -> Hashable:
        """Whose sequence it continues in the draft model's context: its conversation's, or its own."""
        return self.request if self.request.conversation is None else self.request.conversation


class _Plan(NamedTuple):
    """A request of which the draft model is asked if that pays.

    Attributes:
        asking: The request.
        tokens: Its tokens so far.
        n: How many are to be drafted.
        saved: Seconds that each of its tokens is expected to come sooner.
        stake: Seconds of credit that the draft needs, besides those for tokens that the draft model does not know yet.
    """

    asking: _Asking
    tokens: list[int]
    n: int
    saved: float
    stake: float


class DraftTimes:
    """How long the draft model takes on this machine. Before anything is measured, it is estimated by its size."""

    def __init__(self, size: float) -> None:
        """Make one for a model of ``size`` times the bytes of the other one."""
        self._size = size
        self._steps: deque[float] = deque(maxlen=SAMPLES)
        self._tokens: deque[float] = deque(maxlen=SAMPLES)

    def note_step(self, seconds: float) -> None:
        """Note how long it took to draft a further token of each request."""
        self._steps.append(seconds)

    def note_prompt(self, seconds: float, n_tokens: int) -> None:
        """Note how long it took to evaluate tokens of a prompt."""
        self._tokens.append(seconds / n_tokens)

    def step(self, plain: float) -> float:
        """Return the seconds of a further token of each request; ``plain``: those of a step without drafts."""
        return median_low(self._steps) if self._steps else plain * self._size

    def prompt_token(self, plain: float) -> float:
        """Return the seconds of a token of a prompt."""
        return median_low(self._tokens) if self._tokens else self.step(plain) / PREFILL_SPEEDUP


class ModelDrafts:
    """What a draft model does for the requests of an engine.

    It is asked where that is expected to pay: by the chances of each request, by the measured times of the model and of
    wider steps, and as far as :class:`~cyllama.engine.drafting.Credit` allows. Where its context fails, requests go on
    without drafts. Only the engine's thread uses it.
    """

    def __init__(
        self,
        draft: DraftModel,
        n_parallel: int,
        target: GenerationContext,
        model: LlamaModel,
        stats: Stats,
        may_decode: Callable[[LlamaContext], bool],
    ) -> None:
        """Make one without a context.

        Args:
            draft: The draft model.
            n_parallel: For how many requests it drafts at once.
            target: The context that it drafts for.
            model: The model of that.
            stats: The counters to add to.
            may_decode: As for :class:`DraftContext`.
        """
        self._context = DraftContext(draft, n_parallel, stats, may_decode)
        self._target = target
        self._stats = stats
        self._n_ctx_train = draft.model.n_ctx_train
        n_vocab = draft.model.vocab.n_tokens
        self._n_vocab = n_vocab if n_vocab < model.vocab.n_tokens else None
        self._times = DraftTimes(draft.model.size / max(model.size, 1))
        self._credit = Credit()
        self._usual_chance = MODEL_USUAL_CHANCE  # of the requests that ended: others begin with it
        self._plain: float | None = None  # seconds of the latest step without drafts, where that was measured
        self._spent = 0.0  # seconds of the draft model since the last step
        self._failures = 0  # in a row
        self._retry_at = 0  # number of the step before which it is not asked again

    @property
    def decoding(self) -> LlamaContext | None:
        """The draft model's context while it may be decoding. Read from any thread."""
        return self._context.decoding

    @property
    def owners(self) -> list[Hashable]:
        """The requests and conversations that the context has tokens of."""
        return self._context.owners

    def close(self) -> None:
        """Close the context of the draft model. It is created again when it is needed."""
        self._context.close()

    def check_integrity(self, requests: Sequence[Request]) -> None:
        """Raise ``AssertionError`` where what is recorded is wrong; ``requests``: those that have not ended."""
        self._context.check_integrity()
        ended = [owner for owner in self._context.owners if isinstance(owner, Request) and owner not in requests]
        assert not ended, "the draft model has tokens of requests that have ended"

    def release(self, owner: Request | Conversation) -> None:
        """Give back what the context has of a request that ends, or of a conversation."""
        self._context.release(owner)
        drafter = owner.drafter if isinstance(owner, Request) else None
        if isinstance(drafter, ModelDrafter):
            self._usual_chance += (drafter.usual_chance - self._usual_chance) * LEARNING_RATE_OF_ALL

    def settle(self, n_generating: int, n_drafted: int, n_accepted: int, seconds: float, plain: float | None) -> None:
        """Compare what a step took with what it would have taken without drafts.

        Args:
            n_generating: Requests that had a token of their answer evaluated.
            n_drafted: Tokens drafted by the model that were evaluated.
            n_accepted: How many of these were right.
            seconds: Its duration, without that of the draft model.
            plain: Seconds of a step of as many requests without drafts, if that was measured.
        """
        spent, self._spent = self._spent, 0.0
        self._plain = self._plain if plain is None else plain
        without = seconds
        if n_drafted and plain is not None:
            without = (1 + n_accepted / n_generating) * plain
            seconds = max(seconds, plain)  # a wider step is never faster: else the machine was slower before
        self._credit.note(without, seconds + spent, self._plain)
        if n_drafted:
            self._credit.note_draft(is_right=n_accepted > 0)

    def propose(self, generating: Sequence[Request], steps: StepTimes, most: int) -> None:
        """Let the drafters of requests expect what the draft model does, where that is expected to pay.

        Args:
            generating: The requests of the next step.
            steps: How long steps take.
            most: Most drafted tokens of the step.
        """
        if self._stats.steps < self._retry_at:
            return
        asking = [each for request in generating if (each := self._asking(request, most)) is not None]
        plain = steps.seconds(len(generating)) if asking else None
        if plain is None or not self._credit.allows(self._times.step(plain)):  # not even a token: planning takes time
            return
        cost = steps.costs(len(generating))
        if cost is None:
            return
        started = perf_counter()
        try:
            is_asked = self._ask(self._planned(asking, len(generating), plain, cost, most), plain)
            if not is_asked and not self._credit.allows(LOAN * plain):
                self._retry_at = self._stats.steps + PLANNING_PAUSE
        except InterruptedDraftError:  # the engine finds out why
            pass
        except Exception as error:  # the requests go on without drafts
            self._fail(error)
        finally:
            self._spent += perf_counter() - started

    def _fail(self, error: Exception) -> None:
        """Give up the context of the draft model for a while, which is longer each time."""
        wait = min(FIRST_RETRY * 2**self._failures, LAST_RETRY)
        logger.warning("the draft model failed, and is left out for %d steps: %s", wait, error)
        logger.debug("the draft model failed", exc_info=True)
        self._context.close()
        self._retry_at = self._stats.steps + wait
        self._failures += 1

    # --- which requests

    def _asking(self, request: Request, most: int) -> _Asking | None:
        """Return a request if the draft model may be asked of it, and has not said already what comes next."""
        drafter = request.drafter
        if not isinstance(drafter, ModelDrafter) or not request.tokens or request.draft(1) is not None:
            return None
        drafter.begin(self._usual_chance)
        limit = min(most, request.n_left - 1, self._n_ctx_train - request.n_tokens)
        return _Asking(request, drafter, limit) if limit > 0 and not self._is_unknown(request) else None

    def _is_unknown(self, request: Request) -> bool:
        """Whether a request has tokens that the draft model does not know, or images, which it does not see."""
        if request.images:
            return True
        return self._n_vocab is not None and max(request.all_tokens) >= self._n_vocab

    def _planned(
        self, asking: Sequence[_Asking], n_rows: int, plain: float, cost: Callable[[int], float], most: int
    ) -> list[_Plan]:
        """Return of which requests the draft model is expected to pay, once it knows their tokens."""
        step = self._times.step(plain) / plain
        chances = [[each.drafter.usual_chance ** (i + 1) for i in range(each.limit)] for each in asking]
        while most > 0:
            lengths = draft_lengths(chances, n_rows, cost, most, lambda depth: depth * step, MODEL_WORTH)
            duration = cost(n_rows + sum(lengths)) + max(lengths) * step
            stake = (duration - 1) * plain / (STAKE if sum(lengths) > 1 else 1)
            if self._credit.allows(stake):
                gains = [sum(chance[:n]) for chance, n in zip(chances, lengths, strict=True)]
                return [
                    _Plan(each, each.request.all_tokens, n, plain * (1 - duration / (1 + gain)), stake)
                    for each, n, gain in zip(asking, lengths, gains, strict=True)
                    if n
                ]
            most = sum(lengths) // 2
        return []

    # --- what the draft model does

    def _ask(self, planned: Sequence[_Plan], plain: float) -> bool:
        """Let the draft model catch up with these requests, and draft for those of which it knows all tokens.

        Returns:
            Whether it was asked about any.
        """
        context = self._target.context
        if not planned or context is None:
            return False
        missing = [self._context.n_missing(plan.asking.owner, plan.tokens) for plan in planned]
        chosen = [(plan, n) for plan, n in zip(planned, missing, strict=True) if self._pays(plan, n, plain)]
        if not chosen:
            return False
        context.pause_threads()
        try:
            self._context.ensure({p.asking.owner: len(p.tokens) + p.n for p, _ in chosen}, self._target.n_ctx)
            ready = self._catch_up(chosen)
            if ready:
                self._draft(ready, plain)
            self._failures = 0
        finally:
            self._context.pause_threads()
        return True

    def _pays(self, plan: _Plan, n_missing: int, plain: float) -> bool:
        """Return whether a request is expected to save more time than it takes to evaluate what is missing of it.

        How much it will still generate is not known: about as much as it has generated so far.
        """
        seconds = (n_missing - 1) * self._times.prompt_token(plain)
        request = plan.asking.request
        n_more = min(request.n_left, max(len(request.tokens), LEAST_REMAINING))
        return seconds <= n_more * plan.saved and self._credit.allows(seconds + plan.stake / plan.n)

    def _catch_up(self, chosen: Sequence[tuple[_Plan, int]]) -> list[_Plan]:
        """Evaluate a chunk of what is missing; return the requests of which too little is missing to do so."""
        ready, room, chunk = list[_Plan](), self._context.capacity, CHUNK
        for plan, n in chosen:
            if n <= min(MOST_MISSING, room):
                ready.append(plan)
                room -= n
            elif chunk > 0 and n > 1:
                started, part = perf_counter(), min(n - 1, chunk)
                self._context.catch_up(plan.asking.owner, plan.tokens, part)
                chunk -= part
                if part >= MIN_PROMPT:
                    self._times.note_prompt(perf_counter() - started, part)
        return ready

    def _draft(self, ready: Sequence[_Plan], plain: float) -> None:
        least = self._times.step(plain) / plain / len(ready)  # a chance for which a further token takes too long
        wanted = [self._wanted(plan, least) for plan in ready]
        n_before, started = self._stats.draft_steps, perf_counter()
        self._context.draft(wanted)
        n_steps = self._stats.draft_steps - n_before
        self._times.note_step((perf_counter() - started) / n_steps)

    def _wanted(self, plan: _Plan, least: float) -> Wanted:
        drafter = plan.asking.drafter

        def goes_on(token: int, probability: float) -> bool:
            return drafter.expect(token, probability) and drafter.last_chance * drafter.usual_chance >= least

        return Wanted(plan.asking.owner, plan.tokens, plan.n, goes_on)
