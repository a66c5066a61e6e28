"""The context that embeddings are computed in, and the thread that does so."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import NamedTuple, cast

from ..config import ModelConfig
from ..errors import (
    ContextError,
    ContextMemoryError,
    CyllamaError,
    DecodeError,
    EmbeddingCancelledError,
)
from ..llama.llama_cpp import (
    GGMLType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaPoolingType,
)
from .context import create_context
from .context_params import context_params, gib, kv_cache_bytes, padded
from .hardware import available_memory
from .log import EngineLogger
from .memory import memory_of
from .stats import Stats
from .tuning import LEAST_PIECE, LOGITS_BYTES
from .worker import Worker

logger = EngineLogger(__name__)


# --- calls


class EmbeddingJob:
    """The texts of one call.

    Attributes:
        texts: Their token ids.
        normalize: Scale every vector to the length 1.
        future: Has the vectors when all of them are there. Cancelling it ends the call.
        started: Whether some of them have been computed.
    """

    def __init__(self, texts: list[list[int]], *, normalize: bool) -> None:
        self.texts = texts
        self.normalize = normalize
        self.future: Future[list[list[float]]] = Future()
        self.started = False
        self._vectors: list[list[float]] = [[]] * len(texts)
        self._left = len(texts)
        self._order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # not taken yet, longest last
        self._lengths = [len(texts[i]) for i in self._order]

    @property
    def longest(self) -> int:
        """Tokens of the longest text that is not computed yet; 0 if there is none."""
        return self._lengths[-1] if self._lengths else 0

    def take(self, n_tokens: int) -> int | None:
        """Return the index of the longest text that has at most so many tokens, which is not to be returned again."""
        i = bisect_right(self._lengths, n_tokens) - 1
        if i < 0:
            return None
        del self._lengths[i]
        return self._order.pop(i)

    def deliver(self, index: int, vector: list[float]) -> None:
        """Note the vector of a text."""
        length = math.hypot(*vector)
        if not math.isfinite(length):
            raise DecodeError(f"what the model computed for text {index} is no number: its weights may be damaged")
        self._vectors[index] = [x / length for x in vector] if self.normalize and length else vector
        self._left -= 1

    def finish(self) -> None:
        """Let the caller have the vectors, if they are all there."""
        if not self._left and self.future.set_running_or_notify_cancel():
            self.future.set_result(self._vectors)

    def fail(self, error: Exception) -> None:
        """Let the caller have an error instead."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def cancel_error(self) -> EmbeddingCancelledError:
        """Return what a call fails with that close() or reset_context() ended."""
        done = len(self.texts) - self._left
        return EmbeddingCancelledError(f"the context was closed after {done} of {len(self.texts)} texts")


class _Place(NamedTuple):
    """A text of a call in a pass, where its index is the id of its sequence."""

    job: EmbeddingJob
    text: int

    @property
    def tokens(self) -> list[int]:
        """Its token ids."""
        return self.job.texts[self.text]


class _Piece(NamedTuple):
    """Tokens of a text that are evaluated in one step.

    Attributes:
        seq_id: Which text of the pass it belongs to.
        start: Where it begins there.
        tokens: Its token ids.
    """

    seq_id: int
    start: int
    tokens: list[int]


def _pieces(texts: Iterable[list[int]], size: int) -> Iterator[list[_Piece]]:
    """Divide texts into steps of at most ``size`` tokens in all."""
    step: list[_Piece] = []
    left = size
    for seq_id, tokens in enumerate(texts):
        start = 0
        while start < len(tokens):
            piece = _Piece(seq_id, start, tokens[start : start + left])
            step.append(piece)
            start += len(piece.tokens)
            left -= len(piece.tokens)
            if left == 0:
                yield step
                step, left = [], size
    if step:
        yield step


# --- the engine


class Embedder(Worker[EmbeddingJob]):
    """A thread that computes embeddings, and the context it does so in. Both end with :meth:`stop`.

    A pass evaluates many texts side by side, of several calls if there are. Calls take turns in leading a pass, so that
    a short one does not wait for the end of a long one.
    """

    def __init__(
        self,
        model: LlamaModel,
        config: ModelConfig,
        pooling: LlamaPoolingType,
        stats: Stats,
        predecessor: Embedder | None = None,
    ) -> None:
        """Start the thread, which waits for ``predecessor`` to end first."""
        super().__init__("cyllama-embedder", predecessor)
        self._model = model
        self._config = config
        self._pooling = pooling
        self._memory = memory_of(model, swa_full=config.swa_full)
        self._stats = stats
        self._jobs: deque[EmbeddingJob] = deque()
        self._context: LlamaContext | None = None
        self._batch = LlamaBatch(1)
        self._n_ctx = 0
        self.start()

    def submit(self, job: EmbeddingJob) -> None:
        """Hand over a call. Its vectors come out of its future."""
        job.future.add_done_callback(lambda _: self._abort_if_unwanted())
        self._inbox.put(job)

    # --- the embedder's thread

    def _turn(self) -> None:
        """Take what has come in and do one pass."""
        self._empty_inbox()
        self._jobs = deque(job for job in self._jobs if not job.future.done())
        if not self._jobs:
            self._wait_for_one()
        if not self._jobs or self._stopping:
            return
        places: list[_Place] = []
        try:
            reused = self._ensure(self._jobs[0].longest)
            self._fill(places, reused)
            self._compute(places)
        except Exception as error:  # whatever failed, nobody may wait forever, and the next call starts afresh
            logger.debug("a pass failed", exc_info=True)
            self._release()
            failure = error if isinstance(error, CyllamaError) else DecodeError(str(error))
            for job in {place.job for place in places} or {self._jobs[0]}:
                job.fail(failure)
        self._jobs.rotate(-1)

    def _take(self, item: EmbeddingJob) -> None:
        self._jobs.append(item)

    def _end(self) -> None:
        self._release()
        for job in self._jobs:
            job.fail(job.cancel_error())

    def _fill(self, places: list[_Place], reused: bool) -> None:
        """Choose the texts of a pass: the longest one of the first call, and the longest ones that fit beside it."""
        left = self._n_ctx
        for job in self._jobs:
            while len(places) < self._n_seq_max(self._n_ctx):
                index = job.take(left)
                if index is None:
                    break
                places.append(_Place(job, index))
                left -= len(job.texts[index])
                self._stats.embedding_context_reuses += reused and not job.started
                job.started = True

    def _compute(self, places: list[_Place]) -> None:
        context = self._context
        assert context is not None
        vectors: dict[int, list[float]] = {}
        if not self._model.has_encoder:
            context.kv_cache_clear(clear_data=False)
        for step in _pieces((place.tokens for place in places), self._batch.capacity):
            if not self._evaluate(context, step):
                return
            for piece in step:
                self._pool(vectors, piece, context.get_embeddings_seq(piece.seq_id), len(places[piece.seq_id].tokens))
        self._stats.embedding_passes += 1
        self._stats.tokens_embedded += sum(len(place.tokens) for place in places)
        self._stats.texts_embedded += len(places)
        for seq_id, (job, text) in enumerate(places):
            try:
                job.deliver(text, vectors[seq_id])
            except DecodeError as error:  # one text's misfortune must not be that of the others
                job.fail(error)
        for job in {place.job for place in places}:
            job.finish()

    def _evaluate(self, context: LlamaContext, step: list[_Piece]) -> bool:
        """Evaluate pieces of texts; return whether anybody waits for the outcome."""
        batch = self._batch
        batch.clear()
        for piece in step:
            batch.add_sequence(piece.tokens, piece.start, piece.seq_id, logits_all=True)
        if not self._may_decode(context):
            return False
        try:
            if self._model.has_encoder:
                context.encode(batch)
            elif (status := context.decode(batch)) != 0:
                raise DecodeError(f"llama.cpp could not evaluate the texts: status {status}")
        except RuntimeError:
            if self._nobody_waits():  # aborted
                return False
            raise
        return True

    def _pool(self, vectors: dict[int, list[float]], piece: _Piece, vector: memoryview, n_tokens: int) -> None:
        """Add what llama.cpp pooled of a piece to the vector of its text, which has ``n_tokens`` tokens."""
        seq_id = piece.seq_id
        if self._pooling == LlamaPoolingType.MEAN and len(piece.tokens) < n_tokens:
            weight = len(piece.tokens) / n_tokens
            sums = vectors.get(seq_id) or [0.0] * len(vector)
            vectors[seq_id] = [sum_ + weight * x for sum_, x in zip(sums, vector, strict=True)]
        elif self._pooling == LlamaPoolingType.LAST or seq_id not in vectors:
            vectors[seq_id] = cast("list[float]", vector.tolist())

    def _nobody_waits(self) -> bool:
        return self._stopping or all(job.future.cancelled() for job in list(self._jobs))

    @property
    def _in_flight(self) -> LlamaContext | None:
        return self._context

    # --- the context

    def _n_seq_max(self, n_ctx: int) -> int:
        return min(self._memory.max_texts, self._piece(n_ctx))

    def _piece(self, n_ctx: int) -> int:
        """Return how many tokens are evaluated at once in a context of ``n_ctx``: a power of two, or all of them.

        llama.cpp computes the logits of every token whose embedding is wanted, which a vocabulary of 262,144 tokens
        makes a megabyte each. Where tokens attend to earlier ones only, a text can be evaluated in pieces.
        """
        model = self._model
        in_pieces = self._pooling in (LlamaPoolingType.MEAN, LlamaPoolingType.CLS, LlamaPoolingType.LAST)
        if not model.is_causal or model.has_encoder or not in_pieces:
            return n_ctx
        most = max(LOGITS_BYTES // (4 * model.vocab.n_tokens), LEAST_PIECE)
        return min(1 << (most.bit_length() - 1), n_ctx)

    def _ensure(self, n_tokens: int) -> bool:
        """Have a context whose passes take texts of so many tokens; return whether it was there already."""
        if self._context is not None and n_tokens <= self._n_ctx:
            return True
        needed = padded(max(n_tokens, self._config.n_ubatch))
        roomy = max(needed, min(2 * self._n_ctx, padded(self._model.n_ctx_train)))
        old = self._n_ctx
        self._release()
        try:
            self._create(roomy)
        except (ContextMemoryError, ContextError):
            if roomy == needed:
                if old:  # what others use
                    self._create(old)
                raise
            self._create(needed)
        return False

    def _create(self, n_ctx: int) -> None:
        params = self._params(n_ctx)
        self._check_memory(n_ctx)
        self._context = create_context(self._model, params, WAY_OUT)
        self._batch = LlamaBatch(self._piece(n_ctx))
        self._n_ctx = self._stats.embedding_n_ctx = n_ctx
        self._stats.embedding_contexts_created += 1
        logger.debug("created an embedding context of %d tokens", n_ctx)

    def _params(self, n_ctx: int) -> LlamaContextParams:
        """Return llama.cpp's parameters: a piece is computed as a whole, or its pooling would see a part of it only."""
        piece = self._piece(n_ctx)
        params = context_params(self._config, n_ctx=n_ctx, n_batch=piece, model=self._model)
        params.embeddings = True
        params.pooling_type = self._pooling
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = piece
        params.n_outputs_max = 0
        params.n_seq_max = self._n_seq_max(n_ctx)
        params.type_k = params.type_v = GGMLType.F16  # small, and gone after the pass: nothing to save
        return params

    def _check_memory(self, n_ctx: int) -> None:
        """Refuse what would be killed for: Linux grants memory on credit and takes the process when it is used."""
        available = available_memory()
        if available is None:
            return
        model = self._model
        kv_cache = kv_cache_bytes(model, self._config.merge(type_k="f16", type_v="f16"), n_ctx) or 0
        logits = 2 * 4 * model.vocab.n_tokens if model.is_causal else 4 * model.vocab.n_tokens  # in the graph and out
        masks = 6 * n_ctx  # of 4 and of 2 bytes
        needed = kv_cache + self._piece(n_ctx) * (logits + masks + 4 * model.n_embd_out)
        if needed > available:
            raise ContextMemoryError(
                f"an embedding context of {n_ctx} tokens needs {gib(needed)}, but {gib(available)} of memory are "
                f"available. {WAY_OUT}"
            )

    def _release(self) -> None:
        if self._context is not None:
            self._context.close()
        self._context = None
        self._batch = LlamaBatch(1)
        self._n_ctx = self._stats.embedding_n_ctx = 0


WAY_OUT = "Split long texts, or set a smaller n_ubatch in ModelConfig"
