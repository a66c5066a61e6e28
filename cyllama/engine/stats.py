"""What an engine has done so far, and what it is doing."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Stats:
    """Counters that make the context rules observable, and the state of things at the moment they were taken.

    Attributes:
        contexts_created: Contexts created since the model was loaded.
        context_reuses: Generations that ran in a context that was there already.
        n_ctx: Size of the context in tokens, of all conversations together; 0 where there is none.
        prompt_tokens_evaluated: Tokens of prompts that were evaluated.
        prompt_tokens_reused: Tokens of prompts that a KV cache held already.
        tokens_generated: Tokens sampled.
        steps: Batches decoded.
        tokens_decoded: Tokens in all of them.
        adapter_switches: How often the next batch was computed with other LoRA adapters than the one before.
        running: Generations that take part in the batches.
        waiting: Generations whose turn has not come.
        resident: Sessions whose KV cache is in the context.
        swapped: Sessions whose KV cache is in host memory.
        dropped: Sessions that are evaluated again when they are used.
        kv_cells: Cells of the context, of one token each.
        kv_cells_used: Cells that hold a token.
        host_bytes: Host memory that swapped sessions and checkpoints take.
        embedding_contexts_created: Contexts for embeddings created since the model was loaded.
        embedding_context_reuses: Calls whose embeddings were computed in a context that was there already.
        embedding_n_ctx: Most tokens of one pass in that context; 0 where there is none.
        embedding_passes: Batches of texts that were evaluated.
        texts_embedded: Texts in all of them.
        tokens_embedded: Tokens in all of them.
    """

    contexts_created: int = 0
    context_reuses: int = 0
    n_ctx: int = 0
    prompt_tokens_evaluated: int = 0
    prompt_tokens_reused: int = 0
    tokens_generated: int = 0
    steps: int = 0
    tokens_decoded: int = 0
    adapter_switches: int = 0
    running: int = 0
    waiting: int = 0
    resident: int = 0
    swapped: int = 0
    dropped: int = 0
    kv_cells: int = 0
    kv_cells_used: int = 0
    host_bytes: int = 0
    embedding_contexts_created: int = 0
    embedding_context_reuses: int = 0
    embedding_n_ctx: int = 0
    embedding_passes: int = 0
    texts_embedded: int = 0
    tokens_embedded: int = 0

    @property
    def mean_batch_size(self) -> float:
        """Tokens in a batch, on average."""
        return self.tokens_decoded / self.steps if self.steps else 0.0

    def snapshot(self, **changes: int) -> Stats:
        """Return a copy that stays as it is, with some values replaced."""
        return replace(self, **changes)
