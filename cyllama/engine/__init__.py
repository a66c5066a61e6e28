"""Many requests on their way through one llama.cpp context.

A :class:`Request` goes to the :class:`Engine`, whose thread is the only one that decodes. Its :class:`Scheduler` says
what goes into the next batch, its :class:`KVCache` which sequence holds which tokens. A :class:`Conversation` is what
is remembered between requests.
"""

from .context import check_kv_memory, context_size
from .conversation import Conversation, Conversations, History, Reply
from .engine import Engine
from .request import Prompt, Request
from .sampling import make_sampler
from .stats import Stats

__all__ = [
    "Conversation",
    "Conversations",
    "Engine",
    "History",
    "Prompt",
    "Reply",
    "Request",
    "Stats",
    "check_kv_memory",
    "context_size",
    "make_sampler",
]
