"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from typing_extensions import Self

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """Tokens that a generation took.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated, the one that ended the generation included.
        cached_tokens: Tokens of the prompt that did not have to be evaluated.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Where the time of a generation went, in seconds.

    Attributes:
        queued: Waiting for the turn, and for a context where one had to be created.
        prompt: Evaluating the prompt, up to the first token.
        generation: Everything after the first token.
    """

    queued: float = 0.0
    prompt: float = 0.0
    generation: float = 0.0

    @property
    def total(self) -> float:
        """From the call to the last token."""
        return self.queued + self.prompt + self.generation


class Response(str):
    """The generated text, a ``str`` that also knows how it came about.

    >>> response = llm("Once upon a time", max_tokens=8)
    >>> response.finish_reason, response.usage.completion_tokens
    ('length', 8)

    Attributes:
        finish_reason: "stop" (an end token or a stop sequence), "length" (``max_tokens`` or the end of the context) or
            "cancelled".
        usage: Tokens that it took.
        timings: Seconds that it took.
        model: Name of the model.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str

    def __new__(
        cls,
        text: str = "",
        *,
        finish_reason: FinishReason = "stop",
        usage: Usage | None = None,
        timings: Timings | None = None,
        model: str = "",
    ) -> Self:
        """Make a response of a text; the rest has defaults, so that copies and pickles work."""
        self = super().__new__(cls, text)
        self.finish_reason = finish_reason
        self.usage = usage or Usage()
        self.timings = timings or Timings()
        self.model = model
        return self

    @property
    def text(self) -> str:
        """The text as a plain ``str``."""
        return str.__str__(self)
