"""Every exception that cyllama raises on purpose.

All derive from :class:`CyllamaError`; each also derives from the built-in exception that a caller would catch who does
not know cyllama. After any of them the :class:`~cyllama.LLM` is usable.
"""

from __future__ import annotations


class CyllamaError(Exception):
    """Base of everything that cyllama raises on purpose.

    >>> try:
    ...     LLM("missing.gguf")
    ... except CyllamaError as error:
    ...     print(error)
    there is no model file at 'missing.gguf'
    """


class ModelNotFoundError(CyllamaError, FileNotFoundError):
    """There is no file at the model's path, or no such model on the hub or in its cache.

    >>> LLM("missing.gguf")
    Traceback (most recent call last):
    cyllama.errors.ModelNotFoundError: there is no model file at 'missing.gguf'
    """


class ModelLoadError(CyllamaError, RuntimeError):
    """The model's file cannot be read, is damaged, or is not a model that can generate text.

    >>> _ = Path("notes.txt").write_text("This is not a model.")
    >>> LLM("notes.txt")
    Traceback (most recent call last):
    cyllama.errors.ModelLoadError: ...
    """


class ProjectorLoadError(ModelLoadError):
    """The projector's file is missing or damaged, or was made for another model.

    >>> LLM(projector="missing.gguf")
    Traceback (most recent call last):
    cyllama.errors.ProjectorLoadError: there is no projector file at 'missing.gguf'
    """


class ModelAccessError(ModelLoadError, OSError):
    """The model's path is a directory, or a file that may not be read, or its repository on the hub is private.

    >>> LLM(".")
    Traceback (most recent call last):
    cyllama.errors.ModelAccessError: cannot read the model at '.': Is a directory; ...
    """


class ModelDownloadError(ModelLoadError, OSError):
    """A model cannot be downloaded: no network, a connection that broke, no space on the disk, or damaged data.

    What has arrived is kept: the next try continues there.
    """


class AdapterNotFoundError(CyllamaError, FileNotFoundError):
    """There is no file at the path of a LoRA adapter.

    >>> llm.load_lora("pirate", "missing.gguf")
    Traceback (most recent call last):
    cyllama.errors.AdapterNotFoundError: there is no adapter file at 'missing.gguf'
    """


class AdapterLoadError(CyllamaError, RuntimeError):
    """The file of a LoRA adapter is damaged, holds something else, or was made for another model.

    >>> llm.load_lora("pirate", llm.model_path)
    Traceback (most recent call last):
    cyllama.errors.AdapterLoadError: ...
    """


class AdapterAccessError(AdapterLoadError, OSError):
    """The path of a LoRA adapter is a directory, or a file that may not be read.

    >>> llm.load_lora("pirate", ".")
    Traceback (most recent call last):
    cyllama.errors.AdapterAccessError: cannot read the adapter at '.': Is a directory; ...
    """


class UnsupportedModelError(CyllamaError, NotImplementedError):
    """The model cannot do what was asked of it, such as generating text with an encoder.

    >>> llm.rerank("What do foxes eat?", ["Foxes eat mice."])
    Traceback (most recent call last):
    cyllama.errors.UnsupportedModelError: ... does not rank: compare what embed() returns
    """


class ConfigError(CyllamaError, ValueError):
    """A configuration value is out of its range.

    >>> llm("Hello", top_p=1.5)
    Traceback (most recent call last):
    cyllama.errors.ConfigError: GenerationConfig.top_p: input should be less than or equal to 1, not 1.5
    """


class ConfigTypeError(CyllamaError, TypeError):
    """A configuration has the wrong type, or an option does not exist.

    >>> llm("Hello", temprature=0)
    Traceback (most recent call last):
    cyllama.errors.ConfigTypeError: GenerationConfig has no option 'temprature': did you mean 'temperature'?
    """


class PromptError(CyllamaError, ValueError):
    """A prompt, text or token id cannot be processed as given.

    >>> llm([1_000_000_000])
    Traceback (most recent call last):
    cyllama.errors.PromptError: token id 1000000000 is out of range: the vocabulary has ids 0 to ...
    """


class PromptTypeError(PromptError, TypeError):
    """A prompt or text has the wrong type.

    >>> llm(42)
    Traceback (most recent call last):
    cyllama.errors.PromptTypeError: expected a str or a list of token ids, not int: 42
    """


class ImageError(PromptError):
    """An image cannot be read: it is damaged, of another format, too large, or an address that is not fetched.

    >>> Image.load(b"This is not an image.")
    Traceback (most recent call last):
    cyllama.errors.ImageError: the image is not a PNG, JPEG, WebP, GIF or BMP file: ...
    """


class ChatTemplateError(CyllamaError, ValueError):
    """The model's chat template refuses the messages, or there is none.

    >>> llm.chat([{"role": "user", "content": "Hello"}], chat_template="{% if %}")
    Traceback (most recent call last):
    cyllama.errors.ChatTemplateError: the chat template cannot be compiled: ...
    """


class MessageError(ChatTemplateError):
    """The messages are not a valid chat: an unknown role, missing content, a tool result that belongs to no call.

    >>> llm.chat([{"role": "robot", "content": "Hello"}])
    Traceback (most recent call last):
    cyllama.errors.MessageError: message 0 has the unknown role 'robot': ...
    """


class ToolError(CyllamaError, ValueError):
    """A tool is not defined as one, or the choice of tools cannot be followed.

    >>> llm.chat([{"role": "user", "content": "Hello"}], tools=[{"name": "a clock"}])
    Traceback (most recent call last):
    cyllama.errors.ToolError: the name of tool 0 has to be 1 to 128 letters, digits, or any of ..., not 'a clock'
    """


class SchemaError(CyllamaError, ValueError):
    """A JSON schema cannot be converted to a grammar.

    >>> llm("A color:", response_format={"type": "colour"})
    Traceback (most recent call last):
    cyllama.errors.SchemaError: response_format: #/type: there is no type 'colour': ...

    Attributes:
        path: The place in the schema, a JSON pointer.
    """

    def __init__(self, message: str, path: str = "#") -> None:
        super().__init__(message)
        self.path = path


class GrammarError(CyllamaError, ValueError):
    """A text is not a GBNF grammar, or following it takes more work than a limit allows.

    >>> llm("Hello", grammar="this is not a grammar")
    Traceback (most recent call last):
    cyllama.errors.GrammarError: the grammar is not valid GBNF: ...

    Attributes:
        partial_text: What was generated before.
    """

    def __init__(self, message: str, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text = partial_text


class OutputError(CyllamaError, ValueError):
    """What was generated does not fit the response format, since it was cut.

    >>> llm("A list of colors:", response_format="json", max_tokens=1).parsed
    Traceback (most recent call last):
    cyllama.errors.OutputError: the answer does not fit the response format: ...

    Attributes:
        text: The text.
    """

    def __init__(self, message: str, text: str = "") -> None:
        super().__init__(message)
        self.text = text


class ContextSizeError(CyllamaError, ValueError):
    """A prompt does not fit into the context.

    >>> llm("Once upon a time", n_ctx=2)
    Traceback (most recent call last):
    cyllama.errors.ContextSizeError: the prompt has 4 tokens but n_ctx is 2: ...
    """


class ContextError(CyllamaError, RuntimeError):
    """llama.cpp cannot create a context with these options.

    >>> LLM(type_v="q4_0", flash_attn="disabled")("Hello")
    Traceback (most recent call last):
    cyllama.errors.ContextError: ... quantized V cache requires flash_attn to be enabled
    """


class ContextMemoryError(CyllamaError, MemoryError):
    """There is not enough memory for a context of the requested size.

    >>> LLM(kv_cells=2_000_000_000)
    Traceback (most recent call last):
    cyllama.errors.ContextMemoryError: a context of n_ctx=2000000000 tokens needs ... GiB for its KV cache, ...
    """


class DecodeError(CyllamaError, RuntimeError):
    """llama.cpp failed while it evaluated tokens.

    >>> llm.load_lora("pirate", "pirate.gguf")
    >>> llm("Hello", lora={"pirate": 1e38})
    Traceback (most recent call last):
    cyllama.errors.DecodeError: ...

    Attributes:
        partial_text: What was generated before.
    """

    def __init__(self, message: str, partial_text: str = "") -> None:
        super().__init__(message)
        self.partial_text = partial_text


class BusyError(CyllamaError, RuntimeError):
    """As many generations wait in line as ``max_waiting`` allows.

    >>> with LLM(n_parallel=1, max_waiting=0) as llm:
    ...     stream = llm("Once upon a time", stream=True)
    ...     llm("Hello")
    Traceback (most recent call last):
    cyllama.errors.BusyError: unfinished generations: 1, and at most 1 are allowed, ...
    """


class CompatibilityError(CyllamaError, NotImplementedError):
    """A program that was written for llama-cpp-python asks for something that :mod:`cyllama.compat` does not have.

    >>> from cyllama.compat import Llama
    >>> Llama(LLM().model_path)("Hello", logits_processor=[print])
    Traceback (most recent call last):
    cyllama.errors.CompatibilityError: logits_processor cannot be used with cyllama: grammar, ...
    """


class EmbeddingCancelledError(CyllamaError, RuntimeError):
    """``close()`` or ``reset_context()`` was called before all embeddings were computed.

    >>> async def closed_meanwhile():
    ...     vectors = asyncio.ensure_future(llm.aembed(["A fox sleeps."] * 1000))
    ...     await asyncio.sleep(0)  # lets the call begin
    ...     llm.close()
    ...     return await vectors
    >>> asyncio.run(closed_meanwhile())
    Traceback (most recent call last):
    cyllama.errors.EmbeddingCancelledError: the context was closed after ... of 1000 texts
    """


class SessionError(CyllamaError, ValueError):
    """A session cannot be used or made as asked: it is closed, its name is taken, or there are too many.

    >>> ada = llm.session("ada")
    >>> ada.close()
    >>> ada("Hello")
    Traceback (most recent call last):
    cyllama.errors.SessionError: session 'ada' was closed: llm.session('ada') begins a new one
    """


class SessionFileError(SessionError):
    """A file does not hold a session of this model: it is damaged, or of another model or version.

    >>> _ = Path("notes.txt").write_text("This is not a session.")
    >>> llm.load_session("notes.txt")
    Traceback (most recent call last):
    cyllama.errors.SessionFileError: 'notes.txt' holds no session
    """


class StreamNotFinishedError(CyllamaError, AttributeError):
    """A stream has its response when it is exhausted or closed, and not before.

    >>> llm("Once upon a time", stream=True).response
    Traceback (most recent call last):
    cyllama.errors.StreamNotFinishedError: the stream has no response yet: read it to its end, or close() it
    """


class EventLoopError(CyllamaError, RuntimeError):
    """A stream is read in another event loop than the one that it was made in.

    >>> async def begin():
    ...     return llm.astream("Once upon a time", max_tokens=8)
    >>> stream = asyncio.run(begin())
    >>> asyncio.run(stream.read())
    Traceback (most recent call last):
    cyllama.errors.EventLoopError: this stream was made in another event loop, and only code that runs there can ...
    """


class ForkedError(CyllamaError, RuntimeError):
    """The process was forked after the model was loaded: the threads that compute exist in the parent only.

    Load the model in the child, or start processes with multiprocessing's "spawn".
    """
