"""What a generation returns: tokens, text, log probabilities and times."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from ..llama.llama_cpp import LlamaVocab
from ..response import TextChunk, Timings, TokenLogprob
from .detokenizer import Detokenizer


class Outlet(Protocol):
    """Where the text of a generation goes: pieces, then ``None``."""

    def put(self, item: TextChunk | None) -> None:
        """Take an item. Called by the engine's thread; neither waits nor raises."""
        ...


class Clock:
    """When a generation was submitted, started, had its first token, and ended."""

    def __init__(self) -> None:
        self._submitted = self._finished = time.perf_counter()
        self._started: float | None = None
        self._first_token: float | None = None

    def start(self) -> None:
        """Note that the generation has a place to run in."""
        self._started = time.perf_counter()

    def note_first_token(self) -> None:
        """Note the first token."""
        self._first_token = time.perf_counter()

    def finish(self) -> None:
        """Note the end."""
        self._finished = time.perf_counter()

    @property
    def timings(self) -> Timings:
        """Seconds of each phase."""
        started = self._finished if self._started is None else self._started
        first_token = self._finished if self._first_token is None else self._first_token
        return Timings(
            queued=started - self._submitted, prompt=first_token - started, generation=self._finished - first_token
        )


class Answer:
    """The answer of one request.

    The engine's thread adds to it. The caller reads :attr:`outlet`, and everything else once that has ended.

    Attributes:
        tokens: Token ids generated so far.
        logprobs: Their log probabilities, if the config asks for them.
        outlet: Where the text goes.
        clock: When what happened.
        n_drafted: Tokens that were drafted.
        n_accepted: Drafted tokens that were right, and became part of the answer.
    """

    def __init__(
        self, outlet: Outlet, *, streaming: bool, stop_sequences: Iterable[str] = (), preserved: frozenset[int]
    ) -> None:
        """Make an empty one.

        Args:
            outlet: Where the text goes.
            streaming: Whether text is wanted before the end.
            stop_sequences: Texts that end the answer.
            preserved: Control tokens whose text is part of the answer's.
        """
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.outlet = outlet
        self.clock = Clock()
        self.n_drafted = self.n_accepted = 0
        self._streaming = streaming
        self._preserved = preserved
        self._detokenizer = Detokenizer(stop_sequences)
        self._parts: list[str] = []
        self._n_sent_logprobs = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence has ended the text."""
        return self._detokenizer.stopped

    @property
    def timings(self) -> Timings:
        """Seconds of each phase, and what was drafted."""
        return replace(self.clock.timings, tokens_drafted=self.n_drafted, tokens_accepted=self.n_accepted)

    # --- while it is generated

    def append(self, token: int, vocab: LlamaVocab, *, last: bool, logprob: TokenLogprob | None = None) -> None:
        """Add a token; ``last`` if it ends the generation: then it has a text only if that is preserved."""
        if not self.tokens:
            self.clock.note_first_token()
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        preserved = token in self._preserved
        piece = b"" if last and not preserved else vocab.token_to_piece(token, special=preserved)
        self._add(self._detokenizer.push(piece))

    def finish(self) -> None:
        """End the text: what the detokenizer held back is certain now."""
        self._add(self._detokenizer.finish())
        if self._streaming and len(self.logprobs) > self._n_sent_logprobs:
            self._send("")  # of a stop string, or of a token without a text
        self.clock.finish()

    def close(self) -> None:
        """Tell the caller that there is no more to come."""
        self.outlet.put(None)

    def _add(self, text: str) -> None:
        if text:
            self._parts.append(text)
            if self._streaming:
                self._send(text)

    def _send(self, text: str) -> None:
        self.outlet.put(TextChunk(text, tuple(self.logprobs[self._n_sent_logprobs :])))
        self._n_sent_logprobs = len(self.logprobs)

    # --- for the conversation that it belongs to

    def visible_tokens(self, vocab: LlamaVocab, tokenize: Callable[[str], list[int]]) -> list[int]:
        """Return the tokens of the answer as the caller sees it: without those of a stop string.

        Where a token holds the end of the text and the beginning of the stop string, or a character is cut, the rest of
        the text is given to ``tokenize``.
        """
        if not self.stopped:
            return self.tokens
        visible, n = self.text.encode(), 0
        kept, n_kept = 0, 0  # tokens that end where a character does, and their bytes
        for i, token in enumerate(self.tokens, 1):
            piece = self._piece(token, vocab)
            if not visible.startswith(piece, n):
                break
            n += len(piece)
            if n == len(visible) or visible[n] & 0xC0 != 0x80:
                kept, n_kept = i, n
        rest = visible[n_kept:].decode()
        return self.tokens[:kept] + (tokenize(rest) if rest else [])

    def control_positions(self, vocab: LlamaVocab) -> list[int]:
        """Return where in the text the control tokens begin that were sampled."""
        if self._preserved.isdisjoint(self.tokens):
            return []
        decoder, positions, n = codecs.getincrementaldecoder("utf-8")(errors="replace"), list[int](), 0
        for token in self.tokens:
            if token in self._preserved:
                positions.append(n)
            n += len(decoder.decode(self._piece(token, vocab)))
        return positions

    def has_text(self, token: int, vocab: LlamaVocab) -> bool:
        """Return whether a token, the last of the answer, is part of its text."""
        return token in self._preserved or not vocab.is_eog(token)

    def _piece(self, token: int, vocab: LlamaVocab) -> bytes:
        return vocab.token_to_piece(token, special=token in self._preserved)
