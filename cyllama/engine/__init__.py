"""Requests on their way through one llama.cpp context.

A :class:`Request` goes to the :class:`Engine`, whose thread is the only one that decodes. Its :class:`Scheduler` says
what goes into the next batch, its :class:`KVCache` which sequence holds which tokens.
"""

from .context import padded
from .engine import Engine
from .request import Request
from .sampling import make_sampler
from .stats import Stats

__all__ = ["Engine", "Request", "Stats", "make_sampler", "padded"]
