"""What an engine has done so far."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass
class Stats:
    """Counters that make the context rules observable.

    Attributes:
        contexts_created: Contexts created since the model was loaded.
        context_reuses: Generations that ran in a context that was there already.
        n_ctx: Size of the context in tokens, 0 where there is none.
        prompt_tokens_evaluated: Tokens of prompts that were evaluated.
        prompt_tokens_reused: Tokens of prompts that a KV cache held already.
        tokens_generated: Tokens sampled.
    """

    contexts_created: int = 0
    context_reuses: int = 0
    n_ctx: int = 0
    prompt_tokens_evaluated: int = 0
    prompt_tokens_reused: int = 0
    tokens_generated: int = 0

    def snapshot(self) -> Stats:
        """Return a copy that stays as it is."""
        return replace(self)
