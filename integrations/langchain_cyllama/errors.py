"""Exceptions that are both cyllama's and LangChain's."""

from __future__ import annotations

from langchain_core.exceptions import ContextOverflowError, OutputParserException

from cyllama import ContextSizeError, OutputError


class ConversationSizeError(ContextSizeError, ContextOverflowError):
    """A conversation is longer than the context may become.

    It is cyllama's `ContextSizeError` and LangChain's `ContextOverflowError`, at which LangChain's
    `SummarizationMiddleware` summarizes.
    """


class OutputParsingError(OutputError, OutputParserException):
    """An answer has no value, because it was cut, or because it does not fit its schema.

    It is cyllama's `OutputError`, with the text that was generated in `text`, and LangChain's `OutputParserException`,
    with the same text in `llm_output`.
    """

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message, text)
        self.args = (message,)  # without the link that LangChain appends
        self.observation: str | None = None
        self.llm_output: str | None = text
        self.send_to_llm = False


class UnreadableContentWarning(UserWarning):
    """A part of a message is not text, and was left out of the prompt."""
