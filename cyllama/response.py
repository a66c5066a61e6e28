"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Self

if TYPE_CHECKING:
    from .grammar import ResponseFormat

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Usage:
    """How many tokens a generation took.

    >>> usage = llm("Once upon a time", max_tokens=8).usage
    >>> usage.prompt_tokens == llm.count_tokens("Once upon a time"), usage.completion_tokens
    (True, 8)

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated, the one that ended the generation included.
        cached_tokens: Tokens of the prompt that were in the KV cache, and not evaluated.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Tokens of the prompt and of the completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Where the time of a generation went, in seconds, and what was drafted to save some.

    >>> timings = llm("Once upon a time", max_tokens=8).timings
    >>> timings.total >= timings.prompt + timings.generation > 0
    True

    Attributes:
        queued: Seconds until it began to run, creation of a context included.
        prompt: Seconds for the evaluation of the prompt, up to the first token.
        generation: Seconds for everything after the first token.
        tokens_drafted: Tokens that were drafted and evaluated, see the option ``speculation``.
        tokens_accepted: Drafted tokens that were right: each saved a step.
    """

    queued: float = 0.0
    prompt: float = 0.0
    generation: float = 0.0
    tokens_drafted: int = 0
    tokens_accepted: int = 0

    @property
    def total(self) -> float:
        """Seconds from the call to the last token."""
        return self.queued + self.prompt + self.generation


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its probability for the model, before temperature and all other options of sampling.

    >>> first = llm("Once upon a time", max_tokens=8, logprobs=2).logprobs[0]
    >>> first.logprob <= 0, len(first.top), first.top[0].token == first.token
    (True, 2, True)

    Attributes:
        token: Its text; U+FFFD stands for bytes that are a part of a character only.
        token_id: Its id.
        logprob: Natural logarithm of its probability, at most 0.
        bytes: Its bytes.
        top: The most likely tokens in its place, most likely first, as many as ``logprobs`` asked for. Their own
            ``top`` is empty.
    """

    token: str
    token_id: int
    logprob: float
    bytes: bytes = field(repr=False)
    top: tuple[TokenLogprob, ...] = ()


class TextChunk(str):
    """A piece of generated text, a ``str``.

    >>> chunks = list(llm("Once upon a time", max_tokens=8, logprobs=0, stream=True))
    >>> sum(len(chunk.logprobs) for chunk in chunks)
    8

    Attributes:
        logprobs: The tokens whose text became certain with it, where ``logprobs`` were asked for.
    """

    logprobs: tuple[TokenLogprob, ...]

    def __new__(cls, text: str = "", logprobs: tuple[TokenLogprob, ...] = ()) -> Self:
        """Make a chunk of a text."""
        self = super().__new__(cls, text)
        self.logprobs = logprobs
        return self


class Response(str):
    """The generated text, a ``str`` with what is known of its generation.

    >>> response = llm("Once upon a time", max_tokens=8)
    >>> response.finish_reason, response.usage.completion_tokens
    ('length', 8)

    Attributes:
        finish_reason: "stop" (an end token or a stop sequence), "length" (``max_tokens`` or the end of the context) or
            "cancelled".
        usage: How many tokens it took.
        timings: How many seconds it took.
        model: Name of the model.
        logprobs: The log probability of every generated token, the one that ended the generation included; ``None``
            where they were not asked for.
        response_format: What the text has to look like, if that was asked for.
    """

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str
    logprobs: tuple[TokenLogprob, ...] | None
    response_format: ResponseFormat | None

    def __new__(
        cls,
        text: str = "",
        *,
        finish_reason: FinishReason = "stop",
        usage: Usage | None = None,
        timings: Timings | None = None,
        model: str = "",
        logprobs: tuple[TokenLogprob, ...] | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Self:
        """Make a response of a text; the rest has defaults, so that copies and pickles work."""
        self = super().__new__(cls, text)
        self.finish_reason = finish_reason
        self.usage = usage or Usage()
        self.timings = timings or Timings()
        self.model = model
        self.logprobs = logprobs
        self.response_format = response_format
        return self

    @property
    def text(self) -> str:
        """The text as a plain ``str``."""
        return str.__str__(self)

    @property
    def parsed(self) -> Any:
        """The value of the text: an instance of the pydantic model, or what the JSON means.

        ``None`` where no ``response_format`` was asked for.

        Raises:
            OutputError: The text was cut off before its end.
        """
        return None if self.response_format is None else self.response_format.parse(self.text)
