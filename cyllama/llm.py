"""One model, and the context that it generates in."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, overload

from typing_extensions import Self

from .chat import Message, render
from .config import GenerationConfig, ModelConfig, as_config, check_option_names
from .engine import Engine, Request, Stats, make_sampler, padded
from .errors import (
    ConfigError,
    ConfigTypeError,
    ContextSizeError,
    ForkedError,
    ModelAccessError,
    ModelLoadError,
    ModelNotFoundError,
    PromptError,
    PromptTypeError,
    UnsupportedModelError,
)
from .llama.llama_cpp import (
    LlamaLoadMode,
    LlamaModel,
    LlamaModelParams,
    LlamaSplitMode,
    devices,
    max_devices,
)
from .models import resolve_model_path
from .response import Response
from .stream import Stream


class LLM:
    """A language model in this process.

    Calling it generates text. The model is loaded at once; a context is created by the first generation, reused by
    later ones while it is large enough, replaced by a larger one when it is not, and given back by :meth:`close`. Every
    generation starts from a clean state: the same prompt, config and seed give the same text, whatever ran before.

    Any number of threads may call one ``LLM``; they take turns.

    >>> from cyllama import LLM
    >>> with LLM(temperature=0) as llm:
    ...     print(llm("Once upon a time", max_tokens=32))

    Args:
        model_path: A GGUF file; ``None`` for the embedded tiny-chat.
        config: Defaults for every generation, a :class:`GenerationConfig` or a dict of its options.
        model_config: How to load the model, a :class:`ModelConfig` or a dict of its options.
        verbose: Show the log on stderr: attaches a handler to the logger "cyllama", for the whole process.
        progress_callback: Called while the model is loaded, with 0.0 to 1.0; returning ``False`` stops it.
        **overrides: Options of :class:`GenerationConfig` and :class:`ModelConfig` by name.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelAccessError: It is a directory, or it may not be read.
        ModelLoadError: It is no model, or damaged, or does not fit into memory.
        ConfigError: An option has a value out of its range.
        ConfigTypeError: There is no such option, or a config has the wrong type.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | None = None,
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        model_config: ModelConfig | dict[str, Any] | None = None,
        verbose: bool = False,
        progress_callback: Callable[[float], bool | None] | None = None,
        **overrides: Any,
    ) -> None:
        generation, loading = _split_overrides(overrides)
        self._config = as_config(GenerationConfig, config).merge(**generation)
        self._model_config = as_config(ModelConfig, model_config).merge(**loading)
        if verbose:
            _show_log()
        _check_callable("progress_callback", progress_callback)
        self._path = resolve_model_path(model_path)
        self._model = _load(os.fspath(self._path), self._model_config, progress_callback)
        self._vocab = self._model.vocab
        self._name = self._model.metadata.get("general.name") or self._path.stem
        self._can_generate = self._model.has_decoder and not self._model.has_encoder
        self._stats = Stats()
        self._lock = threading.RLock()  # around _engine: re-entrant, since a signal handler may call close()
        self._engine: Engine | None = None
        self._stopped_engine: Engine | None = None
        self._process = os.getpid()
        _alive.add(self)

    # -------------------- generating

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        stream: Literal[False] = False,
        on_token: Callable[[str], object] | None = None,
        **overrides: Any,
    ) -> Response: ...

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        stream: Literal[True],
        on_token: Callable[[str], object] | None = None,
        **overrides: Any,
    ) -> Stream: ...

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        stream: bool,
        on_token: Callable[[str], object] | None = None,
        **overrides: Any,
    ) -> Response | Stream: ...

    def __call__(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        stream: bool = False,
        on_token: Callable[[str], object] | None = None,
        **overrides: Any,
    ) -> Response | Stream:
        """Continue ``prompt``.

        >>> llm("Once upon a time", max_tokens=16, stop_sequences=["."])
        >>> for chunk in llm("Once upon a time", stream=True):
        ...     print(chunk, end="")

        Args:
            prompt: Text, or the token ids of one.
            config: Options for this generation; what it leaves out is as given to the ``LLM``.
            stream: Return a :class:`Stream` of chunks instead of waiting for the whole text.
            on_token: Called with every chunk of text, on this thread. What it raises ends the generation.
            **overrides: Options of :class:`GenerationConfig` by name.

        Returns:
            The generated text, without the prompt; with ``stream``, its chunks.

        Raises:
            PromptError: The prompt is empty, or cannot be made into tokens.
            ContextSizeError: It is longer than the context may become.
            ContextMemoryError: There is not enough memory for a context.
            ContextError: llama.cpp cannot create one with the options of the model.
            DecodeError: llama.cpp failed; the error holds the text so far.
            UnsupportedModelError: The model is an encoder.
            ForkedError: The process was forked after the model was loaded.
            ConfigError: An option has a value out of its range.
            ConfigTypeError: There is no such option, or the config has the wrong type.
        """
        _check_callable("on_token", on_token)
        merged = self._merge(config, overrides)
        request = self._make_request(prompt, merged, streaming=stream or on_token is not None)
        self._submit(request)
        chunks = Stream(self, request, on_token)
        if stream:
            return chunks
        for _ in chunks:
            pass
        return chunks.response

    def tokenize(self, text: str, *, add_bos: bool | None = None, parse_special: bool | None = None) -> list[int]:
        """Return the token ids of ``text``, the same as a prompt of it would have.

        >>> llm.detokenize(llm.tokenize("Hello")) == "Hello"
        True

        Args:
            text: Any text.
            add_bos: Whether it starts with the beginning-of-sequence token; by default as configured.
            parse_special: Whether the text of control tokens means the token; by default as configured.

        Raises:
            PromptError: The text has lone surrogates.
            ConfigError: ``add_bos`` is set, but the model has no such token.
        """
        if not isinstance(text, str):
            raise PromptTypeError(f"expected a str, not {type(text).__name__}: {text!r:.80}")
        add_bos = self._config.add_bos if add_bos is None else add_bos
        parse_special = self._config.parse_special if parse_special is None else parse_special
        try:
            tokens = self._vocab.tokenize(text, add_special=add_bos is None, parse_special=parse_special)
        except UnicodeEncodeError as error:
            raise PromptError(f"the text cannot be encoded: it has a lone surrogate at index {error.start}") from error
        if add_bos:
            if self._vocab.bos < 0:
                raise ConfigError("add_bos: the model has no beginning-of-sequence token")
            tokens.insert(0, self._vocab.bos)
        return tokens

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without a beginning- or end-of-sequence token that the model adds by itself.

        Raises:
            PromptError: An id is out of the vocabulary's range.
        """
        self._check_tokens(ids, expected="a list of token ids")
        data = self._vocab.detokenize(list(ids), remove_special=True, unparse_special=True)
        return data.decode("utf-8", errors="replace")

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a prompt of ``text`` has."""
        return len(self.tokenize(text))

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt of a chat, by the model's own template; it ends where the answer begins.

        >>> llm(llm.render([{"role": "user", "content": "What is the capital of France?"}]))

        Raises:
            ChatTemplateError: The model has no template, or it refuses the messages.
        """
        return render(self._model, messages)

    # -------------------- context

    def reset_context(self) -> None:
        """Drop the context; the next generation creates a fresh one. Generations in flight end as "cancelled"."""
        self._stop_engine()

    def close(self) -> None:
        """Give back the context and all that belongs to it, at once.

        Generations in flight end as "cancelled". The model stays loaded, and the instance usable: a new context is
        created on demand. Closing twice is closing once.
        """
        self._stop_engine()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Also runs after a failed __init__, on any thread and while the interpreter shuts down.
        try:
            if hasattr(self, "_process"):
                self.close()
        except Exception:  # there is nobody left to tell
            return

    # -------------------- properties

    @property
    def stats(self) -> Stats:
        """What has been done so far; a snapshot."""
        return self._stats.snapshot()

    @property
    def config(self) -> GenerationConfig:
        """Defaults for every generation."""
        return self._config

    @property
    def model_config(self) -> ModelConfig:
        """How the model was loaded."""
        return self._model_config

    @property
    def model_path(self) -> str:
        """The model's file."""
        return os.fspath(self._path)

    @property
    def model_name(self) -> str:
        """The model's name: what its file says, else the file's own."""
        return self._name

    @property
    def model(self) -> LlamaModel:
        """The loaded model, for what only the binding offers."""
        return self._model

    @property
    def n_ctx_train(self) -> int:
        """Context length of the model's training, in tokens: as large as a context gets by itself."""
        return self._model.n_ctx_train

    def __repr__(self) -> str:
        return f"LLM({self.model_path!r}, n_ctx={self._stats.n_ctx})"

    def __reduce__(self) -> Any:
        raise TypeError("an LLM cannot be pickled or copied: it owns a loaded model. Pass its path and load it there")

    # -------------------- internal

    def _merge(self, config: GenerationConfig | dict[str, Any] | None, overrides: dict[str, Any]) -> GenerationConfig:
        if config is None and not overrides:
            return self._config
        given = as_config(GenerationConfig, config)
        options = {name: getattr(given, name) for name in given.model_fields_set}
        return self._config.merge(**(options | overrides))

    def _make_request(self, prompt: str | Sequence[int], config: GenerationConfig, *, streaming: bool) -> Request:
        if not self._can_generate:
            raise UnsupportedModelError(f"{self.model_name} cannot generate text: it has an encoder, or no decoder")
        tokens = self._prompt_tokens(prompt, config)
        for token in config.logit_bias:
            if token >= self._vocab.n_tokens:
                raise ConfigError(f"logit_bias: {self._out_of_range(token)}")
        n_ctx, required = self._context_size(len(tokens), config)
        return Request(
            tokens,
            config,
            n_ctx,
            required,
            streaming=streaming,
            make_sampler=partial(make_sampler, config, self._vocab, n_ctx, tokens),  # keeps no LLM alive
        )

    def _prompt_tokens(self, prompt: str | Sequence[int], config: GenerationConfig) -> list[int]:
        if isinstance(prompt, str):
            tokens = self.tokenize(prompt, add_bos=config.add_bos, parse_special=config.parse_special)
        else:
            self._check_tokens(prompt)
            tokens = list(prompt)
        if not tokens:
            raise PromptError("the prompt is empty: it has no tokens to continue from")
        return tokens

    def _check_tokens(self, ids: Sequence[int], expected: str = "a str or a list of token ids") -> None:
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Sequence):
            raise PromptTypeError(f"expected {expected}, not {type(ids).__name__}: {ids!r:.80}")
        n_tokens = self._vocab.n_tokens
        for token in ids:
            if not isinstance(token, int) or isinstance(token, bool):
                raise PromptTypeError(f"a token id is an int, not {type(token).__name__}: {token!r:.80}")
            if not 0 <= token < n_tokens:
                raise PromptError(self._out_of_range(token))

    def _out_of_range(self, token: int) -> str:
        return f"token id {token} is out of range: the vocabulary has ids 0 to {self._vocab.n_tokens - 1}"

    def _context_size(self, n_prompt: int, config: GenerationConfig) -> tuple[int, int]:
        """Return the most tokens of the conversation, and the size that the context must have at least."""
        if config.n_ctx is not None:
            if n_prompt > config.n_ctx:
                raise ContextSizeError(
                    f"the prompt has {n_prompt} tokens but n_ctx is {config.n_ctx}: raise n_ctx in GenerationConfig or "
                    f"shorten the prompt"
                )
            return config.n_ctx, config.n_ctx
        limit = self._model.n_ctx_train
        if n_prompt > limit:
            raise ContextSizeError(
                f"the prompt has {n_prompt} tokens but the model was trained for a context of {limit}: shorten the "
                f"prompt, or set n_ctx in GenerationConfig (and RoPE scaling in ModelConfig) to go beyond"
            )
        if config.max_tokens is None:
            return limit, limit
        return limit, min(padded(n_prompt + config.max_tokens), limit)

    def _submit(self, request: Request) -> None:
        self._check_process()
        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._model, self._model_config, self._stats, self._stopped_engine)
                self._stopped_engine = None
            self._engine.submit(request)

    def _in_own_process(self) -> bool:
        return os.getpid() == self._process

    def _check_process(self) -> None:
        if not self._in_own_process():
            raise ForkedError(
                "this LLM was loaded before os.fork(), and its threads exist in the parent process only: load it in "
                "the child, or start processes with multiprocessing's 'spawn'"
            )

    def _cancel(self, request: Request) -> None:
        request.cancelled = True
        engine = self._engine
        if engine is not None:
            engine.cancel(request)

    def _stop_engine(self) -> None:
        if not self._in_own_process():
            return
        with self._lock:
            # The next engine waits for the one that stops, and so does whoever else calls this meanwhile.
            engine = self._engine or self._stopped_engine
            self._engine, self._stopped_engine = None, engine
        if engine is not None:
            engine.stop()

    def _to_response(self, request: Request) -> Response:
        return Response(
            request.text,
            finish_reason=request.finish_reason or "cancelled",
            usage=request.usage,
            timings=request.timings,
            model=self.model_name,
        )


_alive: weakref.WeakSet[LLM] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all engine threads while the interpreter is whole: one that wakes up in its ruins would crash it."""
    for llm in list(_alive):
        llm.close()


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigTypeError(f"{name} is a function, not {type(value).__name__}: {value!r:.80}")


def _split_overrides(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    generation, loading = GenerationConfig.model_fields, ModelConfig.model_fields
    check_option_names("LLM", overrides, [*generation, *loading])
    return (
        {name: value for name, value in overrides.items() if name in generation},
        {name: value for name, value in overrides.items() if name in loading},
    )


def _load(path: str, config: ModelConfig, progress: Callable[[float], bool | None] | None) -> LlamaModel:
    names = [device.name for device in devices()]
    for name in config.devices:
        if name not in names:
            raise ConfigError(f"there is no device {name!r}: this build has {', '.join(names)}")
    if len(config.tensor_split) > max_devices():
        raise ConfigError(f"tensor_split has {len(config.tensor_split)} values for at most {max_devices()} devices")
    params = LlamaModelParams()
    params.n_gpu_layers = config.n_gpu_layers
    params.main_gpu = config.main_gpu
    params.split_mode = LlamaSplitMode[config.split_mode.upper()]
    params.tensor_split = list(config.tensor_split)
    params.devices = list(config.devices)
    params.load_mode = LlamaLoadMode[config.load_mode.upper()]
    params.check_tensors = config.check_tensors
    params.kv_overrides = config.kv_overrides
    params.progress_callback = progress
    try:
        return LlamaModel(path, params)
    except FileNotFoundError:
        raise ModelNotFoundError(f"there is no model file at {path!r}") from None
    except OSError as error:
        raise ModelAccessError(f"cannot read the model at {path!r}: {error.strerror}") from error
    except (ValueError, RuntimeError) as error:
        raise ModelLoadError(str(error)) from error


def _show_log() -> None:
    """Send cyllama's log to stderr, once."""
    logger = logging.getLogger("cyllama")
    if not any(getattr(handler, "_cyllama_verbose", False) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        handler._cyllama_verbose = True  # type: ignore[attr-defined]
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
