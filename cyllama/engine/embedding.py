"""Computes embeddings: calls, passes over their texts, and the context and the thread for that."""

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
from .context_params import context_params, padded
from .hardware import available_memory
from .log import EngineLogger
from .memory import memory_of
from .memory_needs import gib, host_bytes
from .stats import Stats
from .tuning import LEAST_PIECE, LOGITS_BYTES
from .worker import Worker

logger = EngineLogger(__name__)


# --- calls


class EmbeddingJob:
    """The texts of one call.

    Attributes:
        texts: The token ids of each text.
        normalize: Whether every vector is scaled to the length 1.
        future: Gets the vectors, lists of ``n_embd_out`` numbers in the order of ``texts``, when all of them are
            computed. Cancelling it ends the call.
        started: Whether some of the texts have been part of a pass.
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
        """Tokens of the longest text that has not been taken; 0 if all have."""
        return self._lengths[-1] if self._lengths else 0

    def take(self, n_tokens: int) -> int | None:
        """Take the longest text that has at most ``n_tokens`` tokens; return its index, ``None`` if there is none."""
        i = bisect_right(self._lengths, n_tokens) - 1
        if i < 0:
            return None
        del self._lengths[i]
        return self._order.pop(i)

    def deliver(self, index: int, vector: list[float]) -> None:
        """Store the vector of a text.

        Raises:
            DecodeError: The vector has values that are not finite.
        """
        length = math.hypot(*vector)
        if not math.isfinite(length):
            raise DecodeError(f"the embedding of text {index} is not finite: the model's weights may be damaged")
        self._vectors[index] = [x / length for x in vector] if self.normalize and length else vector
        self._left -= 1

    def finish(self) -> None:
        """Hand the vectors to the caller, if all of them are computed."""
        if not self._left and self.future.set_running_or_notify_cancel():
            self.future.set_result(self._vectors)

    def fail(self, error: Exception) -> None:
        """Hand an error to the caller instead."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)

    def cancel_error(self) -> EmbeddingCancelledError:
        """Return the error for a call that close() or reset_context() ended."""
        done = len(self.texts) - self._left
        return EmbeddingCancelledError(f"the context was closed after {done} of {len(self.texts)} texts")


class _Place(NamedTuple):
    """A text of a call in a pass. Its index in the pass is the id of its sequence."""

    job: EmbeddingJob
    text: int

    @property
    def tokens(self) -> list[int]:
        """The token ids of the text."""
        return self.job.texts[self.text]


class _Piece(NamedTuple):
    """Tokens of a text that are evaluated in one step.

    Attributes:
        seq_id: The index in the pass of the text that it is a part of.
        start: The position of its first token in that text.
        tokens: Its token ids.
    """

    seq_id: int
    start: int
    tokens: list[int]


def _pieces(texts: Iterable[list[int]], size: int) -> Iterator[list[_Piece]]:
    """Divide texts into steps of at most ``size`` tokens each."""
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

    A pass evaluates many texts side by side, those of several calls if there are several. Each call leads a pass in its
    turn, so that a short call does not wait for the end of a long one.
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

    def _iterate(self) -> None:
        """Take the calls that have come in and compute one pass."""
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
        except Exception as error:  # no caller may wait forever, and the next call starts with a new context
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
            except DecodeError as error:  # it ends the call of this text only
                job.fail(error)
        for job in {place.job for place in places}:
            job.finish()

    def _evaluate(self, context: LlamaContext, step: list[_Piece]) -> bool:
        """Evaluate pieces of texts; return whether a caller still waits for them."""
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
            if self._is_unwanted():  # aborted
                return False
            raise
        return True

    def _pool(self, vectors: dict[int, list[float]], piece: _Piece, vector: memoryview, n_tokens: int) -> None:
        """Add the vector that llama.cpp pooled of a piece to that of its text, which has ``n_tokens`` tokens."""
        seq_id = piece.seq_id
        if self._pooling == LlamaPoolingType.MEAN and len(piece.tokens) < n_tokens:
            weight = len(piece.tokens) / n_tokens
            sums = vectors.get(seq_id) or [0.0] * len(vector)
            vectors[seq_id] = [sum_ + weight * x for sum_, x in zip(sums, vector, strict=True)]
        elif self._pooling == LlamaPoolingType.LAST or seq_id not in vectors:
            vectors[seq_id] = cast("list[float]", vector.tolist())

    def _is_unwanted(self) -> bool:
        return self._stopping or all(job.future.cancelled() for job in list(self._jobs))

    @property
    def _decoding(self) -> LlamaContext | None:
        return self._context

    # --- the context

    def _n_seq_max(self, n_ctx: int) -> int:
        return min(self._memory.max_texts, self._piece(n_ctx))

    def _piece(self, n_ctx: int) -> int:
        """Return how many tokens are evaluated in one step of a context of ``n_ctx``: a power of two, or all of them.

        llama.cpp computes the logits of every token whose embedding is wanted: a megabyte each for a vocabulary of
        262,144 tokens. Where tokens attend to earlier ones only, a text can be evaluated in pieces.
        """
        model = self._model
        in_pieces = self._pooling in (LlamaPoolingType.MEAN, LlamaPoolingType.CLS, LlamaPoolingType.LAST)
        if not model.is_causal or model.has_encoder or not in_pieces:
            return n_ctx
        most = max(LOGITS_BYTES // (4 * model.vocab.n_tokens), LEAST_PIECE)
        return min(1 << (most.bit_length() - 1), n_ctx)

    def _ensure(self, n_tokens: int) -> bool:
        """Have a context whose passes take texts of ``n_tokens``; return whether it existed already."""
        if self._context is not None and n_tokens <= self._n_ctx:
            return True
        needed = padded(max(n_tokens, self._config.n_ubatch))
        preferred = max(needed, min(2 * self._n_ctx, padded(self._model.n_ctx_train)))
        old = self._n_ctx
        self._release()
        try:
            self._create(preferred)
        except (ContextMemoryError, ContextError):
            if preferred == needed:
                if old:  # other calls use it
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
        """Return llama.cpp's parameters. A ubatch holds a whole piece: llama.cpp pools the tokens of one ubatch."""
        piece = self._piece(n_ctx)
        params = context_params(self._config, n_ctx=n_ctx, n_batch=piece, model=self._model)
        params.embeddings = True
        params.pooling_type = self._pooling
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = piece
        params.n_outputs_max = 0
        params.n_seq_max = self._n_seq_max(n_ctx)
        params.type_k = params.type_v = GGMLType.F16  # the cache is small and cleared before every pass
        return params

    def _check_memory(self, n_ctx: int) -> None:
        """Fail early if the memory is too small: Linux overcommits, and the OOM killer would end the process."""
        available = available_memory()
        if available is None:
            return
        model = self._model
        kv_cache = host_bytes(model, self._params(n_ctx)) or 0
        logits = (
            2 * 4 * model.vocab.n_tokens if model.is_causal else 4 * model.vocab.n_tokens
        )  # of a token, in the graph and as output
        masks = 6 * n_ctx  # of a token, as F32 and as F16
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
