"""The answer to a chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..grammar import ResponseFormat
from ..response import Timings, TokenLogprob, Usage
from .messages import Message

ChatFinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


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
