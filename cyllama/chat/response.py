"""The answer to a chat."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import Self

from ..grammar import ResponseFormat
from ..response import Timings, TokenLogprob, Usage
from .messages import Message

ChatFinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class ChatResponse(str):
    """The answer to a chat: the text of its message, a ``str``, with what is known of its generation.

    It is true where the message says anything, be it a text or a call of a tool. As a message of the next call, it
    stands for :attr:`message`.

    >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
    >>> response = llm.chat(messages)
    >>> response
    'The capital of France is Paris.'
    >>> response.finish_reason
    'stop'
    >>> next_answer = llm.chat([*messages, response, {"role": "user", "content": "Who are you?"}])

    Attributes:
        message: The answer, to be appended to the messages.
        finish_reason: "stop", "length" (``max_tokens`` or the end of the context), "tool_calls" (the message asks for
            tools) or "cancelled".
        usage: How many tokens it took.
        timings: How many seconds it took.
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
    response_format: ResponseFormat | None
    logprobs: tuple[TokenLogprob, ...] | None
    prefill: str

    def __new__(
        cls,
        message: Message,
        finish_reason: ChatFinishReason = "stop",
        usage: Usage | None = None,
        timings: Timings | None = None,
        model: str = "",
        response_format: ResponseFormat | None = None,
        logprobs: tuple[TokenLogprob, ...] | None = None,
        prefill: str = "",
    ) -> Self:
        """Make a response of a message; the rest has defaults, so that copies and pickles work."""
        self = super().__new__(cls, message.content)
        self.message = message
        self.finish_reason = finish_reason
        self.usage = usage or Usage()
        self.timings = timings or Timings()
        self.model = model
        self.response_format = response_format
        self.logprobs = logprobs
        self.prefill = prefill
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Return what copies are made of, besides the attributes."""
        return (self.message,)

    def __bool__(self) -> bool:
        return bool(self.text or self.message.tool_calls)

    @property
    def text(self) -> str:
        """The content of the message as a plain ``str``; empty where it has none."""
        return str.__str__(self)

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
