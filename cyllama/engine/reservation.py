"""How much of the context one request reserves."""

from __future__ import annotations


class Reservation:
    """The tokens of the context that one request reserves.

    A request whose answer may become long starts with less than it may need, and doubles that when the context is full.

    >>> reservation = Reservation(100, limit=4096, required=612)
    >>> reservation.tokens(612), reservation.can_grow, reservation.next_tokens(612)
    (613, True, 1226)

    Attributes:
        required: Tokens that the context must have room for before the request starts, or goes on.
        max_tokens: Most tokens of the answer.
        most: Most tokens of prompt and answer together.
    """

    def __init__(self, n_prompt: int = 0, *, limit: int = 0, required: int = 0, max_tokens: int | None = None) -> None:
        """Reserve what a prompt and its answer need at first.

        Args:
            n_prompt: Tokens of the prompt.
            limit: Most tokens of prompt and answer that fit.
            required: Tokens that the context must have room for at first.
            max_tokens: Most tokens of the answer; ``None`` for all that fit.
        """
        fit = limit - n_prompt
        self.max_tokens = fit if max_tokens is None else min(fit, max_tokens)
        self.most = n_prompt + self.max_tokens
        self.required = required

    @property
    def most_at_first(self) -> int:
        """Most tokens of prompt and answer before the context has to grow."""
        return min(self.required, self.most)

    @property
    def can_grow(self) -> bool:
        """Whether the request may need more than it reserves now."""
        return self.required < self.most

    def tokens(self, n_tokens: int) -> int:
        """Return what a request of ``n_tokens`` reserves: after it was preempted, that may be more than it required."""
        return max(self.required, n_tokens + 1)

    def next_tokens(self, n_tokens: int) -> int:
        """Return what a request of ``n_tokens`` reserves after :meth:`grow`."""
        tokens = self.tokens(n_tokens)
        return min(2 * tokens, self.most) if self.can_grow else tokens

    def grow(self, n_tokens: int) -> None:
        """Reserve twice as much."""
        self.required = max(self.required, self.next_tokens(n_tokens))
