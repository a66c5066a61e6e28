"""One generation: what is asked, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum

from ..config import GenerationConfig
from ..errors import CyllamaError, DecodeError, GrammarError, PromptError
from ..llama.llama_cpp import LlamaEmbeddings, LlamaSampler, LlamaVocab
from ..response import FinishReason, TokenLogprob, Usage
from .adapters import NO_ADAPTERS, AdapterSet
from .answer import Answer, Outlet
from .context_params import ContextSize
from .conversation import TENANT_END, Conversation
from .images import ImageRun, ImageRuns, PromptImage, texts_only, used_images
from .lookup import Draft, Drafter
from .model_drafter import ModelDrafter
from .prefixes import Query
from .reservation import Reservation
from .sequence import CachedSequence, Lease, LeaseHolder


class Status(Enum):
    """Where a request is."""

    NEW = "new"
    """The caller has made it, and the engine has not seen it."""
    WAITING = "waiting"
    """It waits for a place to run in, for the first time or after it was preempted."""
    RUNNING = "running"
    """It has a sequence, and takes part in steps."""
    FINISHED = "finished"
    """It has ended; :attr:`Request.finish_reason` says why."""


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
        images: The images that token ids below zero belong to, by key.
    """

    tokens: list[int]
    text: str | None
    continuation: list[int] | None
    tokenize: Callable[[str], list[int]]
    mark: Callable[[str, Sequence[int]], str] = lambda text, _: text
    images: Mapping[int, PromptImage] = field(default_factory=dict)

    def resolve(self, conversation: Conversation | None) -> list[int]:
        """Return the tokens of the whole prompt, which depend on what the conversation holds now."""
        if conversation is None:
            return self.tokens
        if self.continuation is not None:
            return conversation.tokens + self.continuation if conversation.tokens else self.tokens
        if self.text is None:
            return self.tokens
        return conversation.keep_replies(self.tokens, self.text, self.tokenize)


class Request(LeaseHolder):
    """One generation: what is asked, and how far it is.

    The engine's thread changes it. The caller reads the outlet of its answer, and everything else once that has ended.

    Attributes:
        config: How to generate.
        conversation: What it belongs to, if anything; set before the engine sees it.
        adapters: What it is computed with, until it has ended.
        prompt: Token ids of the prompt, with the whole history of a conversation; empty until it is resolved.
        reservation: What it reserves of the context; nothing until the prompt is resolved.
        answer: What was generated so far.
        lease: What keeps its sequence in the KV cache, while it runs or if it ran before.
        sampler: Chooses its tokens, from when it starts until it has ended.
        drafter: Drafts its next tokens, from when it starts until it has ended, if its config asks for that.
        n_reused: Tokens of the prompt that the KV cache held when the request started; ``None`` before.
        status: Where it is.
        finish_reason: Why it ended, once it has.
        error: What it failed with, if it did.
        cancelled: Set by any thread to make it end.
        images: The images of its prompt, by key; nothing until it is resolved.
        embeddings: Those of the images that it has to evaluate, now or later, by key, once they were asked for.
    """

    def __init__(
        self,
        prompt: Prompt,
        config: GenerationConfig,
        *,
        outlet: Outlet,
        streaming: bool,
        size_for: Callable[[int], ContextSize],
        make_sampler: Callable[[Sequence[int]], LlamaSampler],
        make_drafter: Callable[[Sequence[int]], Drafter | ModelDrafter] | None = None,
        preserved: frozenset[int] = frozenset(),
        adapters: AdapterSet = NO_ADAPTERS,
    ) -> None:
        """Make a request.

        Args:
            prompt: What to continue.
            config: How to generate.
            outlet: Where the text goes.
            streaming: Whether text is wanted before the end.
            size_for: Returns the sizes for a prompt of so many tokens, or raises.
            make_sampler: Returns the sampler, after penalties have seen the tokens of a prompt.
            make_drafter: Returns what drafts tokens after a prompt; ``None`` for no drafts.
            preserved: Control tokens that have a text here.
            adapters: What to compute with besides the model.
        """
        super().__init__()
        self.config = config
        self.conversation: Conversation | None = None
        self.adapters = adapters
        self.prompt: list[int] = []
        self.reservation = Reservation()
        self.answer = Answer(
            outlet,
            streaming=streaming,
            stop_sequences=config.stop_sequences,
            preserved=preserved,
        )
        self.sampler: LlamaSampler | None = None
        self.drafter: Drafter | ModelDrafter | None = None
        self.n_reused: int | None = None
        self.status = Status.NEW
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.images: Mapping[int, PromptImage] = {}
        self.embeddings: dict[int, Future[LlamaEmbeddings]] = {}
        self._image_runs: ImageRuns | None = None
        self._given = prompt
        self._size_for = size_for
        self._make_sampler = make_sampler
        self._make_drafter = make_drafter

    def resolve(self) -> None:
        """Settle the prompt, which may depend on how the conversation went on meanwhile, and the sizes.

        Raises:
            ContextSizeError: The prompt is too long.
            PromptError: There is nothing to continue from.
        """
        if self.prompt:
            return
        self.prompt = self._given.resolve(self.conversation)
        if not self.prompt:
            raise PromptError("the prompt is empty: it has no tokens to continue from")
        before = {} if self.conversation is None else self.conversation.history.images
        if before or self._given.images:
            self.images = used_images(self.prompt, {**before, **self._given.images})
        if self.images:
            self._image_runs = ImageRuns(self.prompt, self.images)
        limit, required = self._size_for(len(self.prompt))
        self.reservation = Reservation(
            len(self.prompt), limit=limit, required=required, max_tokens=self.config.max_tokens
        )

    # --- what remains to be done

    @property
    def tokens(self) -> list[int]:
        """Token ids generated so far."""
        return self.answer.tokens

    @property
    def all_tokens(self) -> list[int]:
        """The prompt, and what was generated."""
        return self.prompt + self.answer.tokens

    @property
    def n_tokens(self) -> int:
        """How many tokens of prompt and answer there are."""
        return len(self.prompt) + len(self.answer.tokens)

    @property
    def n_evaluated(self) -> int:
        """How many tokens, of the prompt first, the KV cache holds."""
        return 0 if self.lease is None else len(self.lease.sequence.tokens)

    @property
    def pending(self) -> int:
        """How many tokens have to be evaluated before the next one can be sampled."""
        n_evaluated = (
            0 if self.lease is None else len(self.lease.sequence.tokens)
        )  # no call: each step asks several times
        return len(self.prompt) + len(self.answer.tokens) - n_evaluated

    @property
    def wants_tokens(self) -> bool:
        """Whether anything is to be generated at all."""
        return self.reservation.max_tokens > 0

    @property
    def n_left(self) -> int:
        """How many tokens it may generate yet."""
        return self.reservation.max_tokens - len(self.answer.tokens)

    @property
    def own_sequence(self) -> CachedSequence | None:
        """The sequence that it continues: its conversation's, or the one it had before it was preempted."""
        return self.sequence if self.conversation is None else self.conversation.sequence

    @property
    def scope(self) -> str | None:
        """Whose prefixes it shares: those of its conversation's tenant, or of calls with the same ``prefix_cache``."""
        if self.conversation is not None:
            return self.conversation.scope
        key = self.config.prefix_cache
        return None if key is False else TENANT_END + ("" if key is True else key)  # no tenant's name has that

    @property
    def reserved(self) -> int:
        """Size that the context must have for it, in tokens."""
        return self.reservation.tokens(self.n_tokens)

    @property
    def most_at_once(self) -> int:
        """Most tokens that may be evaluated in one step: a checkpoint can be taken only between two."""
        stop = None if self.sequence is None else self.sequence.n_before_checkpoint
        most = min(self.pending, self.config.n_batch, stop or self.pending)
        image = None if self._image_runs is None else self._image_runs.next_start(self.n_evaluated)
        return most if image is None else min(most, image - self.n_evaluated)

    @property
    def image_run(self) -> ImageRun | None:
        """The cells of an image that are its next tokens, if they are."""
        return None if self._image_runs is None else self._image_runs.at(self.n_evaluated)

    @property
    def pending_images(self) -> list[PromptImage]:
        """The images that have cells to evaluate."""
        return [] if self._image_runs is None else self._image_runs.after(self.n_evaluated)

    @property
    def waits_for_image(self) -> bool:
        """Whether its next tokens are of an image that is not encoded yet, or cannot be."""
        run = self.image_run
        if run is None:
            return False
        found = self.embeddings.get(run.image.key)
        return found is None or not found.done() or found.exception() is not None

    def next_tokens(self, limit: int) -> list[int]:
        """Return what to evaluate next, at most ``limit`` tokens."""
        start = self.n_evaluated
        if start >= len(self.prompt):
            start -= len(self.prompt)
            return self.answer.tokens[start : start + limit]
        return self.prompt[start : start + limit]

    def draft(self, limit: int) -> Draft | None:
        """Return a guess of at most ``limit`` tokens that follow its last one; ``None`` if it has no draft."""
        if self.drafter is None or not self.answer.tokens:
            return None
        draft = self.drafter.draft(min(limit, self.n_left - 1))
        return draft if draft.tokens else None

    @property
    def query(self) -> Query:
        """What it needs of the KV cache, once it is resolved."""
        return Query(
            self.all_tokens if self.answer.tokens else self.prompt,
            self.own_sequence,
            self.scope,
            adapters=self.adapters.key,
            n_prompt=len(self.prompt),
            n_at_first=self.reservation.most_at_first,
        )

    @property
    def is_unwanted(self) -> bool:
        """Whether it is to end: it was cancelled, or its conversation was forgotten."""
        return self.cancelled or (self.conversation is not None and self.conversation.forgotten)

    # --- what happens to it

    def extend(self, lease: Lease) -> None:
        """Start, or go on, with the sequence of a lease, which its conversation keeps as well."""
        self.hold(lease)
        self.start()
        if self.conversation is not None and self.conversation.sequence is not lease.sequence:
            self.conversation.hold(lease.another())
        if self.n_reused is None:
            self.n_reused = len(lease.sequence.tokens)

    @property
    def has_begun(self) -> bool:
        """Whether it runs, or ran before and waits to go on."""
        return self.n_reused is not None

    def start(self) -> None:
        """Make the sampler and the drafter, unless the request goes on after it was preempted."""
        if self.sampler is None:
            text = texts_only(self.prompt) if self.images else self.prompt
            self.sampler = self._make_sampler(text)
            if self._make_drafter is not None:
                self.drafter = self._make_drafter(text)
            self.answer.clock.start()

    def accept(self, token: int, vocab: LlamaVocab, *, last: bool, logprob: TokenLogprob | None = None) -> bool:
        """Take a token; ``last`` if it ends the generation. Return whether that goes on."""
        self.answer.append(token, vocab, last=last, logprob=logprob)
        if self.drafter is not None:
            self.drafter.observe(token)
        if last or self.answer.stopped:
            self.finish("stop")
        elif len(self.answer.tokens) >= self.reservation.max_tokens:
            self.finish("length")
        return self.finish_reason is None

    def finish(self, reason: FinishReason) -> None:
        """End the generation. Doing so twice is doing so once."""
        if self.finish_reason is None:
            self.answer.finish()
            self.finish_reason = reason
            self.status = Status.FINISHED

    def fail(self, error: Exception) -> None:
        """End the generation with an error.

        Once it has begun, or where the error is of another library, the caller gets an error with the text so far.
        """
        if self.finish_reason is not None:
            return
        self.finish("cancelled")
        if self.sampler is not None or not isinstance(error, CyllamaError):
            message = f"the generation failed after {len(self.tokens)} tokens: {error}"
            kind = GrammarError if isinstance(error, GrammarError) else DecodeError
            self.error = kind(message, partial_text=self.answer.text)
            self.error.__cause__ = error
        else:
            self.error = error

    def close(self, vocab: LlamaVocab) -> None:
        """Add the answer to the conversation, and tell the caller that the generation has ended."""
        self.sampler = self.drafter = None
        self.embeddings = {}
        self.adapters = NO_ADAPTERS  # a response that is kept does not keep them
        if self.conversation is not None:
            if self._is_turn(self.conversation):
                self._end_turn(self.conversation, vocab)
            self.conversation.requests.discard(self)
        self.answer.close()

    def _is_turn(self, conversation: Conversation) -> bool:
        """Whether the conversation has a new turn: not if it failed, or was cancelled before it began to answer."""
        if self.error is not None or not self.prompt or conversation.forgotten:
            return False
        return bool(self.tokens) or self.finish_reason == "length"

    def _end_turn(self, conversation: Conversation, vocab: LlamaVocab) -> None:
        given, text = self._given, self.answer.text
        prompt_text = given.text
        if given.continuation is not None and prompt_text is not None:
            before = conversation.history.text
            prompt_text = None if before is None else before + prompt_text
        answer = self.answer.visible_tokens(vocab, lambda rest: given.tokenize(given.mark(rest, ())))
        n_reply = len(answer)
        if answer and not self.answer.has_text(answer[-1], vocab):
            n_reply -= 1
        if prompt_text is not None:
            text = given.mark(text, self.answer.control_positions(vocab))
        conversation.end_turn(self.prompt, prompt_text, answer, text, n_reply, self.images)

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(
            prompt_tokens=len(self.prompt), completion_tokens=len(self.tokens), cached_tokens=self.n_reused or 0
        )
