"""What the tenants of a model have had of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from cyllama import Usage

from .tenants import Tenant


@dataclass
class Counters:
    """Tokens since the model was loaded.

    Attributes:
        generated: Tokens that were generated.
        evaluated: Tokens of prompts that were evaluated.
        reused: Tokens of prompts that the KV cache held.
    """

    generated: int = 0
    evaluated: int = 0
    reused: int = 0


class Activity:
    """Counts the tokens of each tenant: a tenant sees its own ones, and not those of the whole model."""

    def __init__(self) -> None:
        self._of: defaultdict[str, Counters] = defaultdict(Counters)

    def of(self, tenant: Tenant) -> Counters:
        """Return what a tenant has had."""
        return self._of[tenant.id]

    def count_piece(self, tenant: Tenant) -> None:
        """Count a piece of an answer, which is a token as far as can be told before the end."""
        self._of[tenant.id].generated += 1

    def count_answer(self, tenant: Tenant, usage: Usage, n_pieces: int) -> None:
        """Count an answer that has ended.

        Args:
            tenant: Whose answer it is.
            usage: Its tokens.
            n_pieces: How many pieces of it were counted.
        """
        counters = self._of[tenant.id]
        counters.generated += max(0, usage.completion_tokens - n_pieces)
        counters.evaluated += usage.prompt_tokens - usage.cached_tokens
        counters.reused += usage.cached_tokens
