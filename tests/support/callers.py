"""Many callers: generations that go on, and programs of their own."""

from __future__ import annotations

from cyllama import LLM, Response, Stream

from .harness import (
    ANIMALS,
    ENDLESS,
    Reference,
    story,
)


def check(reference: Reference, stream: Stream, response: Response | None = None) -> None:
    """See that a stream was answered as it would have been alone."""
    request = stream._request
    response = stream.read() if response is None else response
    assert response == request.answer.text
    whole = response.finish_reason == "stop"
    assert whole or len(request.tokens) == request.reservation.max_tokens
    reference.check(request)


def start_endless(llm: LLM, n: int) -> list[Stream]:
    return [llm(story(animal), stream=True, **ENDLESS) for animal in ANIMALS[:n]]
