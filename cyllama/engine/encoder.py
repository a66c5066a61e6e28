"""Images to embeddings, beside the engine's thread, and a cache of them."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from ..llama.llama_cpp import LlamaEmbeddings, LlamaProjector
from .context_params import CPU
from .images import PromptImage
from .log import EngineLogger

logger = EngineLogger(__name__)

CacheKey = tuple["str | None", int]
"""Whose image it is, and its key: how soon an answer begins would tell a tenant what images others have sent."""

_NO_MEMORY = re.compile(r"no memory for [a-z ]+ on (\w+)")  # what edits of mtmd say


@dataclass
class _Job:
    """An image to encode.

    Attributes:
        key: What its embeddings are kept under.
        image: The image.
        wanted: Tell whether a request still waits for it.
        result: Its embeddings.
    """

    key: CacheKey
    image: PromptImage
    wanted: list[Callable[[], bool]]
    result: Future[LlamaEmbeddings] = field(default_factory=Future)


class ImageEncoder:
    """Encodes images one after the other, in a thread that runs while there are any.

    The embeddings of the images that were used last are kept, so that an image that is sent again, or whose cells have
    left the KV cache, is not encoded again. Any thread may use it.

    Attributes:
        n_encoded: How many images were encoded.
    """

    def __init__(self, projector: LlamaProjector, cache_bytes: int) -> None:
        """Encode with ``projector``, and keep embeddings of at most ``cache_bytes`` bytes."""
        self.n_encoded = 0
        self._projector = projector
        self._cache_bytes = cache_bytes
        self._cached: dict[CacheKey, LlamaEmbeddings] = {}  # the latest used one last
        self._jobs: dict[CacheKey, _Job] = {}  # those that have not ended
        self._queue: deque[CacheKey] = deque()
        self._busy = False  # whether there is a thread
        self._lock = threading.Lock()

    def embeddings(
        self, image: PromptImage, scope: str | None, is_wanted: Callable[[], bool]
    ) -> Future[LlamaEmbeddings]:
        """Return the embeddings of an image, now or later.

        Args:
            image: The image.
            scope: Whose it is: embeddings are shared within a scope.
            is_wanted: Tells whether the caller still waits for them. If no caller does, the image is not encoded,
                and there is never a result.
        """
        key = (scope, image.key)
        with self._lock:
            if (cached := self._cached.pop(key, None)) is not None:
                self._cached[key] = cached
                found: Future[LlamaEmbeddings] = Future()
                found.set_result(cached)
                return found
            job = self._jobs.get(key)
            if job is None:
                job = self._jobs[key] = _Job(key, image, [])
                self._queue.append(key)
            job.wanted.append(is_wanted)
            begins, self._busy = not self._busy, True
        if begins:
            threading.Thread(target=self._run, name="cyllama-images", daemon=True).start()
        return job.result

    @property
    def cached_bytes(self) -> int:
        """Bytes of the embeddings that are kept."""
        with self._lock:
            return sum(each.nbytes for each in self._cached.values())

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                embeddings = self._encode(job)
            except Exception as error:  # those who wait for it raise it
                self._end(job, None)
                job.result.set_exception(error)
            else:
                self._end(job, embeddings)
                job.result.set_result(embeddings)

    def _next(self) -> _Job | None:
        """Return the next job, without those that no request waits for any more."""
        with self._lock:
            while self._queue:
                job = self._jobs[self._queue.popleft()]
                if any(is_wanted() for is_wanted in job.wanted):
                    return job
                del self._jobs[job.key]
            self._busy = False
            return None

    def _encode(self, job: _Job) -> LlamaEmbeddings:
        image = job.image.image
        try:
            embeddings = self._projector.encode(self._projector.prepare(image.rgb, image.width, image.height))
        except RuntimeError as error:
            raise RuntimeError(with_way_out(str(error))) from error
        self.n_encoded += 1
        return embeddings

    def _end(self, job: _Job, embeddings: LlamaEmbeddings | None) -> None:
        """Keep what was encoded, and drop what was not used for the longest time beyond the limit."""
        with self._lock:
            del self._jobs[job.key]
            if embeddings is None or embeddings.nbytes > self._cache_bytes:
                return
            self._cached[job.key] = embeddings
            excess = sum(each.nbytes for each in self._cached.values()) - self._cache_bytes
            while excess > 0:
                excess -= self._cached.pop(next(iter(self._cached))).nbytes


def with_way_out(message: str) -> str:
    """Return what an error of a projector says, with what to do if a device has no memory for it.

    >>> print(with_way_out("no memory for an image on CUDA0"))
    no memory for an image on CUDA0: set a smaller n_gpu_layers, so that the model leaves memory there, or 0 for the CPU
    >>> print(with_way_out("no memory for an image on CPU"))
    no memory for an image on CPU: set a smaller n_ctx or kv_cells, or end other programs
    """
    found = _NO_MEMORY.search(message)
    if found is None:
        return message
    message = message.rstrip("; ")
    if found[1] == CPU:
        return f"{message}: set a smaller n_ctx or kv_cells, or end other programs"
    return f"{message}: set a smaller n_gpu_layers, so that the model leaves memory there, or 0 for the CPU"
