"""Exceptions that are cyllama's and LangChain's at once."""

from __future__ import annotations

from langchain_core.exceptions import ContextOverflowError, OutputParserException

from cyllama import ContextSizeError, OutputError


class ConversationSizeError(ContextSizeError, ContextOverflowError):
    """A conversation is longer than the context may become.

    It is cyllama's `ContextSizeError`, and what LangChain's middleware takes for a sign to summarize.
    """


class OutputParsingError(OutputError, OutputParserException):
    """An answer has no value: it was cut before its end, or does not fit its schema.

    It is cyllama's `OutputError`, with the text that was generated in `text`, and LangChain's `OutputParserException`,
    with the same text in `llm_output`.
    """

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message, text)
        self.args = (message,)  # LangChain has put an address below it
        self.observation: str | None = None
        self.llm_output: str | None = text
        self.send_to_llm = False


class UnreadableContentWarning(UserWarning):
    """Something in a message is not text, and was left out of what the model reads."""
