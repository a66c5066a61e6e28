"""What a draft model expects of one request, and how often it was right."""

from __future__ import annotations

from collections.abc import Container

from .lookup import Draft
from .tuning import FORGETTING, LEARNING_RATE, MODEL_CHANCES, MODEL_USUAL_CHANCE, SURE


class ModelDrafter:
    """The tokens that a draft model expects next of one request, with the chances that they are right.

    How often it is right is learned from every token that it has expected, evaluated or not, apart for tokens of which
    it is more or less sure. A request of which it was wrong is tried again after some hundred tokens.

    >>> drafter = ModelDrafter(ends=())
    >>> [drafter.expect(token, 0.99) for token in (5, 6)]
    [True, True]
    >>> drafter.draft(8).tokens
    [5, 6]
    >>> drafter.observe(5)
    >>> drafter.draft(8).tokens
    [6]
    >>> drafter.observe(7)
    >>> drafter.draft(8).tokens
    []

    Attributes:
        usual_chance: How likely the next token that it expects is right, before the model was asked.
    """

    def __init__(self, ends: Container[int], n_vocab: int | None = None) -> None:
        """Make one that expects nothing.

        Args:
            ends: Tokens that are never drafted: those that end a generation.
            n_vocab: Tokens of the vocabulary, if the draft model may have more.
        """
        self.usual_chance = MODEL_USUAL_CHANCE
        self._has_begun = False
        self._ends = ends
        self._n_vocab = n_vocab
        self._chances = list(MODEL_CHANCES)
        self._expected: list[tuple[int, int]] = []  # tokens, and how sure the model is of each

    def begin(self, usual_chance: float) -> None:
        """Begin with how often the model was right for other requests, unless it has begun."""
        if not self._has_begun:
            self._has_begun, self.usual_chance = True, usual_chance

    def expect(self, token: int, probability: float) -> bool:
        """Take the next token that the model expects. Return whether one may follow it."""
        if token in self._ends or (self._n_vocab is not None and token >= self._n_vocab):
            return False
        self._expected.append((token, sum(probability >= bound for bound in SURE)))
        return True

    @property
    def last_chance(self) -> float:
        """How likely it is that all tokens which are expected are right."""
        draft = self.draft(len(self._expected))
        return draft.chances[-1] if draft.chances else 1.0

    def observe(self, token: int) -> None:
        """Take the next token of the request, and learn whether it was the expected one."""
        if not self._expected:
            self.usual_chance += (MODEL_USUAL_CHANCE - self.usual_chance) * FORGETTING
            return
        expected, kind = self._expected.pop(0)
        is_right = token == expected
        self._chances[kind] += (is_right - self._chances[kind]) * LEARNING_RATE
        self.usual_chance += (is_right - self.usual_chance) * LEARNING_RATE
        if not is_right:
            self._expected.clear()

    def draft(self, limit: int) -> Draft:
        """Return at most ``limit`` of the tokens that are expected."""
        draft, chance = Draft([], []), 1.0
        for token, kind in self._expected[:limit]:
            chance *= self._chances[kind]
            draft.tokens.append(token)
            draft.chances.append(chance)
        return draft
