"""The one thread that calls ``llama_decode``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from ..config import ModelConfig
from ..errors import DecodeError, ImageError
from ..llama.llama_cpp import LlamaContext, LlamaModel, LlamaSampler
from ..response import FinishReason
from .adapters import AdapterKey
from .admission import Admission
from .batch import DONE, NO_SPACE, Batch, Row, Sample
from .capacity import Capacity
from .cells import CellShare
from .context import GenerationContext
from .context_params import in_host_memory
from .conversation import Conversation
from .draft_context import DraftModel
from .encoder import ImageEncoder
from .group import Groups
from .kept_prefixes import KeptPrefixes
from .log import EngineLogger
from .messages import Adopt, CachedState, Check, Forget, Message, Pause, Save, Share, Submit, Wake
from .model_drafter import ModelDrafter
from .model_drafts import ModelDrafts
from .request import Request, Status
from .scheduler import Scheduler
from .stats import Stats
from .tuning import CHUNK
from .worker import Worker

T = TypeVar("T")

logger = EngineLogger(__name__)


class Engine(Worker[Message]):
    """A thread that takes requests and generates, and the context it does so in. Both end with :meth:`stop`.

    llama.cpp is fastest when the same thread decodes for the whole life of a context. So callers put messages into an
    inbox, and get text from outlets.
    """

    def __init__(
        self,
        model: LlamaModel,
        config: ModelConfig,
        stats: Stats,
        predecessor: Engine | None = None,
        draft: DraftModel | None = None,
        encoder: ImageEncoder | None = None,
    ) -> None:
        """Start the thread, which waits for ``predecessor`` to end first.

        Args:
            model: The model.
            config: How it was loaded.
            stats: What is counted.
            predecessor: The engine before this one.
            draft: What may draft tokens.
            encoder: Encodes the images of prompts, if the model has a projector.
        """
        super().__init__("cyllama-engine", predecessor)
        self._vocab = model.vocab
        self._eog = frozenset(self._vocab.eog_tokens())
        self._stats = stats
        self._unfinished: dict[Request, None] = {}  # requests that were submitted and have not ended
        self._cancelled: SimpleQueue[Request] = SimpleQueue()
        self._groups = Groups()
        self._encoder = encoder
        self._context = GenerationContext(model, config, stats, least_batch=0 if encoder is None else config.n_ubatch)
        self._drafts: ModelDrafts | None = None
        if draft is not None:
            self._drafts = ModelDrafts(draft, config.n_parallel, self._context, model, stats, self._may_decode)
        chunk = CHUNK if in_host_memory(config, model) else config.n_ubatch
        self._scheduler = Scheduler(config.n_parallel, chunk, self._drafts)
        self._kv_cache = self._context.kv_cache
        self._kept_prefixes = KeptPrefixes(self._kv_cache)
        self._capacity = Capacity(self._context, self._scheduler, fixed=config.kv_cells is not None)
        self._admission = Admission(self._context, stats, n_ctx_train=model.n_ctx_train, kv_cells=config.kv_cells)
        self._probe = LlamaSampler.greedy()
        self.start()

    # --- what other threads call

    def submit(self, *requests: Request) -> None:
        """Hand over a request, whose text comes out of the outlet of its answer. Doing so twice is doing so once.

        Args:
            *requests: One request, or several with the same prompt, which the first one evaluates for all.
        """
        self._unfinished |= dict.fromkeys(requests)
        self._inbox.put(Submit(requests))

    def cancel(self, request: Request) -> None:
        """Make a request end within one step, and not only after the current one if it runs alone."""
        request.cancelled = True
        self._cancelled.put(request)
        self._inbox.put(Wake())  # it may wait for an image
        self._abort_if_unwanted()

    def share(self, source: Conversation, target: Conversation) -> None:
        """Let a new conversation go on from what the KV cache has of another."""
        self._inbox.put(Share(source, target))

    def adopt(self, conversation: Conversation, tokens: list[int], state: bytes, adapters: AdapterKey = ()) -> None:
        """Let a new conversation go on from a state that was saved."""
        self._inbox.put(Adopt(conversation, tokens, state, adapters))

    def forget(self, conversation: Conversation) -> None:
        """End the generations of a conversation that was forgotten, and give back what the KV cache has of it."""
        self._inbox.put(Forget(conversation))
        self._abort_if_unwanted()

    def save(self, conversation: Conversation) -> Future[CachedState]:
        """Ask for what the KV cache has of a conversation."""
        message = Save(conversation)
        self._inbox.put(message)
        return message.reply

    def free_unloaded_adapters(self) -> None:
        """Free the adapters that were unloaded, as soon as no request generates with them."""
        self._inbox.put(Wake())

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where what is recorded of requests and sequences is wrong."""
        message = Check()
        self._inbox.put(message)
        message.reply.result()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the engine's thread do nothing for a while, so that what arrives meanwhile is taken together."""
        message = Pause()
        self._inbox.put(message)
        message.reached.wait()
        try:
            yield
        finally:
            message.resume.set()

    @property
    def n_unfinished(self) -> int:
        """How many requests have not ended, of those that a caller still waits for."""
        return sum(not request.is_unwanted for request in list(self._unfinished))

    @property
    def occupancy(self) -> dict[str, int]:
        """What of :class:`Stats` is true at this moment only."""
        statuses = [request.status for request in list(self._unfinished)]
        return {
            "running": sum(status is Status.RUNNING for status in statuses),
            "waiting": sum(status in (Status.NEW, Status.WAITING) for status in statuses),
            "kept_prefixes": len(self._kept_prefixes),
            "kv_cells_used": self._kv_cache.used_cells,
            "host_bytes": self._kv_cache.host_bytes,
        }

    @property
    def cell_shares(self) -> dict[int, CellShare]:
        """Cells of each sequence in the context, by its id."""
        return self._kv_cache.cell_shares

    # --- the engine's thread: the loop

    def _iterate(self) -> None:
        """Take what has arrived and do one step."""
        try:
            if self._receive():
                self._step()
        except Exception as error:  # no caller may wait forever, and the next request starts from scratch
            logger.debug("a step failed", exc_info=True)
            self._release_contexts()
            for request in list(self._scheduler.running):
                self._retire(request, error)

    def _receive(self) -> bool:
        """Take what has arrived, waiting for it if there is nothing to do. Return whether there is a step to do."""
        while not self._stopping:
            self._empty_inbox()
            self._retire_cancelled()
            self._admit()
            if self._scheduler.running:
                return not self._stopping
            self._context.release_unloaded_adapters()
            if self._inbox.empty() and not self._scheduler.n_waiting:  # one may wait whose predecessor just failed
                self._wait_for_one()
        return False

    def _take(self, item: Message) -> None:
        match item:
            case Submit(requests):
                self._take_requests(requests)
            case Share(source, target):
                if source.sequence is not None and target.lease is None:  # if forgotten since, Forget follows
                    target.hold(self._kv_cache.keep(source.sequence))
            case Adopt(conversation, tokens, state, adapters):
                if conversation.lease is None:  # if forgotten since, Forget follows
                    conversation.hold(self._kv_cache.adopt(tokens, state, adapters, scope=conversation.scope))
            case Forget(conversation):
                for request in self._scheduler.unfinished(conversation):
                    self._retire(request, "cancelled")
                conversation.hold(None)
                if self._drafts is not None:
                    self._drafts.release(conversation)
            case Save(conversation, reply):
                _answer(reply, lambda: self._save(conversation))
            case Check(reply):
                _answer(reply, self._check_integrity)
            case Pause(reached, resume):
                reached.set()
                resume.wait()
            case Wake():
                pass  # _receive() looks for them before it waits

    def _take_requests(self, requests: tuple[Request, ...]) -> None:
        new = [request for request in requests if request.status is Status.NEW]
        self._groups.add(new)
        for request in new:
            self._scheduler.add(request, has_leader=self._groups.has_leader(request))
        for request in requests:
            if request.status is Status.FINISHED:  # it was submitted twice, and ended meanwhile
                self._unfinished.pop(request, None)
            elif request.cancelled:  # perhaps before it arrived
                self._cancelled.put(request)

    def _save(self, conversation: Conversation) -> CachedState:
        return ([], None, ()) if conversation.sequence is None else self._kv_cache.save(conversation.sequence)

    def _check_integrity(self) -> None:
        self._kv_cache.check_integrity()
        extended = [request.sequence for request in self._scheduler.running]
        assert len(set(extended)) == len(extended), "two requests extend the same sequence"
        assert set(extended) == set(self._kv_cache.running), "the sequences that are running are not those of requests"
        if self._drafts is not None:
            self._drafts.check_integrity(list(self._unfinished))

    def _retire_cancelled(self) -> None:
        while True:
            try:
                request = self._cancelled.get_nowait()
            except Empty:
                return
            if request in self._scheduler:
                self._retire(request, "cancelled")

    def _admit(self) -> None:
        for request, error in self._scheduler.admit(self._admission, self._capacity.pause):
            self._retire(request, error)

    def _end(self) -> None:
        for request in self._scheduler.drain():
            request.finish("cancelled")
            self._unfinished.pop(request, None)
            request.close(self._vocab)
        self._release_contexts()

    def _release_contexts(self) -> None:
        self._context.release()
        if self._drafts is not None:
            self._drafts.close()

    # --- a step

    def _step(self) -> None:
        """Schedule a batch, run it, and give every request that is due its next token."""
        batch, context = self._schedule(), self._context.context
        if batch is None or context is None or not self._may_decode(context):
            return
        self._context.use(batch.adapters)
        status = batch.run(context, self._vocab)
        self._stats.steps += 1
        self._stats.tokens_decoded += batch.n_tokens
        if status == DONE:
            self._postprocess(batch)
        elif status == NO_SPACE:
            self._finish_exhausted(self._capacity.free_cells_or_preempt())
        else:
            self._resync_after_abort(batch)

    def _schedule(self) -> Batch | None:
        """Free cells for a batch, and choose its rows; ``None`` if there is nothing to evaluate."""
        if self._context.context is None:  # there was no memory for a larger one, nor for the old one again
            self._capacity.preempt_all()
            return None
        while (exhausted := self._capacity.free_cells_for_next_tokens()) is not None:
            self._finish_exhausted(exhausted)
        self._see_to_images()
        n_batch = self._capacity.free_cells_for_prompts()
        rows = self._next_batch(n_batch)
        if not rows:
            self._wait_for_images()
        if not rows or self._context.context is None:
            return None
        batch = Batch(self._context.batch, self._probe)
        for row in rows:
            batch.add(row, self._groups.start_followers(row.request) if row.outputs and self._groups else ())
        return batch

    def _see_to_images(self) -> None:
        """Have the images encoded that running requests will evaluate, and end requests whose image cannot be."""
        if self._encoder is None:
            return
        for request in list(self._scheduler.running):
            pending = request.pending_images
            for image in pending:
                if image.key not in request.embeddings:
                    found = self._encoder.embeddings(image, request.scope, _waiting(request))
                    request.embeddings[image.key] = found
                    found.add_done_callback(lambda _: self._inbox.put(Wake()))
            for key in request.embeddings.keys() - {image.key for image in pending}:
                del request.embeddings[key]  # evaluated
            failed = next((each for each in request.embeddings.values() if each.done() and each.exception()), None)
            if failed is not None:
                self._retire(request, ImageError(str(failed.exception())))

    def _wait_for_images(self) -> None:
        """Wait for an image that is being encoded; where one has too few free cells instead, free some."""
        running = self._scheduler.running
        if any(request.waits_for_image for request in running):
            self._wait_for_one()
        elif any(request.image_run is not None for request in running):
            self._finish_exhausted(self._capacity.free_cells_or_preempt())

    def _next_batch(self, n_batch: int) -> list[Row]:
        """Return what to evaluate next; where all rows must have the same length, the lengths alternate."""
        rows = list(self._scheduler.next_batch(n_batch))
        if not rows or not self._kv_cache.one_length:
            return rows
        lengths = sorted({len(row.tokens) for row in rows})
        length = lengths[self._stats.steps % len(lengths)]
        return [row for row in rows if len(row.tokens) == length]

    def _postprocess(self, batch: Batch) -> None:
        """Note what was evaluated, and give requests what was sampled."""
        n_prompt = batch.n_tokens - batch.n_generating - batch.n_drafted
        self._scheduler.pace.note(batch.n_generating, n_prompt, batch.seconds, n_drafted=batch.n_drafted)
        if self._drafts is not None:
            self._settle(self._drafts, batch)
        self._stats.tokens_drafted += batch.n_drafted
        for request, tokens, outputs in batch.rows:
            assert request.lease is not None
            sequence = request.lease.sequence
            request.answer.n_drafted += max(0, len(outputs) - 1)
            of_prompt = min(len(tokens), max(0, len(request.prompt) - len(sequence.tokens)))
            self._stats.prompt_tokens_evaluated += of_prompt
            self._kv_cache.append(sequence, tokens, n_wrong=batch.n_wrong.get(request, 0))
        if self._groups:
            self._release_followers(batch)
        for sample in batch.samples:
            self._accept(sample)
        for request, _, _ in batch.rows:
            if not request.wants_tokens and request.pending == 0 and request.finish_reason is None:
                self._retire(request, "length")
        if batch.not_finite:
            self._kv_cache.purge(batch.not_finite)

    def _settle(self, drafts: ModelDrafts, batch: Batch) -> None:
        """Count what the draft model has done for a batch."""
        by_model = {row.request for row in batch.rows if isinstance(row.request.drafter, ModelDrafter)}
        if not by_model:
            return
        n_accepted = sum(sample.is_drafted for sample in batch.samples if sample.request in by_model)
        n_drafted = sum(max(0, len(row.outputs) - 1) for row in batch.rows if row.request in by_model)
        self._stats.model_tokens_drafted += n_drafted
        plain = self._scheduler.pace.steps.seconds(batch.n_generating)
        drafts.settle(batch.n_generating, n_drafted, n_accepted, batch.seconds, plain)

    def _accept(self, sample: Sample) -> None:
        request, token, is_drafted, logprob, failure = sample
        if request.finish_reason is not None:  # with a token before this one
            return
        if failure is not None:
            self._retire(request, failure)
            return
        self._stats.tokens_generated += 1
        self._stats.tokens_accepted += is_drafted
        self._stats.model_tokens_accepted += is_drafted and isinstance(request.drafter, ModelDrafter)
        request.answer.n_accepted += is_drafted
        if not request.accept(token, self._vocab, last=token in self._eog, logprob=logprob):
            self._retire(request, request.finish_reason)

    def _release_followers(self, batch: Batch) -> None:
        """Let the followers of requests whose prompt was evaluated go on from it."""
        for leader in [request for request, _, _ in batch.rows if request.pending == 0]:
            for request in self._groups.share_prompt(leader, self._kv_cache):
                self._stats.prompt_tokens_reused += request.n_reused or 0
                self._scheduler.release(request)
                if not leader.wants_tokens:
                    self._retire(request, "length")

    def _resync_after_abort(self, batch: Batch) -> None:
        """Find out what an aborted decode has evaluated.

        With adapters, that may not be finite: only a step that ends is checked for it. Then the requests end, and what
        they have in the context is wiped.
        """
        for request, tokens, _ in batch.rows:
            assert request.sequence is not None
            self._kv_cache.resync_after_abort(request.sequence, tokens)
        if not self._is_unwanted():
            raise DecodeError("llama.cpp aborted the decode")
        if batch.adapters.key:
            sequences = [request.sequence for request, _, _ in batch.rows if request.sequence is not None]
            for request in list(self._scheduler.running):
                self._retire(request, "cancelled")
            self._kv_cache.purge(sequences)

    # --- ends

    def _finish_exhausted(self, request: Request | None) -> None:
        """End a request for which there are no more cells, as at the end of its context."""
        if request is not None:
            self._retire(request, "length")

    def _retire(self, request: Request, why: FinishReason | Exception | None) -> None:
        """End a request, whatever it was doing, and give back what it had."""
        if isinstance(why, Exception):
            request.fail(why)
        elif why is not None:
            request.finish(why)
        promoted = self._groups.remove(request)
        if promoted is not None:
            self._scheduler.release(promoted)
        self._scheduler.remove(request)
        if request.own_sequence is not None:
            request.own_sequence.awaited = False
        self._kept_prefixes.keep(request)
        request.hold(None)
        if self._drafts is not None:
            self._drafts.release(request)
        self._unfinished.pop(request, None)  # first, so that its caller finds the place free
        request.close(self._vocab)

    def _is_unwanted(self) -> bool:
        return self._stopping or all(request.is_unwanted for request in self._scheduler.running)

    @property
    def _decoding(self) -> LlamaContext | None:
        if self._drafts is not None and (drafting := self._drafts.decoding) is not None:
            return drafting
        return self._context.context if self._scheduler.running else None


def _waiting(request: Request) -> Callable[[], bool]:
    """Return what tells whether a request still runs."""
    return lambda: request.finish_reason is None and not request.is_unwanted


def _answer(reply: Future[T], function: Callable[[], T]) -> None:
    """Give what a function returns or raises to the thread that waits for it."""
    try:
        reply.set_result(function())
    except Exception as error:  # the caller's to handle
        reply.set_exception(error)
