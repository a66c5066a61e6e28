"""The one thread that calls ``llama_decode``."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from ..config import ModelConfig
from ..errors import DecodeError
from ..llama.llama_cpp import LlamaModel
from .context import GenerationContext
from .request import Request
from .scheduler import Scheduler
from .stats import Stats

NO_SPACE, ABORTED = 1, 2  # what LlamaContext.decode returns besides 0


class Engine:
    """A thread that takes requests and generates, and the context it does so in. Both end with :meth:`stop`.

    llama.cpp is fastest when one thread decodes for the whole life of a context, whoever asks. Requests come in, and
    text goes out, through queues, which are safe to use from finalizers and signal handlers.
    """

    def __init__(self, model: LlamaModel, config: ModelConfig, stats: Stats, predecessor: Engine | None = None) -> None:
        """Start the thread. It waits for ``predecessor`` to end first, so that two contexts never exist at once."""
        self._vocab = model.vocab
        self._eog = frozenset(self._vocab.eog_tokens())
        self._stats = stats
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self._scheduler = Scheduler()
        self._context = GenerationContext(model, config, stats)
        self._stopping = False
        self._abort_lock = threading.RLock()  # between deciding to abort a decode and doing it, no other may begin
        self._thread = threading.Thread(target=self._run, args=(predecessor,), name="cyllama-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Hand over a request. Its text comes out of :attr:`Request.chunks`."""
        self._inbox.put(request)

    def cancel(self, request: Request) -> None:
        """Make a request end within one step, and not only after the current one if it runs alone."""
        request.cancelled = True
        self._abort_if_unwanted()

    def stop(self) -> None:
        """Cancel all requests, release the context, end the thread. Returns when that is done.

        Only on the engine's own thread, where a finalizer may call this, it cannot be waited for.
        """
        self._stopping = True
        self._inbox.put(None)
        self._abort_if_unwanted()
        self.join()

    def join(self) -> None:
        """Wait for the thread to end, unless called by it."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- the engine's thread

    def _run(self, predecessor: Engine | None) -> None:
        if predecessor is not None:
            predecessor.join()
        try:
            while self._receive():
                self._step_safely()
        finally:
            for request in self._scheduler.drain():
                request.finish("cancelled")
            self._context.release()

    def _receive(self) -> bool:
        """Take what has come in, waiting for it if there is nothing to do. Return whether to go on."""
        while not self._stopping:
            for request in self._scheduler.drop_cancelled():
                request.finish("cancelled")
            self._admit()
            try:
                request = self._inbox.get(block=not self._scheduler.running)
            except Empty:
                return True
            if request is not None:
                self._scheduler.add(request)
        while (request := self._next_in_inbox()) is not None:
            self._scheduler.add(request)
        return False

    def _next_in_inbox(self) -> Request | None:
        while True:
            try:
                request = self._inbox.get_nowait()
            except Empty:
                return None
            if request is not None:
                return request

    def _admit(self) -> None:
        """Give waiting requests whose turn has come a place to run in."""
        while (request := self._scheduler.admit()) is not None:
            try:
                self._context.prepare(
                    request.n_ctx_required, fixed=request.config.n_ctx is not None, n_batch=request.config.n_batch
                )
                request.start()
            except Exception as error:  # the caller's to handle: the thread goes on
                request.fail(error)
                self._scheduler.remove(request)

    def _step_safely(self) -> None:
        try:
            self._step()
        except Exception as error:  # whatever failed, nobody may wait forever, and the next request starts afresh
            for request in list(self._scheduler.running):
                request.fail(error)
                self._scheduler.remove(request)
            self._context.release()

    def _step(self) -> None:
        """Evaluate one batch and give every request that is due its next token."""
        context, batch, kv_cache = self._context.context, self._context.batch, self._context.kv_cache
        assert context is not None
        assert kv_cache is not None
        chunks = list(self._scheduler.next_batch(batch.capacity))
        batch.clear()
        samplers = []
        for request, tokens, sample in chunks:
            batch.add_sequence(tokens, request.n_evaluated, kv_cache.SEQUENCE, sample)
            if sample:
                assert request.sampler is not None
                samplers.append((len(batch) - 1, request.sampler))
        with self._abort_lock:
            context.clear_abort()
            if self._nobody_waits():  # cancelled after the last look, before the flag was cleared
                return
        status, sampled = context.decode_and_sample(batch, samplers)
        if status == ABORTED and self._nobody_waits():
            return  # the next request starts with an empty cache
        if status == ABORTED:
            raise DecodeError("llama.cpp aborted the decode")
        if status == NO_SPACE:
            raise DecodeError("the KV cache has no space left")
        tokens_sampled = iter(sampled)
        for request, tokens, sample in chunks:
            kv_cache.append(tokens)
            self._advance(request, tokens, next(tokens_sampled) if sample else None)

    def _advance(self, request: Request, tokens: list[int], token: int | None) -> None:
        if not request.prompt_is_evaluated:
            self._stats.prompt_tokens_evaluated += len(tokens)
        request.n_evaluated += len(tokens)
        if token is not None:
            self._stats.tokens_generated += 1
            piece = None if token in self._eog else self._vocab.token_to_piece(token)
            if not request.accept(token, piece):
                self._scheduler.remove(request)
        elif request.prompt_is_evaluated:
            request.finish("length")
            self._scheduler.remove(request)

    def _nobody_waits(self) -> bool:
        return self._stopping or all(request.cancelled for request in self._scheduler.running)

    def _abort_if_unwanted(self) -> None:
        """Abort the decode in flight if nobody waits for its outcome. Called from any thread."""
        with self._abort_lock:
            context = self._context.context
            if context is not None and self._scheduler.running and self._nobody_waits():
                context.abort()
