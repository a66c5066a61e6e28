"""What the tests of the LangChain provider share: chat models on the embedded model."""

from __future__ import annotations

import pytest

from cyllama import LLM
from langchain_cyllama import ChatCyllama


@pytest.fixture
def chat(llm: LLM) -> ChatCyllama:
    """A chat model at temperature 0, without a context and without sessions."""
    return ChatCyllama(llm=llm, max_tokens=100)
