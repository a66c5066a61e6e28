"""Many requests on their way through one llama.cpp context.

A :class:`Request` goes to the :class:`Engine`, whose thread is the only one that decodes. Its ``Admission`` decides
which requests run, its ``Scheduler`` what goes into the next batch, and its ``KVCache`` knows which sequence holds
which tokens. A :class:`Conversation` is what is remembered between requests. The :class:`Embedder` has a context and a
thread of its own.
"""

from .adapters import NO_ADAPTERS, Adapter, AdapterKey, AdapterSet
from .context_params import context_size
from .conversation import Conversation, Conversations, History, Reply
from .draft_context import DraftModel
from .encoder import ImageEncoder
from .engine import Engine
from .images import PromptImage, is_cell, rekeyed
from .lookup import Drafter
from .memory import memory_of
from .memory_needs import check_kv_memory
from .model_drafter import ModelDrafter
from .observation import observe
from .request import Prompt, Request
from .sampling import sampler_maker
from .stats import SessionStats, Stats

__all__ = [
    "NO_ADAPTERS",
    "Adapter",
    "AdapterKey",
    "AdapterSet",
    "Conversation",
    "Conversations",
    "DraftModel",
    "Drafter",
    "Engine",
    "History",
    "ImageEncoder",
    "ModelDrafter",
    "Prompt",
    "PromptImage",
    "Reply",
    "Request",
    "SessionStats",
    "Stats",
    "check_kv_memory",
    "context_size",
    "is_cell",
    "memory_of",
    "observe",
    "rekeyed",
    "sampler_maker",
]
