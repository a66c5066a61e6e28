"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Self

if TYPE_CHECKING:
    from .chat import Message
    from .grammar import ResponseFormat

FinishReason = Literal["stop", "length", "cancelled"]
ChatFinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


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


@dataclass(frozen=True)
class TokenLogprob:
    """A token and how likely the model found it, before temperature and all other options of sampling.

    Attributes:
        token: Its text; U+FFFD stands for bytes that are a part of a character only.
        token_id: Its id.
        logprob: Natural logarithm of its probability.
        bytes: Its bytes.
        top: The likeliest tokens in its place, most likely first, as many as ``logprobs`` asked for.
    """

    token: str
    token_id: int
    logprob: float
    bytes: bytes = field(repr=False)
    top: tuple[TokenLogprob, ...] = ()


class TextChunk(str):
    """A piece of generated text, a ``str``.

    Attributes:
        logprobs: The tokens that it has become certain by, where ``logprobs`` were asked for.
    """

    logprobs: tuple[TokenLogprob, ...]

    def __new__(cls, text: str = "", logprobs: tuple[TokenLogprob, ...] = ()) -> Self:
        """Make a chunk of a text."""
        self = super().__new__(cls, text)
        self.logprobs = logprobs
        return self


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


@dataclass(frozen=True)
class ChatResponse:
    """The answer to a chat.

    >>> response = llm.chat([{"role": "user", "content": "What is the capital of France?"}])
    >>> response.text, response.finish_reason
    ('The capital of France is Paris.', 'stop')

    Attributes:
        message: The answer, to be appended to the messages.
        finish_reason: "stop", "length" (``max_tokens`` or the end of the context), "tool_calls" (the message asks for
            tools) or "cancelled".
        usage: Tokens that it took.
        timings: Seconds that it took.
        model: Name of the model.
        response_format: What the content has to look like, if that was asked for.
        logprobs: The log probability of every generated token, of tool calls and reasoning as well; ``None`` where they
            were not asked for.
        prefill: The content of the last message, where the answer continues that; the message of the answer is what
            follows.
    """

    message: Message
    finish_reason: ChatFinishReason
    usage: Usage
    timings: Timings
    model: str
    response_format: ResponseFormat | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    prefill: str = ""

    @property
    def text(self) -> str:
        """The content of the message; empty where it has none."""
        content = self.message.content
        return content if isinstance(content, str) else ""

    @property
    def parsed(self) -> Any:
        """The value of the content: an instance of the pydantic model, or what the JSON means.

        Where the answer continues a message, it is the value of both. ``None`` where no ``response_format`` was asked
        for, and where the message calls tools instead.

        Raises:
            OutputError: The answer was cut off before its end.
        """
        if self.response_format is None or self.message.tool_calls:
            return None
        return self.response_format.parse(self.prefill + self.text)

    def __str__(self) -> str:
        return self.text
