"""GGUF models in this process for LangChain: chat models, completions, embeddings and rankings.

>>> from langchain_cyllama import ChatCyllama
>>> with ChatCyllama(temperature=0) as model:
...     print(model.invoke("What is the capital of France?").content)
The capital of France is Paris.

Every class is imported when it is used for the first time.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if find_spec("langchain_core") is None:
    raise ImportError(
        "langchain_cyllama needs LangChain, which is missing: pip install 'langchain-core>=1.2.10,<2'",
        name="langchain_core",
    )

if TYPE_CHECKING:
    from ._unused import UnusedArgumentWarning
    from .chat_models import ChatCyllama
    from .embeddings import CyllamaEmbeddings
    from .errors import ConversationSizeError, OutputParsingError, UnreadableContentWarning
    from .llms import CyllamaLLM
    from .rerankers import CyllamaReranker

_MODULES = {
    "ChatCyllama": "chat_models",
    "ConversationSizeError": "errors",
    "CyllamaEmbeddings": "embeddings",
    "CyllamaLLM": "llms",
    "CyllamaReranker": "rerankers",
    "OutputParsingError": "errors",
    "UnreadableContentWarning": "errors",
    "UnusedArgumentWarning": "_unused",
}

try:
    __version__ = version("cyllama")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0.0.0"

__all__ = [
    "ChatCyllama",
    "ConversationSizeError",
    "CyllamaEmbeddings",
    "CyllamaLLM",
    "CyllamaReranker",
    "OutputParsingError",
    "UnreadableContentWarning",
    "UnusedArgumentWarning",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
