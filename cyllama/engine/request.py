"""One generation in flight."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from ..config import GenerationConfig
from ..errors import DecodeError
from ..llama.llama_cpp import LlamaSampler
from ..response import FinishReason, Timings, Usage
from .detokenizer import Detokenizer


class Request:
    """One generation: what it needs, how far it is, and the queue on which its text leaves the engine.

    The engine's thread changes it; the caller reads :attr:`chunks`, and everything else once that has ended.

    Attributes:
        prompt: Token ids of the prompt.
        config: How to generate.
        n_ctx: Most tokens of prompt and answer together.
        n_ctx_required: Size that the context has to have at least.
        sampler: Made on the engine's thread when the request's turn comes.
        tokens: Token ids generated so far.
        n_evaluated: Tokens, of the prompt first, that the KV cache holds.
        chunks: Pieces of text, then ``None``.
        finish_reason: Why it ended, once it has.
        error: What it failed with, if it did.
        cancelled: Set by anyone who wants it to end.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        config: GenerationConfig,
        n_ctx: int,
        n_ctx_required: int,
        *,
        streaming: bool,
        make_sampler: Callable[[], LlamaSampler],
    ) -> None:
        self.prompt = list(prompt)
        self.config = config
        self.n_ctx = n_ctx
        self.n_ctx_required = n_ctx_required
        self.make_sampler = make_sampler
        self.sampler: LlamaSampler | None = None
        self.tokens: list[int] = []
        self.n_evaluated = 0
        self.chunks: SimpleQueue[str | None] = SimpleQueue()
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self._streaming = streaming
        self._parts: list[str] = []
        self._detokenizer = Detokenizer(config.stop_sequences)
        self._max_tokens = n_ctx - len(self.prompt)
        if config.max_tokens is not None:
            self._max_tokens = min(self._max_tokens, config.max_tokens)
        self._submitted = time.perf_counter()
        self._started: float | None = None
        self._first_token: float | None = None
        self._finished = self._submitted

    @property
    def prompt_is_evaluated(self) -> bool:
        """Whether the next token to evaluate is one that was generated."""
        return self.n_evaluated >= len(self.prompt)

    @property
    def wants_tokens(self) -> bool:
        """Whether anything is to be generated at all."""
        return self._max_tokens > 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens))

    @property
    def timings(self) -> Timings:
        """Seconds so far."""
        started = self._finished if self._started is None else self._started
        first_token = self._finished if self._first_token is None else self._first_token
        return Timings(
            queued=started - self._submitted, prompt=first_token - started, generation=self._finished - first_token
        )

    def next_tokens(self, limit: int) -> list[int]:
        """Return what to evaluate next: at most ``limit`` tokens of the prompt, or the last token generated."""
        if self.prompt_is_evaluated:
            return self.tokens[-1:]
        return self.prompt[self.n_evaluated : self.n_evaluated + limit]

    def start(self) -> None:
        """Begin the request's turn."""
        self.sampler = self.make_sampler()
        self._started = time.perf_counter()

    def accept(self, token: int, piece: bytes | None) -> bool:
        """Take a token; ``piece`` is its bytes, or ``None`` if it ends the generation. Return whether it goes on."""
        if self._first_token is None:
            self._first_token = time.perf_counter()
        self.tokens.append(token)
        if piece is None:
            self.finish("stop")
            return False
        self._emit(self._detokenizer.push(piece))
        if self._detokenizer.stopped:
            self.finish("stop")
        elif len(self.tokens) >= self._max_tokens:
            self.finish("length")
        return self.finish_reason is None

    def finish(self, reason: FinishReason) -> None:
        """End the request; what was held back of its text is certain now."""
        if self.finish_reason is not None:
            return
        self._emit(self._detokenizer.finish())
        self._end(reason)

    def fail(self, error: Exception) -> None:
        """End the request with an error; once it has begun, a :class:`DecodeError` with the text so far."""
        if self.finish_reason is not None:
            return
        self._emit(self._detokenizer.finish())
        if self.sampler is not None:
            message = f"the generation failed after {len(self.tokens)} tokens: {error}"
            self.error = DecodeError(message, partial_text=self.text)
            self.error.__cause__ = error
        else:
            self.error = error
        self._end("cancelled")

    def _emit(self, text: str) -> None:
        if text:
            self._parts.append(text)
            if self._streaming:
                self.chunks.put(text)

    def _end(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        self.sampler = None
        self._finished = time.perf_counter()
        self.chunks.put(None)
