"""Local GGUF models inside Python programs.

>>> from cyllama import LLM
>>> with LLM(temperature=0) as llm:
...     print(llm.chat([{"role": "user", "content": "What is the capital of France?"}]))
The capital of France is Paris.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from .chat import ChatDelta, ChatFinishReason, ChatResponse, Function, Message, MessageLike, Tool, ToolCall
from .chat_stream import AsyncChatStream, ChatStream
from .config import GenerationConfig, ModelConfig
from .engine import Stats
from .errors import (
    AdapterAccessError,
    AdapterLoadError,
    AdapterNotFoundError,
    ChatTemplateError,
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
    MessageError,
    ModelAccessError,
    ModelDownloadError,
    ModelLoadError,
    ModelNotFoundError,
    OutputError,
    PromptError,
    PromptTypeError,
    SchemaError,
    SessionError,
    SessionFileError,
    StreamNotFinishedError,
    ToolError,
    UnsupportedModelError,
)
from .grammar import ResponseFormat
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

logging.getLogger(__name__).addHandler(logging.NullHandler())

try:
    __version__ = version("cyllama")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0.0.0"

__all__ = [
    "LLM",
    "AdapterAccessError",
    "AdapterLoadError",
    "AdapterNotFoundError",
    "AsyncChatStream",
    "AsyncStream",
    "ChatDelta",
    "ChatFinishReason",
    "ChatResponse",
    "ChatStream",
    "ChatTemplateError",
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
    "Message",
    "MessageError",
    "MessageLike",
    "ModelAccessError",
    "ModelConfig",
    "ModelDownloadError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutputError",
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
