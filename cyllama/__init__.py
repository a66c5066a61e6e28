"""Local GGUF models inside Python programs.

>>> from cyllama import LLM
>>> with LLM(temperature=0) as llm:
...     print(llm.chat([{"role": "user", "content": "What is the capital of France?"}]))
The capital of France is Paris.

All names but those of the errors are imported when they are used for the first time.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    BusyError,
    ChatTemplateError,
    CompatibilityError,
    ConfigError,
    ConfigTypeError,
    ContextError,
    ContextMemoryError,
    ContextSizeError,
    CyllamaError,
    DecodeError,
    EmbeddingCancelledError,
    EventLoopError,
    ForkedError,
    GrammarError,
    ImageError,
    MessageError,
    ModelAccessError,
    ModelDownloadError,
    ModelLoadError,
    ModelNotFoundError,
    OutputError,
    ProjectorLoadError,
    PromptError,
    PromptTypeError,
    SchemaError,
    SessionError,
    SessionFileError,
    StreamNotFinishedError,
    ToolError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from .chat import ChatDelta, ChatFinishReason, ChatResponse, Function, Message, MessageLike, Tool, ToolCall
    from .chat_stream import AsyncChatStream, ChatStream
    from .config import GenerationConfig, ModelConfig
    from .engine import SessionStats, Stats
    from .grammar import ResponseFormat
    from .images import Image
    from .llm import LLM
    from .response import (
        FinishReason,
        Response,
        TextChunk,
        Timings,
        TokenLogprob,
        Usage,
    )
    from .session import Session
    from .session_pool import SessionLease, SessionPool
    from .stream import AsyncStream, Stream
    from .version import __version__ as __version__

#: The module of each name that is imported when it is used for the first time.
_MODULES = {
    "AsyncChatStream": "chat_stream",
    "AsyncStream": "stream",
    "ChatDelta": "chat",
    "ChatFinishReason": "chat",
    "ChatResponse": "chat",
    "ChatStream": "chat_stream",
    "FinishReason": "response",
    "Function": "chat",
    "GenerationConfig": "config",
    "Image": "images",
    "LLM": "llm",
    "Message": "chat",
    "MessageLike": "chat",
    "ModelConfig": "config",
    "Response": "response",
    "ResponseFormat": "grammar",
    "Session": "session",
    "SessionLease": "session_pool",
    "SessionPool": "session_pool",
    "SessionStats": "engine",
    "Stats": "engine",
    "Stream": "stream",
    "TextChunk": "response",
    "Timings": "response",
    "TokenLogprob": "response",
    "Tool": "chat",
    "ToolCall": "chat",
    "Usage": "response",
    "__version__": "version",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = [
    "LLM",
    "AdapterAccessError",
    "AdapterLoadError",
    "AdapterNotFoundError",
    "AsyncChatStream",
    "AsyncStream",
    "BusyError",
    "ChatDelta",
    "ChatFinishReason",
    "ChatResponse",
    "ChatStream",
    "ChatTemplateError",
    "CompatibilityError",
    "ConfigError",
    "ConfigTypeError",
    "ContextError",
    "ContextMemoryError",
    "ContextSizeError",
    "CyllamaError",
    "DecodeError",
    "EmbeddingCancelledError",
    "EventLoopError",
    "FinishReason",
    "ForkedError",
    "Function",
    "GenerationConfig",
    "GrammarError",
    "Image",
    "ImageError",
    "Message",
    "MessageError",
    "MessageLike",
    "ModelAccessError",
    "ModelConfig",
    "ModelDownloadError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutputError",
    "ProjectorLoadError",
    "PromptError",
    "PromptTypeError",
    "Response",
    "ResponseFormat",
    "SchemaError",
    "Session",
    "SessionError",
    "SessionFileError",
    "SessionLease",
    "SessionPool",
    "SessionStats",
    "Stats",
    "Stream",
    "StreamNotFinishedError",
    "TextChunk",
    "Timings",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolError",
    "UnsupportedModelError",
    "Usage",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
