"""Local GGUF models inside Python programs.

>>> from cyllama import LLM
>>> with LLM() as llm:
...     print(llm("Once upon a time"))
"""

import logging
from importlib.metadata import PackageNotFoundError, version

from .chat import Message
from .config import GenerationConfig, ModelConfig
from .engine import Stats
from .errors import (
    ChatTemplateError,
    ConfigError,
    ConfigTypeError,
    ContextError,
    ContextMemoryError,
    ContextSizeError,
    CyllamaError,
    DecodeError,
    EmbeddingCancelledError,
    ForkedError,
    ModelAccessError,
    ModelLoadError,
    ModelNotFoundError,
    PromptError,
    PromptTypeError,
    SessionError,
    SessionFileError,
    StreamNotFinishedError,
    UnsupportedModelError,
)
from .llm import LLM
from .response import FinishReason, Response, Timings, Usage
from .session import Session
from .stream import AsyncStream, Stream

logging.getLogger(__name__).addHandler(logging.NullHandler())

try:
    __version__ = version("cyllama")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0.0.0"

__all__ = [
    "LLM",
    "AsyncStream",
    "ChatTemplateError",
    "ConfigError",
    "ConfigTypeError",
    "ContextError",
    "ContextMemoryError",
    "ContextSizeError",
    "CyllamaError",
    "DecodeError",
    "EmbeddingCancelledError",
    "FinishReason",
    "ForkedError",
    "GenerationConfig",
    "Message",
    "ModelAccessError",
    "ModelConfig",
    "ModelLoadError",
    "ModelNotFoundError",
    "PromptError",
    "PromptTypeError",
    "Response",
    "Session",
    "SessionError",
    "SessionFileError",
    "Stats",
    "Stream",
    "StreamNotFinishedError",
    "Timings",
    "UnsupportedModelError",
    "Usage",
]
