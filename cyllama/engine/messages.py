"""What other threads ask of the engine's thread, which answers between two steps, in the order of arrival."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event

from .adapters import AdapterKey
from .conversation import Conversation
from .request import Request

CachedState = tuple[list[int], "bytes | None", AdapterKey]
"""What the KV cache has of a conversation: token ids, their state, and what that was computed with."""


@dataclass(frozen=True)
class Submit:
    """Generate. Several requests are one group: they have the same prompt, which the first one evaluates for all."""

    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Share:
    """Let a new conversation go on from what the KV cache has of another."""

    source: Conversation
    target: Conversation


@dataclass(frozen=True)
class Adopt:
    """Let a new conversation go on from a state that was saved."""

    conversation: Conversation
    tokens: list[int]
    state: bytes
    adapters: AdapterKey


@dataclass(frozen=True)
class Forget:
    """End the generations of a conversation that was forgotten, and give back what the KV cache has of it."""

    conversation: Conversation


@dataclass(frozen=True)
class Save:
    """Return what the KV cache has of a conversation."""

    conversation: Conversation
    reply: Future[CachedState] = field(default_factory=Future)


@dataclass(frozen=True)
class Check:
    """Compare what is recorded of requests and sequences with llama.cpp's state."""

    reply: Future[None] = field(default_factory=Future)


@dataclass(frozen=True)
class Wake:
    """Look for adapters that were unloaded, requests that were cancelled, and images that were encoded."""


@dataclass(frozen=True)
class Pause:
    """Do nothing until told to go on."""

    reached: Event = field(default_factory=Event)
    resume: Event = field(default_factory=Event)


Message = Submit | Share | Adopt | Forget | Save | Check | Wake | Pause
