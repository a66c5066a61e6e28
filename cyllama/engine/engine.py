"""The one thread that calls ``llama_decode``."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import NamedTuple, TypeVar, cast

from ..config import ModelConfig
from ..errors import ContextError, ContextMemoryError, DecodeError, GrammarError
from ..llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler
from ..response import FinishReason, TokenLogprob
from .adapters import AdapterKey
from .context import GenerationContext
from .context_params import in_host_memory
from .conversation import Conversation
from .log import EngineLogger
from .logprobs import read_logprobs
from .request import Request
from .scheduler import Chunk, Scheduler
from .sequence import CachedSequence, common_prefix
from .stats import Stats
from .tuning import CHUNK, HEADROOM, LEAST_GROWTH, MIN_SHARED, MOST_CONSIDERED
from .worker import Worker

NO_SPACE, ABORTED = 1, 2  # what LlamaContext.decode returns besides 0
T = TypeVar("T")

logger = EngineLogger(__name__)


class _Sampled(NamedTuple):
    """The next token of a request, or why there is none."""

    token: int
    logprob: TokenLogprob | None = None
    failure: DecodeError | GrammarError | None = None


def _failure(error: Exception) -> DecodeError | GrammarError:
    """Return why a request fails whose sampler raised ``error``."""
    return GrammarError(str(error)) if isinstance(error, ValueError) else DecodeError(str(error))


class Engine(Worker["Request | Callable[[], object]"]):
    """A thread that takes requests and generates, and the context it does so in. Both end with :meth:`stop`.

    llama.cpp is fastest when one thread decodes for the whole life of a context, whoever asks. Requests come in, and
    text goes out, through queues.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, stats: Stats, predecessor: Engine | None = None) -> None:
        """Start the thread, which waits for ``predecessor`` to end first."""
        super().__init__("cyllama-engine", predecessor)
        self._model = model
        self._vocab = model.vocab
        self._eog = frozenset(self._vocab.eog_tokens())
        self._stats = stats
        self._kv_cells = config.kv_cells
        self._incoming: dict[Request, None] = {}  # requests in the inbox
        self._cancelled: SimpleQueue[Request] = SimpleQueue()
        self._scheduler = Scheduler(config.n_parallel, CHUNK if in_host_memory(config) else config.n_ubatch)
        self._context = GenerationContext(model, config, stats)
        self._kv_cache = self._context.kv_cache
        self._alone: Request | None = None  # what began without anybody beside it, until another one does
        self._probe = LlamaSampler.greedy()
        self.start()

    def submit(self, request: Request) -> None:
        """Hand over a request. Its text comes out of :attr:`Request.chunks`. Doing so twice is doing so once."""
        self._incoming[request] = None
        self._inbox.put(request)

    def cancel(self, request: Request) -> None:
        """Make a request end within one step, and not only after the current one if it runs alone."""
        request.cancelled = True
        self._cancelled.put(request)
        self._abort_if_unwanted()

    def share(self, source: Conversation, target: Conversation) -> None:
        """Let a conversation go on from what the KV cache has of another."""

        def share() -> None:
            if source.sequence is not None and target.sequence is None:  # if forgotten since, forget() follows
                target.lease = self._kv_cache.keep(source.sequence)

        self._inbox.put(share)

    def adopt(self, conversation: Conversation, tokens: list[int], state: bytes, adapters: AdapterKey = ()) -> None:
        """Let a conversation go on from a state that was saved."""

        def adopt() -> None:
            if conversation.sequence is None:  # if forgotten since, forget() follows
                conversation.lease = self._kv_cache.adopt(tokens, state, adapters)

        self._inbox.put(adopt)

    def forget(self, conversation: Conversation) -> None:
        """Give back what the KV cache has of a conversation."""

        def forget() -> None:
            lease, conversation.lease = conversation.lease, None
            if lease is not None:
                lease.release()

        self._inbox.put(forget)

    def save(self, conversation: Conversation) -> Callable[[], tuple[list[int], bytes | None, AdapterKey]]:
        """Ask for what the KV cache has of a conversation: tokens, their state, and what it was computed with.

        Call the result to have it.
        """

        def save() -> tuple[list[int], bytes | None, AdapterKey]:
            return ([], None, ()) if conversation.sequence is None else self._kv_cache.save(conversation.sequence)

        return self.ask(save)

    def let_go_of_unloaded(self) -> None:
        """Free the adapters that were unloaded, as soon as nobody generates with them."""
        self._inbox.put(lambda: None)  # it looks for them before it waits

    def ask(self, function: Callable[[], T]) -> Callable[[], T]:
        """Let the engine's thread run a function between two steps; call the result to wait for what it returns."""
        outcome: SimpleQueue[tuple[bool, T | Exception]] = SimpleQueue()

        def run() -> None:
            try:
                outcome.put((True, function()))
            except Exception as error:  # the caller's to handle
                outcome.put((False, error))

        def answer() -> T:
            succeeded, result = outcome.get()
            if not succeeded:
                assert isinstance(result, Exception)
                raise result
            return cast(T, result)

        self._inbox.put(run)
        return answer

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where what is recorded of requests and sequences is wrong."""
        self.ask(self._check_integrity)()

    def _check_integrity(self) -> None:
        self._kv_cache.check_integrity()
        extended = [request.sequence for request in self._scheduler.running]
        assert len(set(extended)) == len(extended), "two requests extend the same sequence"
        assert set(extended) == set(self._kv_cache.running), "the sequences that are running are not those of requests"

    @property
    def occupancy(self) -> dict[str, int]:
        """What of :class:`Stats` is true at this moment only."""
        return {
            "running": sum(request.finish_reason is None for request in list(self._scheduler.running)),
            "waiting": self._scheduler.n_waiting + len(self._incoming),
            "kv_cells_used": self._kv_cache.used_cells,
            "host_bytes": self._kv_cache.host_bytes,
        }

    # --- the engine's thread: the loop

    def _turn(self) -> None:
        """Take what has come in and do one step."""
        try:
            if self._receive():
                self._step()
        except Exception as error:  # whatever failed, nobody may wait forever, and the next request starts afresh
            logger.debug("a step failed", exc_info=True)
            self._context.release()
            for request in list(self._scheduler.running):
                self._retire(request, error)

    def _receive(self) -> bool:
        """Take what has come in, waiting for it if there is nothing to do. Return whether there is a step to do."""
        while not self._stopping:
            self._empty_inbox()
            self._retire_cancelled()
            self._admit()
            if self._scheduler.running:
                return not self._stopping
            self._context.let_go_of_unloaded()
            if self._inbox.empty() and not self._scheduler.n_waiting:  # one may wait whose predecessor just failed
                self._wait_for_one()
        return False

    def _take(self, item: Request | Callable[[], object]) -> None:
        if not isinstance(item, Request):
            item()
            return
        if not item.taken:
            item.taken = True
            self._scheduler.add(item)
            if item.cancelled:  # perhaps before it came in
                self._cancelled.put(item)
        self._incoming.pop(item, None)

    def _retire_cancelled(self) -> None:
        while True:
            try:
                request = self._cancelled.get_nowait()
            except Empty:
                return
            if request in self._scheduler:
                self._retire(request, "cancelled")

    def _end(self) -> None:
        for request in self._scheduler.drain():
            request.finish("cancelled")
            request.close(self._vocab)
        self._context.release()

    # --- admission

    def _admit(self) -> None:
        """Give waiting requests whose turn has come a place to run in."""
        for request in islice(self._scheduler.next_waiting(), MOST_CONSIDERED):
            contexts_created = self._stats.contexts_created
            try:
                request.resolve()
                if self._shares_a_prefill(request):
                    continue
                if not self._make_place(request):
                    if self._scheduler.running:
                        return  # in line: those behind it wait as well
                    raise DecodeError("there is no space in the KV cache for this prompt")
                request.start()
                self._start(request)
            except Exception as error:  # the caller's to handle: the thread goes on
                self._retire(request, error)
            else:
                self._stats.context_reuses += self._stats.contexts_created == contexts_created

    def _shares_a_prefill(self, request: Request) -> bool:
        """Whether a running request is evaluating a prefix that this one will be able to copy soon."""
        if request.conversation is None or request.tokens:
            return False
        for other in self._scheduler.running:
            if other.conversation is None or other.n_evaluated >= len(other.prompt):
                continue
            if other.adapters.key != request.adapters.key:
                continue
            shared = min(common_prefix(other.prompt, request.prompt), len(request.prompt) - 1)
            if shared < MIN_SHARED or shared <= other.n_evaluated:
                continue
            own, adapters = request.conversation.sequence, request.adapters.key
            _, known = self._kv_cache.longest_prefix(request.prompt, own, shareable=True, adapters=adapters)
            if shared >= known + MIN_SHARED and self._will_be_shared(other, shared):
                return True
        return False

    def _will_be_shared(self, request: Request, n: int) -> bool:
        """Whether others can go on from the first ``n`` tokens of a request's prompt once it has evaluated them."""
        assert request.sequence is not None
        return self._kv_cache.drops_tails or self._kv_cache.plan_checkpoint(request.sequence, n)

    def _make_place(self, request: Request) -> bool:
        """Have a context with room for one more request; return whether there is."""
        running = self._scheduler.running
        if self._kv_cells is not None:
            self._context.ensure(self._kv_cells, preferred_n_ctx=self._kv_cells, n_batch=request.config.n_batch)
            return not running or self._has_cells_for(request)
        reserved = sum(other.reserved for other in (*running, request))
        needed = max(reserved, request.config.n_ctx or 0)
        try:
            self._context.ensure(
                needed, preferred_n_ctx=self._preferred_n_ctx(reserved, request), n_batch=request.config.n_batch
            )
        except ContextMemoryError:
            if running:
                return False
            raise
        if request.conversation is not None and request.config.n_ctx is None:
            self._make_room_for_idle(request)
        return True

    def _has_cells_for(self, request: Request) -> bool:
        """Whether one more request can run in as many cells as there are, and all of them go on for a while."""
        tokens, shareable = request.all_tokens, request.conversation is not None
        needed, available = self._kv_cache.cells_for(
            tokens, request.own_sequence, shareable=shareable, adapters=request.adapters.key
        )
        return needed + 1 + HEADROOM * len(self._scheduler.running) <= available

    def _make_room_for_idle(self, request: Request) -> None:
        """Replace a small context rather than have conversations that take turns drive each other out of it."""
        limit = self._kv_cache.idle_cells_max
        needed = sum(other.most_tokens for other in (*self._scheduler.running, request))
        wanted = min(needed + self._kv_cache.idle_tokens(but=request.own_sequence), limit)
        with suppress(ContextMemoryError, ContextError):  # then they do drive each other out
            self._context.ensure(
                wanted, preferred_n_ctx=min(2 * self._context.n_ctx, limit), n_batch=request.config.n_batch
            )

    def _preferred_n_ctx(self, n_ctx: int, request: Request) -> int:
        """Return the size of a new context, for ``n_ctx`` tokens of those that run, that need not be replaced soon."""
        running = [*self._scheduler.running, request]
        others = (other for other in self._scheduler.next_waiting() if other is not request)
        soon = list(islice(others, max(0, self._scheduler.n_parallel - len(running))))
        n_ctx += sum(other.required or request.required for other in soon)
        if any(other.config.n_ctx is None for other in running):
            n_ctx += self._kv_cache.idle_tokens(but=request.own_sequence)
        most = sum(other.config.n_ctx or self._model.n_ctx_train for other in running)
        return max(n_ctx, min(2 * self._context.n_ctx, most))

    def _start(self, request: Request) -> None:
        """Give a request a sequence, with as much of its prompt as is known already."""
        kv_cache, conversation = self._kv_cache, request.conversation
        own = request.own_sequence
        self._alone = None
        if not self._scheduler.running:
            if conversation is None and own is None:
                self._begin_alone(request)
            kv_cache.compact(own)
        shareable, adapters = conversation is not None, request.adapters.key
        lease = kv_cache.open(request.all_tokens, own, shareable=shareable, adapters=adapters)
        request.release_sequence()  # it has one if it ran before, or follows another request
        request.lease, sequence = lease, lease.sequence
        if conversation is not None:
            if own is not sequence:
                before, conversation.lease = conversation.lease, kv_cache.keep(sequence)
                if before is not None:
                    before.release()
            kv_cache.plan_checkpoint(sequence, len(request.prompt) - 1)
        if request.n_reused is None:
            request.n_reused = len(sequence.tokens)
            self._stats.prompt_tokens_reused += request.n_reused
        self._scheduler.start(request)

    def _begin_alone(self, request: Request) -> None:
        """Let a request without a conversation have the same text, whatever ran before and is beside it."""
        if self._kv_cache.begin_in_order(request.most_tokens):
            self._alone = request
            return
        while self._kv_cache.move_away():
            pass  # so that it gets the same cells

    # --- a step

    def _step(self) -> None:
        """Evaluate one batch and give every request that is due its next token."""
        if self._context.context is None:  # there was no memory for a larger one, nor for the old one again
            self._put_all_back()
            return
        n_batch = self._make_room()
        context, batch = self._context.context, self._context.batch
        chunks = self._next_batch(n_batch)
        if context is None or not chunks:
            return
        batch.clear()
        samplers: list[tuple[int, LlamaSampler]] = []
        owners: list[Request] = []
        probed: set[Request] = set()  # adapters may compute nonsense: it has to be found before others are beside it
        for request, tokens, sample in chunks:
            assert request.sequence is not None
            assert request.sequence.seq_id is not None
            probe = not sample and bool(request.adapters.key)
            batch.add_sequence(tokens, request.n_evaluated, request.sequence.seq_id, sample or probe)
            if probe:
                samplers.append((len(batch) - 1, self._probe))
                owners.append(request)
                probed.add(request)
            for owner in (request, *self._followers(request)) if sample else ():
                assert owner.sampler is not None
                samplers.append((len(batch) - 1, owner.sampler))
                owners.append(owner)
        if not self._may_decode(context):
            return
        self._context.use(chunks[0].request.adapters)
        started = perf_counter()
        status, sampled, errors = context.decode_and_sample(batch, samplers)
        if status == 0:
            n_generating = sum(bool(request.tokens) and len(tokens) == 1 for request, tokens, _ in chunks)
            self._scheduler.pace.note(n_generating, len(batch) - n_generating, perf_counter() - started)
        self._stats.steps += 1
        self._stats.tokens_decoded += len(batch)
        if status == ABORTED:
            self._resync_after_abort(chunks)
            self._purge_aborted(chunks)
        elif status == NO_SPACE:
            self._give_way()
        else:
            results: dict[Request, _Sampled] = {}
            nonsense: list[CachedSequence | None] = []
            for i, (owner, token) in enumerate(zip(owners, sampled, strict=True)):
                index, n_top = samplers[i][0], owner.config.logprobs
                if i in errors:
                    results[owner] = _Sampled(token, failure=_failure(errors[i]))
                    if math.isnan(context.get_logprobs_ith(index, 0)[0]):
                        nonsense.append(owner.sequence)
                elif owner in probed:
                    continue
                elif n_top is None:
                    results[owner] = _Sampled(token)
                else:
                    results[owner] = _Sampled(token, read_logprobs(context, self._vocab, index, token, n_top))
            self._advance(chunks, results)
            if nonsense:
                self._kv_cache.purge(sequence for sequence in nonsense if sequence is not None)

    def _next_batch(self, n_batch: int) -> list[Chunk]:
        """Return what to evaluate next; where all of it must have the same length, the lengths take turns."""
        chunks = list(self._scheduler.next_batch(n_batch))
        if not chunks or not self._kv_cache.one_length:
            return chunks
        lengths = sorted({len(chunk.tokens) for chunk in chunks})
        length = lengths[self._stats.steps % len(lengths)]
        return [chunk for chunk in chunks if len(chunk.tokens) == length]

    def _make_room(self) -> int:
        """Have free cells for the next token of every running request; return how many tokens the batch may have."""
        scheduler, kv_cache = self._scheduler, self._kv_cache
        kv_cache.limit_idle()
        while not kv_cache.make_room(len(scheduler.running)):
            if not self._grow():
                self._give_way()
        wanted = min(self._context.batch.capacity, sum(request.pending for request in scheduler.running))
        kv_cache.make_room(wanted)
        if self._alone in scheduler.running and self._alone.sequence is not None and kv_cache.cells_left:
            kv_cache.put_in_order(self._alone.sequence)
        return min(self._context.batch.capacity, kv_cache.free_cells)

    def _grow(self, *, at_once: bool = False) -> bool:
        """Replace the context by a larger one if a running request may have more; return whether that was done.

        Args:
            at_once: Try although it has just failed.
        """
        running, n_ctx = self._scheduler.running, self._context.n_ctx
        if self._kv_cells is not None or not any(request.grows for request in running):
            return False
        least = n_ctx + max(n_ctx // LEAST_GROWTH, len(running))
        wanted = sum(request.reserved_next for request in running)
        try:
            self._context.ensure(
                least, preferred_n_ctx=max(wanted, least), n_batch=self._context.batch.capacity, at_once=at_once
            )
        except (ContextMemoryError, ContextError):
            return False
        for request in running:
            request.grow()
        return True

    def _give_way(self) -> None:
        """Without space for all: the newest request waits; a single one ends as at the end of its context."""
        if self._kv_cache.evict():
            return
        newest = self._scheduler.running[-1]
        if len(self._scheduler.running) > 1:
            self._put_back(newest)
        elif self._kv_cache.free_cells > 0 or not self._grow(at_once=True):
            self._retire(newest, "length")

    def _put_back(self, request: Request) -> None:
        """Let a running request wait again; what it has evaluated moves to host memory."""
        assert request.lease is not None
        self._kv_cache.preempt(request.lease)
        if request.conversation is not None:  # the conversation keeps it
            request.release_sequence()
        self._scheduler.put_back(request)

    def _put_all_back(self) -> None:
        """Let all running requests wait, in their order, for a context that there is memory for."""
        for request in reversed(self._scheduler.running):
            self._put_back(request)

    def _resync_after_abort(self, chunks: list[Chunk]) -> None:
        """After an aborted decode: note what of it was evaluated."""
        for request, tokens, _ in chunks:
            assert request.sequence is not None
            self._kv_cache.resync_after_abort(request.sequence, tokens)
        if not self._nobody_waits():
            raise DecodeError("llama.cpp aborted the decode")

    def _purge_aborted(self, chunks: list[Chunk]) -> None:
        """End the cancelled requests of an aborted step with adapters, and wipe what it computed.

        Only a step that ends is checked for values that are not finite, and those must not stay in the context.
        """
        if not chunks[0].request.adapters.key:
            return
        sequences = [request.sequence for request, _, _ in chunks if request.sequence is not None]
        for request in list(self._scheduler.running):
            self._retire(request, "cancelled")
        self._kv_cache.purge(sequences)

    def _advance(self, chunks: list[Chunk], results: dict[Request, _Sampled]) -> None:
        """Note what was evaluated and sampled."""
        for request, tokens, _ in chunks:
            assert request.sequence is not None
            of_prompt = min(len(tokens), max(0, len(request.prompt) - request.n_evaluated))
            self._stats.prompt_tokens_evaluated += of_prompt
            self._kv_cache.append(request.sequence, tokens)
        for request, _, _ in chunks:
            if request.followers and request.pending == 0:
                self._release_followers(request)
        for request, result in results.items():
            self._accept(request, result)
        for request, _, _ in chunks:
            if request.pending == 0 and request.finish_reason is None:  # a prompt without an answer
                self._retire(request, "length")

    def _accept(self, request: Request, result: _Sampled) -> None:
        token = result.token
        if result.failure is not None:
            self._retire(request, result.failure)
            return
        self._stats.tokens_generated += 1
        last, preserved = token in self._eog, token in request.preserved
        piece = b"" if last and not preserved else self._vocab.token_to_piece(token, special=preserved)
        if not request.accept(token, piece, last=last, logprob=result.logprob):
            self._retire(request, request.finish_reason)

    # --- requests with the same prompt

    def _followers(self, leader: Request) -> list[Request]:
        """Start the requests that sample their first token from the same logits."""
        for request in leader.followers:
            request.resolve()
            request.start()
        return leader.followers

    def _release_followers(self, leader: Request) -> None:
        """Let the followers of a request go on from its prompt, which has been evaluated."""
        assert leader.sequence is not None
        if leader.wants_tokens and leader.followers:
            with self._kv_cache.branch(leader.sequence, shareable=False) as lease:
                self._hand_on(lease.sequence, leader.followers)
        for request in leader.followers:
            request.leader = None
            self._scheduler.release(request)
            if not leader.wants_tokens:
                self._retire(request, "length")
        leader.followers = []

    def _hand_on(self, prompt: CachedSequence, requests: list[Request]) -> None:
        """Let requests go on from a copy of their prompt. Where it could not be copied, it is empty."""
        for request in requests:
            request.lease = self._kv_cache.keep(prompt)
            if prompt.tokens:
                request.n_reused = len(request.prompt)
                self._stats.prompt_tokens_reused += request.n_reused

    def _lead_on(self, leader: Request) -> None:
        """The leader has ended before its prompt was evaluated: the next one takes its place."""
        if leader.followers:
            first, *others = leader.followers
            first.leader, first.followers = None, others
            self._scheduler.release(first)
            for request in others:
                request.leader = first
            leader.followers = []
        if leader.leader is not None:
            leader.leader.followers.remove(leader)
            leader.leader = None

    # --- ends

    def _retire(self, request: Request, why: FinishReason | Exception | None) -> None:
        """End a request, whatever it was doing, and give back what it had."""
        if isinstance(why, Exception):
            request.fail(why)
        elif why is not None:
            request.finish(why)
        self._lead_on(request)
        request.release_sequence()
        self._scheduler.remove(request)
        request.close(self._vocab)

    def _nobody_waits(self) -> bool:
        return self._stopping or all(request.cancelled for request in self._scheduler.running)

    @property
    def _in_flight(self) -> LlamaContext | None:
        return self._context.context if self._scheduler.running else None
