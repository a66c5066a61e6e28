"""Calls of a server through a pool of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cyllama import ChatResponse, SessionPool

Messages = list[Any]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


ADA, NAME, CAPITAL = user("My name is Ada."), user("What is my name?"), user("What is the capital of France?")


def ask(
    pool: SessionPool, messages: Sequence[Any], conversation: str | None = None, **lease: Any
) -> tuple[str, ChatResponse]:
    """Answer messages as a server would, and return the choice of the session with the answer."""
    options: dict[str, Any] = {"max_tokens": 24, **lease.get("options", {})}
    with pool.lease(messages, conversation, **lease) as leased:
        answer: ChatResponse = leased.hand_over(lambda session: pool.llm.chat(messages, session=session, **options))
    return leased.choice, answer
