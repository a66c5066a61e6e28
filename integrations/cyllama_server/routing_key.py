"""By what a request was routed to this server, where several servers share the work."""

from __future__ import annotations

from contextvars import ContextVar

ROUTING_KEY: ContextVar[str] = ContextVar("cyllama_routing_key", default="")
"""The key of the request that a task answers: hexadecimal digits, the same for all requests of a conversation. Ids of
responses begin with it, so that a request that continues a response can be routed as that was. Empty where there is one
server."""
