"""The context of a draft model: one sequence for each request that it drafts for, in step with the request's tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import NamedTuple

from ..config import ModelConfig
from ..errors import DecodeError
from ..llama.llama_cpp import LlamaBatch, LlamaContext, LlamaModel, LlamaState
from .context import create_context
from .context_params import context_params, padded
from .memory import memory_of
from .memory_needs import WAY_OUT, check_kv_memory
from .residency import FAILURES
from .stats import Stats
from .tuning import CHUNK, MOST_DRAFTED

DONE, NO_SPACE = 0, 1  # what LlamaContext.decode returns


class DraftModel(NamedTuple):
    """A model that drafts for another one.

    Attributes:
        model: The model.
        config: How it is computed.
        name: Its name.
    """

    model: LlamaModel
    config: ModelConfig
    name: str

    @property
    def can_draft(self) -> bool:
        """Whether its memory can go back to an earlier token, where a draft was wrong."""
        return memory_of(self.model, swa_full=self.config.swa_full).drops_drafts


class InterruptedDraftError(Exception):
    """No caller waits for the draft any more."""


@dataclass(eq=False)
class DraftSequence:
    """The tokens that the draft model has evaluated for one owner.

    Attributes:
        seq_id: Its id in the context.
        tokens: The token ids.
    """

    seq_id: int
    tokens: list[int] = field(default_factory=list[int])


class Wanted(NamedTuple):
    """A draft to be made.

    Attributes:
        owner: Whose sequence it continues.
        tokens: The tokens before it. Those that miss, of all drafts together, fit into a batch: see ``capacity``.
        limit: Most tokens to draft.
        goes_on: Is told each token and its probability; returns whether another one is wanted after it.
    """

    owner: Hashable
    tokens: list[int]
    limit: int
    goes_on: Callable[[int, float], bool]


class DraftContext:
    """At most one context of the draft model, and its sequences: by owner, the one that was used last at the end.

    A sequence goes back to the last token that it has in common with the request, and is evaluated from there. It
    leaves the context with its owner, or when others need its id or its cells. Only the engine's thread uses it.

    Attributes:
        n_ctx: Size of the context in tokens; 0 without one.
        decoding: The context while it may be decoding.
    """

    def __init__(
        self, draft: DraftModel, n_parallel: int, stats: Stats, may_decode: Callable[[LlamaContext], bool]
    ) -> None:
        """Make one without a context.

        Args:
            draft: The model.
            n_parallel: For how many requests it drafts at once.
            stats: The counters to add to.
            may_decode: Takes back an earlier abort of a context; returns whether a caller waits for a decode.
        """
        self._model = draft.model
        # a batch has at most MOST_DRAFTED drafted tokens, so that no more requests are drafted for at once
        self._config = draft.config.merge(n_parallel=min(n_parallel, MOST_DRAFTED), kv_cells=None)
        self._memory = memory_of(draft.model, swa_full=draft.config.swa_full)
        self._stats = stats
        self._may_decode = may_decode
        self._context: LlamaContext | None = None
        self._batch = LlamaBatch(1)
        self._sequences: dict[Hashable, DraftSequence] = {}
        self._free_ids: list[int] = []
        self.n_ctx = 0
        self.decoding: LlamaContext | None = None

    @property
    def owners(self) -> list[Hashable]:
        """Whose sequences the context has, the one that was used last at the end."""
        return list(self._sequences)

    # --- the context

    def ensure(self, needs: dict[Hashable, int], n_ctx: int) -> None:
        """Have a context with ids and cells for these owners. A larger one takes over what the old one has.

        Args:
            needs: Tokens that each owner needs at most until the next call.
            n_ctx: Tokens that a new context has at least.

        Raises:
            ContextMemoryError, ContextError: It cannot be created. Then there is no context.
        """
        needed = sum(needs.values())
        if self._context is None or needed > self.n_ctx:
            self._replace(max(n_ctx, needed * 3 // 2 if self.n_ctx else needed))
        idle = [owner for owner in self._sequences if owner not in needs]
        n_new = sum(owner not in self._sequences for owner in needs)
        while idle and (len(self._free_ids) < n_new or needed + self._n_tokens(idle) > self.n_ctx):
            self.release(idle.pop(0))

    def _n_tokens(self, owners: Sequence[Hashable]) -> int:
        return sum(len(self._sequences[owner].tokens) for owner in owners)

    def _replace(self, n_ctx: int) -> None:
        old, states = self._context, dict[Hashable, tuple[list[int], LlamaState]]()
        if old is not None:
            states = {owner: (each.tokens, old.state_seq_copy(each.seq_id)) for owner, each in self._sequences.items()}
        self.close()
        self._create(padded(n_ctx))
        for owner, (tokens, state) in states.items():
            self._restore(owner, tokens, state)

    def _create(self, n_ctx: int) -> None:
        check_kv_memory(self._model, self._config, n_ctx)
        params = context_params(self._config, n_ctx=n_ctx, n_batch=CHUNK, model=self._model)
        self._context = create_context(self._model, params, WAY_OUT)
        self._memory.attach(self._context)
        self._batch = LlamaBatch(self._context.n_batch)
        self._free_ids = list(range(self._context.n_seq_max))[::-1]
        self.n_ctx = self._stats.draft_n_ctx = n_ctx
        uses = self._context.memory_use()
        self._stats.draft_bytes = {use.device: use.kv_cache + use.compute for use in uses if use.kv_cache + use.compute}

    def _restore(self, owner: Hashable, tokens: list[int], state: LlamaState) -> None:
        """Take over a sequence of the context before; where that fails, it is evaluated again."""
        context, sequence = self._context, self._sequence(owner)
        assert context is not None
        try:
            context.state_seq_set_data(state, sequence.seq_id)
            sequence.tokens = tokens
        except FAILURES:
            self.release(owner)

    def close(self) -> None:
        """Close the context and forget all sequences."""
        if self._context is not None:
            self._context.close()
        self._context = self.decoding = None
        self._batch = LlamaBatch(1)
        self._sequences, self._free_ids = {}, []
        self.n_ctx = self._stats.draft_n_ctx = 0
        self._stats.draft_bytes = {}

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` where what is recorded of sequences is not what llama.cpp has."""
        if self._context is not None and self._context.closed:  # with its model, which its owner has freed
            return
        for owner, sequence in self._sequences.items():
            assert self._context is not None, "there are sequences without a context"
            n = len(sequence.tokens)
            held = self._memory.holds(self._context, sequence.seq_id, n)
            assert held, f"the draft model does not have the {n} tokens of {owner}"
        ids = [*self._free_ids, *(each.seq_id for each in self._sequences.values())]
        n_ids = 0 if self._context is None else self._context.n_seq_max
        assert sorted(ids) == list(range(n_ids)), "ids of the draft model's context are lost, or used twice"

    def pause_threads(self) -> None:
        """Let the threads of the context sleep, so that they take no time from those of another one."""
        if self._context is not None:
            self._context.pause_threads()

    @property
    def capacity(self) -> int:
        """Most tokens of a batch."""
        return self._batch.capacity

    # --- its sequences

    def release(self, owner: Hashable) -> None:
        """Give back what an owner has."""
        sequence = self._sequences.pop(owner, None)
        if sequence is not None and self._context is not None:
            self._context.seq_rm(sequence.seq_id)
            self._free_ids.append(sequence.seq_id)

    def n_missing(self, owner: Hashable, tokens: list[int]) -> int:
        """Return how many of the tokens of an owner have to be evaluated before one can be drafted; 1 at least."""
        sequence = self._sequences.get(owner)
        return len(tokens) - (0 if sequence is None else self._n_common(sequence, tokens))

    def _n_common(self, sequence: DraftSequence, tokens: list[int]) -> int:
        """Return how many tokens of a sequence can be used to draft after others."""
        n = min(len(sequence.tokens), len(tokens) - 1)
        if sequence.tokens[:n] != tokens[:n]:
            n = next(i for i, (a, b) in enumerate(zip(sequence.tokens, tokens, strict=False)) if a != b)
        if n < len(sequence.tokens) and not self._memory.can_roll_back(self._context, sequence.seq_id, n):
            return 0
        return n

    def _sequence(self, owner: Hashable) -> DraftSequence:
        """Return the sequence of an owner, made if it does not exist, as the one that was used last."""
        sequence = self._sequences.pop(owner, None) or DraftSequence(self._free_ids.pop())
        self._sequences[owner] = sequence
        return sequence

    def _go_back(self, owner: Hashable, tokens: list[int]) -> DraftSequence:
        """Return the sequence of an owner, with no tokens but such as its next draft goes on from."""
        assert self._context is not None
        sequence = self._sequence(owner)
        n = self._n_common(sequence, tokens)
        if n < len(sequence.tokens):
            self._context.seq_rm(sequence.seq_id, n)
            del sequence.tokens[n:]
        return sequence

    # --- what it computes

    def catch_up(self, owner: Hashable, tokens: list[int], limit: int) -> None:
        """Evaluate at most ``limit`` of the tokens that an owner misses, but not the last one.

        Raises:
            InterruptedDraftError: No caller waits for it any more.
            DecodeError, RuntimeError: It failed.
        """
        sequence = self._go_back(owner, tokens)
        part = tokens[len(sequence.tokens) : -1][: min(limit, self._batch.capacity)]
        if part:
            self._batch.clear()
            self._add(sequence, part, has_output=False)
            self._decode([sequence])

    def draft(self, wanted: Sequence[Wanted]) -> list[list[int]]:
        """Return a draft for each of these, all of them made together: the likeliest tokens, one after the other.

        Raises:
            InterruptedDraftError: No caller waits for them any more.
            DecodeError, RuntimeError: It failed.
        """
        drafts: list[list[int]] = [[] for _ in wanted]
        sequences = [self._go_back(each.owner, each.tokens) for each in wanted]
        rows = {i: each.tokens[len(sequences[i].tokens) :] for i, each in enumerate(wanted)}
        while rows:
            self._batch.clear()
            ends = {i: self._add(sequences[i], tokens, has_output=True) for i, tokens in rows.items()}
            context = self._decode([sequences[i] for i in rows])
            rows = {}
            for i, end in ends.items():
                _, [(token, logprob)] = context.get_logprobs_ith(end, 0, 1)
                drafts[i].append(token)
                if wanted[i].goes_on(token, exp(logprob)) and len(drafts[i]) < wanted[i].limit:
                    rows[i] = [token]
        return drafts

    def _add(self, sequence: DraftSequence, tokens: list[int], *, has_output: bool) -> int:
        """Add tokens of a sequence to the batch; return the index of the last one."""
        self._batch.add_sequence(tokens, len(sequence.tokens), sequence.seq_id, has_output)
        sequence.tokens += tokens
        return len(self._batch) - 1

    def _decode(self, sequences: Sequence[DraftSequence]) -> LlamaContext:
        """Evaluate the batch, which has tokens of these sequences. They are forgotten where that fails."""
        context = self.decoding = self._context
        assert context is not None
        status: int | None = None
        try:
            if not self._may_decode(context):
                raise InterruptedDraftError
            status = context.decode(self._batch)
        finally:
            self.decoding = None
            if status != DONE:
                for owner in [owner for owner, each in self._sequences.items() if each in sequences]:
                    self.release(owner)
        if status == NO_SPACE:
            raise DecodeError("the context of the draft model has too few cells")
        if status != DONE:
            raise InterruptedDraftError
        self._stats.draft_steps += 1
        return context
