"""Every exception that cyllama raises on purpose.

All derive from :class:`CyllamaError`; each also derives from the built-in exception that a caller would catch who has
never heard of cyllama. After any of them the :class:`~cyllama.LLM` is usable.
"""

from __future__ import annotations


class CyllamaError(Exception):
    """Base of everything that cyllama raises on purpose."""


class ModelNotFoundError(CyllamaError, FileNotFoundError):
    """There is no file at the model's path."""


class ModelLoadError(CyllamaError, RuntimeError):
    """The model's file cannot be read, is damaged, or is no model that can generate text."""


class ModelAccessError(ModelLoadError, OSError):
    """The model's path is a directory, or a file that may not be read."""


class AdapterNotFoundError(CyllamaError, FileNotFoundError):
    """There is no file at the path of a LoRA adapter."""


class AdapterLoadError(CyllamaError, RuntimeError):
    """The file of a LoRA adapter is damaged, holds something else, or was made for another model."""


class AdapterAccessError(AdapterLoadError, OSError):
    """The path of a LoRA adapter is a directory, or a file that may not be read."""


class UnsupportedModelError(CyllamaError, NotImplementedError):
    """The model cannot do what was asked of it, such as generating text with an encoder."""


class ConfigError(CyllamaError, ValueError):
    """A configuration value is out of its range."""


class ConfigTypeError(CyllamaError, TypeError):
    """A configuration has the wrong type, or an option does not exist."""


class PromptError(CyllamaError, ValueError):
    """A prompt, text or token id cannot be processed as given."""


class PromptTypeError(PromptError, TypeError):
    """A prompt or text has the wrong type."""


class ChatTemplateError(CyllamaError, ValueError):
    """The model's chat template refuses the messages, or there is none."""


class MessageError(ChatTemplateError):
    """The messages are no chat: a role does not exist, content is missing, a tool result belongs to no call."""


class ToolError(CyllamaError, ValueError):
    """A tool is not defined as one, or the choice of tools makes no sense."""


class SchemaError(CyllamaError, ValueError):
    """A JSON schema cannot be converted to a grammar. The place in it, a JSON pointer, is in :attr:`path`."""

    def __init__(self, message: str, path: str = "#") -> None:
        super().__init__(message)
        self.path = path


class GrammarError(CyllamaError, ValueError):
    """A text is not a GBNF grammar, or following it takes more work than a limit allows.

    What was generated before is in :attr:`partial_text`.
    """

    def __init__(self, message: str, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text = partial_text


class OutputError(CyllamaError, ValueError):
    """What was generated does not fit the response format, since it was cut. The text is in :attr:`text`."""

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class ContextSizeError(CyllamaError, ValueError):
    """A prompt does not fit into the context."""


class ContextError(CyllamaError, RuntimeError):
    """llama.cpp cannot create a context with these options."""


class ContextMemoryError(CyllamaError, MemoryError):
    """There is not enough memory for a context of the requested size."""


class DecodeError(CyllamaError, RuntimeError):
    """llama.cpp failed while it evaluated tokens. What was generated before is in :attr:`partial_text`."""

    def __init__(self, message: str, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text = partial_text


class EmbeddingCancelledError(CyllamaError, RuntimeError):
    """``close()`` or ``reset_context()`` was called before all embeddings were computed."""


class SessionError(CyllamaError, ValueError):
    """A session cannot be used or made as asked: it is closed, its name is taken, or there are too many."""


class SessionFileError(SessionError):
    """A file holds no session of this model: it is damaged, or of another model or version."""


class StreamNotFinishedError(CyllamaError, AttributeError):
    """A stream has its response when it is exhausted or closed, and not before."""


class EventLoopError(CyllamaError, RuntimeError):
    """A stream is read in another event loop than the one that it was made in."""


class ForkedError(CyllamaError, RuntimeError):
    """The process was forked after the model was loaded: the threads that compute exist in the parent only."""
