"""Exceptions that are cyllama's and LangChain's at once."""

from __future__ import annotations

from langchain_core.exceptions import ContextOverflowError

from cyllama import ContextSizeError


class ConversationSizeError(ContextSizeError, ContextOverflowError):
    """A conversation is longer than the context may become.

    It is cyllama's `ContextSizeError`, and what LangChain's middleware takes for a sign to summarize.
    """
