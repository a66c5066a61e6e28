"""Exceptions that are cyllama's and LangChain's at once."""

from __future__ import annotations

import langchain_core.exceptions
from cyllama import ContextSizeError

# Older versions of LangChain have none.
_ContextOverflow: type[Exception] = getattr(langchain_core.exceptions, "ContextOverflowError", Exception)


class ConversationSizeError(ContextSizeError, _ContextOverflow):  # pyright: ignore[reportGeneralTypeIssues]
    """A conversation is longer than the context may become.

    It is cyllama's `ContextSizeError`, and what LangChain's middleware takes for a sign to summarize.
    """
