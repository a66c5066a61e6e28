"""How long a model may reason."""

from __future__ import annotations

from dataclasses import dataclass

from ..control_text import tokenize_after
from ..errors import ConfigError, ConfigTypeError
from ..llama.llama_cpp import LlamaChatParams, LlamaSampler, LlamaVocab

_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class ReasoningBudget:
    """How many tokens a model may reason with, and how reasoning is marked in an answer.

    Attributes:
        tokens: Tokens between the tags; then the end is forced.
        start: What reasoning begins with.
        ends: What it can end with. The first of them is forced.
        inside: Whether the prompt ends within reasoning.
    """

    tokens: int
    start: str
    ends: tuple[str, ...]
    inside: bool

    def sampler(self, vocab: LlamaVocab) -> LlamaSampler:
        """Return the sampler that counts tokens of reasoning and forces its end, for a chain."""
        tokenized = [tokenize_after(vocab, text, parse_special=True) for text in (self.start, self.ends[0])]
        # A text may spell a tag; only a control token is one.
        anywhere = bool(tokenized[0]) and vocab.is_control(tokenized[0][0])
        return LlamaSampler.reasoning_budget(
            vocab, self.start, list(self.ends), tokenized[1], self.tokens, self.inside, anywhere
        )


def check_budget(budget: int | None) -> int | None:
    """Return how many tokens of reasoning are allowed; ``None`` for any number.

    Raises:
        ConfigTypeError: It is not an int.
        ConfigError: It is out of range.
    """
    if budget is None or (budget == -1 and not isinstance(budget, bool)):
        return None
    if not isinstance(budget, int) or isinstance(budget, bool):
        raise ConfigTypeError(f"reasoning_budget is a number of tokens, not {type(budget).__name__}: {budget!r:.80}")
    if not 0 <= budget <= _LARGEST:
        raise ConfigError(f"reasoning_budget is 0 to {_LARGEST} tokens, or -1 for any number, not {budget}")
    return budget


def budget_of(tokens: int | None, params: LlamaChatParams, *, inside: bool | None = None) -> ReasoningBudget | None:
    """Return the budget of an answer; ``None`` without a budget, or without a place for reasoning.

    Args:
        tokens: Tokens of reasoning that are allowed.
        params: How the answer is written.
        inside: Whether the prompt ends within reasoning; by default as the template has it.
    """
    start, ends = params.thinking_start_tag.strip(), [end.strip() for end in params.thinking_end_tags if end.strip()]
    if tokens is None or not start or not ends:
        return None
    if inside is None:
        inside = params.generation_prompt.rstrip().endswith(start)
    return ReasoningBudget(tokens, start, tuple(ends), inside)
