"""One generation in flight."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from ..config import GenerationConfig
from ..errors import DecodeError, GrammarError, PromptError
from ..llama.llama_cpp import LlamaSampler, LlamaVocab
from ..response import FinishReason, TextChunk, Timings, TokenLogprob, Usage
from .adapters import NO_ADAPTERS, AdapterSet
from .context_params import ContextSize
from .conversation import Conversation
from .detokenizer import Detokenizer
from .sequence import CachedSequence, Lease


class Outlet(Protocol):
    """Where the text of a generation goes: pieces, then ``None``."""

    def put(self, item: TextChunk | None) -> None:
        """Take an item. Called by the engine's thread; neither waits nor raises."""
        ...


@dataclass(frozen=True)
class Prompt:
    """What to continue.

    Attributes:
        tokens: Token ids of a whole prompt.
        text: Its text, if it was given as text; what only spells control tokens is marked in it.
        continuation: Token ids to use instead where the prompt is appended to a conversation that has begun; ``None``
            where the prompt is the whole history.
        tokenize: Turns a later part of a text into tokens.
        mark: Marks what only spells control tokens in an answer, but not what begins at the given positions.
    """

    tokens: list[int]
    text: str | None
    continuation: list[int] | None
    tokenize: Callable[[str], list[int]]
    mark: Callable[[str, Sequence[int]], str] = lambda text, _: text


class Request:
    """One generation: what it needs, how far it is, and where its text goes.

    The engine's thread changes it; the caller reads :attr:`chunks`, and everything else once that has ended.

    Attributes:
        prompt: Token ids of the prompt, with the whole history of a conversation.
        config: How to generate.
        conversation: What it belongs to, if anything.
        adapters: What it is computed with, until it has ended.
        required: Size that the context has to have for it, in tokens.
        lease: What keeps its sequence in the KV cache, while it runs or if it ran before.
        sampler: Chooses its tokens, once its turn has come.
        tokens: Token ids generated so far.
        n_reused: Tokens of the prompt that the KV cache held already, once its turn has come.
        leader: A request with the same prompt, whose evaluation this one waits for.
        followers: Requests that wait for this one's.
        chunks: Pieces of text, then ``None``.
        finish_reason: Why it ended, once it has.
        error: What it failed with, if it did.
        cancelled: Set by anyone who wants it to end.
        taken: Whether the engine's thread has seen it.
        preserved: Control tokens whose text is part of the answer's.
        logprobs: Of the tokens generated so far, if the config asks for them.
    """

    def __init__(
        self,
        prompt: Prompt,
        config: GenerationConfig,
        *,
        conversation: Conversation | None = None,
        streaming: bool,
        size_for: Callable[[int], ContextSize],
        make_sampler: Callable[[Sequence[int]], LlamaSampler],
        preserved: frozenset[int] = frozenset(),
        chunks: Outlet | None = None,
        adapters: AdapterSet = NO_ADAPTERS,
    ) -> None:
        """Make a request.

        Args:
            prompt: What to continue.
            config: How to generate.
            conversation: What it belongs to, if anything.
            streaming: Whether text is wanted before the end.
            size_for: Returns the sizes for a prompt of so many tokens, or raises.
            make_sampler: Returns the sampler, after penalties have seen the tokens of a prompt.
            preserved: Control tokens that have a text here.
            chunks: Where the text goes; by default a queue.
            adapters: What to compute with besides the model.
        """
        self.prompt: list[int] = []
        self.config = config
        self.conversation = conversation
        self.adapters = adapters
        self.required = 0
        self.lease: Lease | None = None
        self.sampler: LlamaSampler | None = None
        self.tokens: list[int] = []
        self.n_reused: int | None = None
        self.leader: Request | None = None
        self.followers: list[Request] = []
        self.queue: SimpleQueue[TextChunk | None] = SimpleQueue()
        self.chunks: Outlet = self.queue if chunks is None else chunks
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.taken = False
        self.preserved = preserved
        self.logprobs: list[TokenLogprob] = []
        self._given = prompt
        self._size_for = size_for
        self._make_sampler = make_sampler
        self._streaming = streaming
        self._parts: list[str] = []
        self._n_emitted_logprobs = 0
        self._detokenizer = Detokenizer(config.stop_sequences)
        self._limit = 0
        self._max_tokens = 0
        self._submitted = time.perf_counter()
        self._started: float | None = None
        self._first_token: float | None = None
        self._finished = self._submitted
        if conversation is None:
            self.resolve()

    def resolve(self) -> None:
        """Settle the prompt, which may depend on how the conversation went on meanwhile, and the sizes.

        Raises:
            ContextSizeError: The prompt is too long.
            PromptError: There is nothing to continue from.
        """
        if self.prompt:
            return
        self.prompt = self._resolved_prompt()
        if not self.prompt:
            raise PromptError("the prompt is empty: it has no tokens to continue from")
        self._limit, self.required = self._size_for(len(self.prompt))
        self._max_tokens = self._limit - len(self.prompt)
        if self.config.max_tokens is not None:
            self._max_tokens = min(self._max_tokens, self.config.max_tokens)

    def _resolved_prompt(self) -> list[int]:
        given, conversation = self._given, self.conversation
        if conversation is None:
            return given.tokens
        if given.continuation is not None:
            return conversation.tokens + given.continuation if conversation.tokens else given.tokens
        if given.text is None:
            return given.tokens
        return conversation.keep_replies(given.tokens, given.text, given.tokenize)

    # --- what remains to be done

    @property
    def sequence(self) -> CachedSequence | None:
        """What holds its tokens in the KV cache, while it runs or if it ran before."""
        return None if self.lease is None else self.lease.sequence

    def release_sequence(self) -> None:
        """Give its sequence back to the KV cache, if it has one."""
        lease, self.lease = self.lease, None
        if lease is not None:
            lease.release()

    @property
    def pending(self) -> int:
        """How many tokens have to be evaluated before the next one can be sampled."""
        return len(self.prompt) + len(self.tokens) - self.n_evaluated

    @property
    def n_evaluated(self) -> int:
        """How many tokens, of the prompt first, the KV cache holds."""
        return 0 if self.lease is None else len(self.lease.sequence.tokens)

    @property
    def all_tokens(self) -> list[int]:
        """The prompt, and what was generated."""
        return self.prompt + self.tokens

    @property
    def wants_tokens(self) -> bool:
        """Whether anything is to be generated at all."""
        return self._max_tokens > 0

    @property
    def own_sequence(self) -> CachedSequence | None:
        """What it goes on from: what its conversation has, or it had itself before it made room for others."""
        return self.sequence if self.conversation is None else self.conversation.sequence

    @property
    def most_tokens(self) -> int:
        """Most tokens of prompt and answer that it may have in the context before that has to grow."""
        return min(self.required, len(self.prompt) + self._max_tokens)

    @property
    def reserved(self) -> int:
        """Size that the context has to have for it, in tokens: what it has already may be more than it required."""
        return max(self.required, len(self.prompt) + len(self.tokens) + 1)

    @property
    def reserved_next(self) -> int:
        """The same after :meth:`grow`."""
        return min(2 * self.reserved, self._most) if self.grows else self.reserved

    @property
    def most_at_once(self) -> int:
        """Most tokens that may be evaluated in one step: a checkpoint can be taken only between two."""
        stop = None if self.sequence is None else self.sequence.n_before_checkpoint
        return min(self.pending, self.config.n_batch, stop or self.pending)

    @property
    def _most(self) -> int:
        return min(self._limit, len(self.prompt) + self._max_tokens)

    @property
    def grows(self) -> bool:
        """Whether it may need more room than it asked for at first."""
        return self.required < self._most

    def next_tokens(self, limit: int) -> list[int]:
        """Return what to evaluate next, at most ``limit`` tokens."""
        start = self.n_evaluated
        if start >= len(self.prompt):
            start -= len(self.prompt)
            return self.tokens[start : start + limit]
        return self.prompt[start : start + limit]

    # --- what happens to it

    def start(self) -> None:
        """Begin the request's turn, or go on after it had to make room for others."""
        if self.sampler is None:
            self.sampler = self._make_sampler(self.prompt)
            self._started = time.perf_counter()

    def grow(self) -> None:
        """Ask for twice the room."""
        self.required = max(self.required, self.reserved_next)

    def accept(self, token: int, piece: bytes, *, last: bool, logprob: TokenLogprob | None = None) -> bool:
        """Take a token and its bytes; ``last`` if it ends the generation. Return whether that goes on."""
        if self._first_token is None:
            self._first_token = time.perf_counter()
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        self._emit(self._detokenizer.push(piece))
        if self._detokenizer.stopped or last:
            self.finish("stop")
        elif len(self.tokens) >= self._max_tokens:
            self.finish("length")
        return self.finish_reason is None

    def finish(self, reason: FinishReason) -> None:
        """End the generation; what was held back of its text is certain now."""
        if self.finish_reason is None:
            self._emit(self._detokenizer.finish())
            if self._streaming and len(self.logprobs) > self._n_emitted_logprobs:
                self._put("")  # of a stop string, or of a token without a text
            self.finish_reason = reason
            self._finished = time.perf_counter()

    def fail(self, error: Exception) -> None:
        """End the generation with an error; once it has begun, one of its kind with the text so far."""
        if self.finish_reason is not None:
            return
        self.finish("cancelled")
        if self.sampler is not None:
            message = f"the generation failed after {len(self.tokens)} tokens: {error}"
            kind = GrammarError if isinstance(error, GrammarError) else DecodeError
            self.error = kind(message, partial_text=self.text)
            self.error.__cause__ = error
        else:
            self.error = error

    def close(self, vocab: LlamaVocab) -> None:
        """Let the conversation go on from here, and the caller know that the generation has ended."""
        self.sampler = None
        self.adapters = NO_ADAPTERS  # whoever keeps the response does not keep them
        if self.conversation is not None:
            if self._goes_on():
                self._end_turn(self.conversation, vocab)
            self.conversation.requests.pop(self, None)
        self.chunks.put(None)

    def _goes_on(self) -> bool:
        """Whether the conversation has a new turn: not if it failed, or was cancelled before it began to answer."""
        if self.error is not None or not self.prompt or self.conversation is None or self.conversation.forgotten:
            return False
        return bool(self.tokens) or self.finish_reason == "length"

    def _end_turn(self, conversation: Conversation, vocab: LlamaVocab) -> None:
        given = self._given
        prompt_text = given.text
        if given.continuation is not None and prompt_text is not None:
            before = conversation.history.text
            prompt_text = None if before is None else before + prompt_text
        answer = self._answer(vocab)
        silent_end = bool(answer) and vocab.is_eog(answer[-1]) and answer[-1] not in self.preserved
        n_reply = len(answer) - silent_end
        text = self.text if prompt_text is None else given.mark(self.text, self._sampled_control(vocab))
        conversation.end_turn(self.prompt, prompt_text, answer, text, n_reply)

    def _sampled_control(self, vocab: LlamaVocab) -> list[int]:
        """Return where in the text control tokens begin that were sampled."""
        if self.preserved.isdisjoint(self.tokens):
            return []
        decoder, positions, n = codecs.getincrementaldecoder("utf-8")(errors="replace"), list[int](), 0
        for token in self.tokens:
            if token in self.preserved:
                positions.append(n)
            n += len(decoder.decode(vocab.token_to_piece(token, special=token in self.preserved)))
        return positions

    def _answer(self, vocab: LlamaVocab) -> list[int]:
        """Return the tokens of the answer as the caller sees it: without those of a stop string.

        Where a token holds the end of the text and the beginning of the stop string, or a character is cut, the rest of
        the text is tokenized by itself.
        """
        if not self._detokenizer.stopped:
            return self.tokens
        visible, n = self.text.encode(), 0
        kept, n_kept = 0, 0  # tokens that end where a character does, and their bytes
        for i, token in enumerate(self.tokens, 1):
            piece = vocab.token_to_piece(token, special=token in self.preserved)
            if not visible.startswith(piece, n):
                break
            n += len(piece)
            if n == len(visible) or visible[n] & 0xC0 != 0x80:
                kept, n_kept = i, n
        rest = visible[n_kept:].decode()
        return self.tokens[:kept] + (self._given.tokenize(self._given.mark(rest, ())) if rest else [])

    def _emit(self, text: str) -> None:
        if text:
            self._parts.append(text)
            if self._streaming:
                self._put(text)

    def _put(self, text: str) -> None:
        self.chunks.put(TextChunk(text, tuple(self.logprobs[self._n_emitted_logprobs :])))
        self._n_emitted_logprobs = len(self.logprobs)

    # --- what it came to

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens), cached_tokens=self.n_reused or 0
        )

    @property
    def timings(self) -> Timings:
        """Seconds so far."""
        started = self._finished if self._started is None else self._started
        first_token = self._finished if self._first_token is None else self._first_token
        return Timings(
            queued=started - self._submitted, prompt=first_token - started, generation=self._finished - first_token
        )
