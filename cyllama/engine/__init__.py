"""Many requests on their way through one llama.cpp context.

A :class:`Request` goes to the :class:`Engine`, whose thread is the only one that decodes. Its :class:`Scheduler` says
what goes into the next batch, its :class:`KVCache` which sequence holds which tokens. A :class:`Conversation` is what
is remembered between requests. The :class:`Embedder` has a context and a thread of its own.
"""

from .adapters import NO_ADAPTERS, Adapter, AdapterKey, AdapterSet
from .context import check_kv_memory, context_size
from .conversation import Conversation, Conversations, History, Reply
from .embedding import Embedder, EmbeddingJob, PairTokenizer, check_texts, decomposes, fit, max_text_tokens, pooling_of
from .engine import Engine
from .request import Prompt, Request
from .sampling import make_sampler
from .stats import Stats

__all__ = [
    "NO_ADAPTERS",
    "Adapter",
    "AdapterKey",
    "AdapterSet",
    "Conversation",
    "Conversations",
    "Embedder",
    "EmbeddingJob",
    "Engine",
    "History",
    "PairTokenizer",
    "Prompt",
    "Reply",
    "Request",
    "Stats",
    "check_kv_memory",
    "check_texts",
    "context_size",
    "decomposes",
    "fit",
    "make_sampler",
    "max_text_tokens",
    "pooling_of",
]
