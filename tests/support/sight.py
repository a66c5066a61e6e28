"""Prompts with images, and what a model answers to them without the engine."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from cyllama import LLM
from cyllama.control_text import IMAGE_MARK, RenderedChat
from cyllama.engine import Request
from cyllama.engine.images import ImageRuns
from cyllama.images import Image
from cyllama.llama.llama_cpp import LlamaBatch, LlamaContext, LlamaContextParams, LlamaFlashAttnType, LlamaProjector

from .harness import NEAR_TIE

_N_CTX = 2048


def picture(seed: int, width: int = 40, height: int = 30) -> Image:
    """Return an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, 3 * width * height, dtype=np.uint8)
    return Image(pixels.tobytes(), width, height)


def seen(*parts: str | Image) -> RenderedChat:
    """Return a prompt of texts and images, as templates render it."""
    marked = "".join(part if isinstance(part, str) else f"{IMAGE_MARK}{part.digest}{IMAGE_MARK}" for part in parts)
    return RenderedChat(marked, marked, {part.digest: part for part in parts if isinstance(part, Image)})


class LateImage(Image):
    """An image whose pixels come late: the thread that encodes waits for :meth:`arrive`."""

    def __post_init__(self) -> None:
        """Take an image that has not arrived."""
        super().__post_init__()
        object.__setattr__(self, "_arrived", threading.Event())

    def __getattribute__(self, name: str) -> Any:
        """Wait where the pixels are asked for to encode them."""
        if name == "rgb" and threading.current_thread().name == "cyllama-images":
            assert self._arrived.wait(120), "the image did not arrive"
        return super().__getattribute__(name)

    def arrive(self) -> None:
        """Let it be encoded."""
        self._arrived.set()


def late(seed: int) -> LateImage:
    """Return an image of noise that comes late."""
    image = picture(seed)
    return LateImage(image.rgb, image.width, image.height)


def n_encoded(llm: LLM) -> int:
    """Return how many images a model has encoded."""
    vision = llm._runtime.vision
    assert vision is not None
    return vision.encoder.n_encoded


class SightReference:
    """What a model answers in a context of its own that has seen one prompt only, chunk by chunk, as mtmd does it."""

    def __init__(self, llm: LLM, projector: str) -> None:
        params = LlamaContextParams()
        params.n_ctx, params.n_threads, params.n_threads_batch = _N_CTX, 1, 1
        params.flash_attn_type = LlamaFlashAttnType.DISABLED
        self._context = LlamaContext(llm.model, params)
        self._batch = LlamaBatch(_N_CTX)
        self._projector = LlamaProjector(llm.model, projector, n_threads=1)

    def check(self, request: Request) -> None:
        """Raise ``AssertionError`` where a greedy answer is another one, and tokens were not nearly tied."""
        assert request.error is None
        logits = self._evaluate(request)
        for place, token in enumerate(request.tokens, len(request.prompt)):
            gap = float(logits.max() - logits[token])
            assert gap < NEAR_TIE, f"token {place - len(request.prompt)} is {gap:.3f} logits below the best"
            self._batch.clear()
            self._batch.add(token, place, logits=True)
            logits = self._decode()

    def _evaluate(self, request: Request) -> np.ndarray:
        """Return the logits after a prompt."""
        self._context.kv_cache_clear()
        prompt, place, logits = request.prompt, 0, np.empty(0)
        runs = ImageRuns(prompt, request.images)
        while place < len(prompt):
            self._batch.clear()
            run = runs.at(place)
            if run is None:
                end = runs.next_start(place) or len(prompt)
                self._batch.add_sequence(prompt[place:end], place)
            else:
                end, image = place + run.n, run.image.image
                made = self._projector.encode(self._projector.prepare(image.rgb, image.width, image.height))
                self._batch.set_embeddings(made, run.first, run.n, place, 0, True, whole=self._projector.non_causal)
            logits, place = self._decode(), end
        return logits

    def _decode(self) -> np.ndarray:
        assert self._context.decode(self._batch) == 0
        return np.asarray(self._context.get_logits_ith(-1))
