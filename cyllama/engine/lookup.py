"""Prompt lookup: what a request has said already, as a draft of what it says next."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

from .tuning import FIRST_CHANCES, LEARNING_RATE, NGRAMS


class Draft(NamedTuple):
    """A guess of the next tokens.

    Attributes:
        tokens: Their ids.
        chances: For each one, how likely it is that it and those before it are right.
    """

    tokens: list[int]
    chances: list[float]


class Drafter:
    """Drafts the next tokens of one request: those that followed where its last tokens occurred before.

    The longest repetition that the index finds is followed for as long as it goes on. How often it goes on is learned
    from every token, drafted or not, for short and for long repetitions apart: so a request that begins to copy is
    noticed without a draft that costs anything.

    >>> drafter = Drafter([5, 6, 7, 8, 9, 5, 6], ends=())
    >>> drafter.draft(3).tokens
    [7, 8, 9]
    >>> drafter.observe(1)
    >>> drafter.draft(3).tokens
    []
    """

    def __init__(self, prompt: Sequence[int], ends: Container[int]) -> None:
        """Index a prompt.

        Args:
            prompt: Token ids of the prompt, with the whole history of a conversation.
            ends: Tokens that are never drafted: those that end a generation.
        """
        self._tokens = list(prompt)
        self._ends = ends
        self._indexes = {n: _index(self._tokens, n) for n in NGRAMS}  # n-grams, and where their next token is
        self._chances = list(FIRST_CHANCES)
        self._next = 0  # where the expected token is, 0 without one
        self._length = 0  # how many tokens before that one are the last ones
        self._look_up()

    def observe(self, token: int) -> None:
        """Take the next token of the request, and learn whether it was the expected one."""
        tokens, end = self._tokens, len(self._tokens)
        is_expected = self._next > 0 and tokens[self._next] == token
        if self._next:
            kind = _kind(self._length)
            self._chances[kind] += (is_expected - self._chances[kind]) * LEARNING_RATE
        for n, index in self._indexes.items():
            if n <= end:
                index[tuple(tokens[end - n :])] = end
        tokens.append(token)
        if is_expected:
            self._next += 1
            self._length += 1
        else:
            self._next = self._length = 0
        if self._length < NGRAMS[0]:
            self._look_up()

    def draft(self, limit: int) -> Draft:
        """Return a guess of at most ``limit`` of the next tokens. It is empty where nothing is repeated."""
        draft = Draft([], [])
        if not self._next:
            return draft
        tokens, chance = self._tokens, 1.0
        for i in range(limit):
            place = self._next + i
            token = tokens[place] if place < len(tokens) else draft.tokens[place - len(tokens)]
            if token in self._ends or token < 0:  # of an image
                break
            chance *= self._chances[_kind(self._length + i)]
            draft.tokens.append(token)
            draft.chances.append(chance)
        return draft

    def _look_up(self) -> None:
        """Expect what followed the last occurrence of the longest n-gram that is longer than the current repetition."""
        tokens = self._tokens
        for n, index in self._indexes.items():
            if n <= self._length:
                return
            place = index.get(tuple(tokens[-n:]))
            if place is not None:
                self._next, self._length = place, n
                return


def _index(tokens: Sequence[int], n: int) -> dict[tuple[int, ...], int]:
    """Return where the token after the last occurrence of each n-gram is, if there is one."""
    return dict(zip(zip(*(tokens[i:] for i in range(n)), strict=False), range(n, len(tokens)), strict=False))


def _kind(length: int) -> int:
    """Return what of :data:`FIRST_CHANCES` is for repetitions of this length."""
    return min(length.bit_length() - 1, len(FIRST_CHANCES) - 1)
