"""Counters of what an engine and an embedder have done, and their state now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class SessionStats:
    """What a session has, and what it does, at the moment when the statistics were read.

    >>> answer = llm.session("ada")("My name is Ada.", max_tokens=8)
    >>> [ada] = llm.stats.sessions
    >>> ada.place, ada.running, ada.cells == answer.usage.total_tokens - 1
    ('resident', 0, True)

    Attributes:
        name: Its name.
        tokens: Tokens that it holds; while one of its generations runs, those of the prompt and the answer that were
            evaluated.
        place: Where its KV cache is: in the context ("resident"), in host memory ("swapped"), or nowhere ("dropped"):
            then its tokens are evaluated again when it goes on.
        cells: Cells of the context that it has alone.
        shared_cells: Cells of the context that it has together with others, since they begin with the same tokens.
        cell_share: Its part of the cells in use: those that it has alone, and an equal part of those that it shares.
        running: Generations of it that take part in the batches.
        waiting: Generations of it that have not started, or wait to go on.
    """

    name: str
    tokens: int
    place: Literal["resident", "swapped", "dropped"]
    cells: int
    shared_cells: int
    cell_share: float
    running: int
    waiting: int


@dataclass
class Stats:
    """Counters since the model was loaded, and the state at the moment when they were read.

    They make the rules for contexts observable.

    >>> _ = llm("Once upon a time", max_tokens=8)
    >>> llm.stats.running, llm.stats.n_ctx > 0
    (0, True)

    Attributes:
        contexts_created: Contexts for generation that were created.
        context_reuses: Generations that started in a context that existed already.
        n_ctx: Size of the context in tokens, of all conversations together; 0 without a context.
        prompt_tokens_evaluated: Tokens of prompts that were evaluated.
        prompt_tokens_reused: Tokens of prompts that the KV cache held already.
        tokens_generated: Tokens that were sampled.
        tokens_drafted: Tokens that were drafted and evaluated, see ``speculation``.
        tokens_accepted: Drafted tokens that were sampled as well.
        model_tokens_drafted: Those of the drafted tokens that the draft model drafted.
        model_tokens_accepted: Those of the accepted tokens that the draft model drafted.
        draft_steps: Batches that the draft model decoded.
        draft_n_ctx: Size of the draft model's context in tokens; 0 without one.
        draft_bytes: Bytes of that context, by device.
        steps: Batches that were decoded.
        tokens_decoded: Tokens of all batches.
        adapter_switches: How often a batch was computed with other LoRA adapters than the batch before.
        running: Generations that take part in the batches.
        waiting: Generations that have not started, or wait to go on.
        resident: Sessions whose KV cache is in the context.
        swapped: Sessions whose KV cache is in host memory.
        dropped: Sessions whose KV cache is nowhere; their tokens are evaluated again when they are used.
        kept_prefixes: Calls whose KV cache is kept for others, by ``prefix_cache``.
        kv_cells: Cells of the context; a cell holds one token.
        kv_cells_used: Cells that hold a token.
        kv_cells_shared: Cells of these that several sessions or generations have together.
        host_bytes: Bytes of host memory that swapped sessions and checkpoints take.
        image_bytes: Bytes of host memory that images take: pixels of those in sessions, and embeddings that are kept.
        sessions: What each session has and does, the oldest one first.
        n_layers: Layers of the model; the output counts as one, as in ``n_gpu_layers``.
        n_gpu_layers: How many of them are on GPUs.
        weights_bytes: Bytes of the model's weights, by the name of the device; "CPU" is host memory.
        kv_cache_bytes: Bytes of the context for keys, values and states, by device; empty without a context.
        compute_bytes: Bytes of its buffers for what is computed, by device; empty without a context.
        embedding_contexts_created: Contexts for embeddings that were created.
        embedding_context_reuses: Calls whose embeddings were computed in a context that existed already.
        embedding_n_ctx: Most tokens of one pass in that context; 0 without such a context.
        embedding_passes: Passes over texts that were computed.
        texts_embedded: Texts of all passes.
        tokens_embedded: Tokens of all passes.
    """

    contexts_created: int = 0
    context_reuses: int = 0
    n_ctx: int = 0
    prompt_tokens_evaluated: int = 0
    prompt_tokens_reused: int = 0
    tokens_generated: int = 0
    tokens_drafted: int = 0
    tokens_accepted: int = 0
    model_tokens_drafted: int = 0
    model_tokens_accepted: int = 0
    draft_steps: int = 0
    draft_n_ctx: int = 0
    draft_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    steps: int = 0
    tokens_decoded: int = 0
    adapter_switches: int = 0
    running: int = 0
    waiting: int = 0
    resident: int = 0
    swapped: int = 0
    dropped: int = 0
    kept_prefixes: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    kv_cells_shared: int = 0
    host_bytes: int = 0
    image_bytes: int = 0
    sessions: tuple[SessionStats, ...] = ()
    n_layers: int = 0
    n_gpu_layers: int = 0
    weights_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    kv_cache_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    compute_bytes: Mapping[str, int] = field(default_factory=dict[str, int])
    embedding_contexts_created: int = 0
    embedding_context_reuses: int = 0
    embedding_n_ctx: int = 0
    embedding_passes: int = 0
    texts_embedded: int = 0
    tokens_embedded: int = 0

    @property
    def mean_batch_size(self) -> float:
        """Tokens per batch, on average; 0 before the first batch."""
        return self.tokens_decoded / self.steps if self.steps else 0.0

    def snapshot(self, **changes: Any) -> Stats:
        """Return a copy, which does not change any more, with some values replaced.

        >>> Stats().snapshot(running=1).running
        1

        Args:
            **changes: Values by name.
        """
        return replace(self, **changes)
