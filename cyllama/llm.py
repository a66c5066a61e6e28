"""One model, and the context that it generates in."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, overload

from typing_extensions import Self, Unpack

from .attempts import MAX_SEED, attempts, check_attempts, is_valid
from .chat import (
    ChatPlan,
    ChatTemplates,
    MessageLike,
    plan_samplers,
    preserved_token_ids,
    spec_samplers,
)
from .chat_stream import AsyncChatStream, ChatStream
from .config import ConfigLike, GenerationConfig, ModelConfig, as_config, check_option_names
from .control_text import RenderedChat
from .engine import (
    NO_ADAPTERS,
    Adapter,
    AdapterKey,
    AdapterSet,
    Conversation,
    Conversations,
    Embedder,
    EmbeddingJob,
    Engine,
    History,
    Prompt,
    Reply,
    Request,
    Stats,
    context_size,
    sampler_maker,
)
from .errors import (
    ConfigError,
    ConfigTypeError,
    ForkedError,
    OutputError,
    PromptTypeError,
    SessionError,
    SessionFileError,
    UnsupportedModelError,
)
from .grammar import GrammarSpec, ResponseFormat, ResponseFormatLike, check_constraint
from .llama.llama_cpp import LlamaModel, LlamaPoolingType, LlamaSampler
from .loading import load_adapter, load_model, show_log, split_overrides
from .models import resolve_model_path
from .models.identity import model_identity
from .options import AttemptOptions, ChatOptions, GenerationOptions, RenderOptions, TextOptions, split_chat_options
from .recommended import RecommendedSampling
from .response import ChatResponse, Response
from .session import Session
from .session_file import SavedSession
from .stream import AsyncStream, LoopOutlet, Stream, check_synchronous
from .texts import max_text_tokens, pair_tokens, pooling_of, text_tokens
from .tokenizer import Tokenizer


class _Task(NamedTuple):
    """How one call generates.

    Attributes:
        config: Its options.
        first: Makes samplers that come before those of the config, such as one of what the text has to fit.
        preserved: Control tokens whose text is part of the answer's.
        response_format: What the value of the text is; that of a chat is its plan's.
    """

    config: GenerationConfig
    first: Callable[[], Sequence[LlamaSampler]] = tuple
    preserved: frozenset[int] = frozenset()
    response_format: ResponseFormat | None = None


class LLM:
    """A language model in this process.

    Calling it generates text. The model is loaded at once; a context is created by the first generation, reused by
    later ones while it is large enough, replaced by a larger one when it is not, and given back by :meth:`close`. Every
    generation starts from a clean state: the same prompt, config and seed give the same text, whatever ran before. A
    :meth:`session` instead goes on from what it holds.

    Any number of threads and tasks may use one ``LLM``: up to ``n_parallel`` generations are decoded together, and
    others join as soon as one ends.

    >>> from cyllama import LLM
    >>> with LLM(temperature=0) as llm:
    ...     print(llm("Once upon a time", max_tokens=32))

    Args:
        model_path: A GGUF file; ``None`` for the embedded tiny-chat.
        config: Defaults for every generation, a :class:`GenerationConfig` or a dict of its options. What it leaves out
            is as the model's file recommends (:attr:`recommended_sampling`), if it does.
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
        generation, loading = split_overrides(overrides)
        self._given = as_config(GenerationConfig, config).merge(**generation)
        self._model_config = as_config(ModelConfig, model_config).merge(**loading)
        if verbose:
            show_log()
        _check_callable("progress_callback", progress_callback)
        path = resolve_model_path(model_path)
        self._model = load_model(os.fspath(path), self._model_config, progress_callback)
        self._recommended = RecommendedSampling(self._model.metadata, self._model_config.kv_overrides)
        self._config = self._recommended.under(self._given)
        self._path = path.absolute()  # the same file when the process changes its folder
        self._identity = model_identity(self._path)
        self._vocab = self._model.vocab
        self._tokenizer = Tokenizer(self._model)
        self._chat = ChatTemplates(self._model, self._tokenizer.control_text)
        self._name = self._model.metadata.get("general.name") or self._path.stem
        model = self._model
        self._can_generate = model.has_decoder and not model.has_encoder and model.is_causal
        self._stats = Stats()
        self._adapters: dict[str, Adapter] = {}
        self._conversations = Conversations(self._model_config.max_sessions)
        # Around the engine and the conversations: re-entrant, since a signal handler may call close().
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._stopped_engine: Engine | None = None
        self._embedder: Embedder | None = None
        self._stopped_embedder: Embedder | None = None
        self._process = os.getpid()
        _alive.add(self)

    # -------------------- generating

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: Literal[False] = False,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[AttemptOptions],
    ) -> Response: ...

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: Literal[True],
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Stream: ...

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: bool,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[TextOptions],
    ) -> Response | Stream: ...

    @overload
    def __call__(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        n: int,
        **options: Unpack[TextOptions],
    ) -> list[Response]: ...

    def __call__(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        n: int | None = None,
        stream: bool = False,
        on_token: Callable[[str], object] | None = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        max_attempts: int = 1,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | Stream | list[Response]:
        """Continue ``prompt``.

        >>> llm("Once upon a time", max_tokens=16, stop_sequences=["."])
        >>> for chunk in llm("Once upon a time", stream=True):
        ...     print(chunk, end="")
        >>> best = max(llm("The answer is", n=8, max_tokens=16), key=len)

        Args:
            prompt: Text, or the token ids of one.
            config: Options for this generation; what it leaves out is as given to the ``LLM``.
            session: Name of the conversation that ``prompt`` is the whole history of: only what follows the longest
                common prefix with what it holds is evaluated. Without one, the generation starts from a clean state.
            n: Return a list of so many continuations of the same prompt, which is evaluated once. With a ``seed``, they
                have that and the following ones.
            stream: Return a :class:`Stream` of chunks instead of waiting for the whole text.
            on_token: Called with every chunk of text, on this thread. What it raises ends the generation.
            grammar: GBNF that the text has to fit.
            response_format: "json", a JSON schema, OpenAI's dict, or a pydantic model: what the text has to be. It is
                better if the prompt asks for it as well.
            max_attempts: How often to sample until the text is valid under what of ``response_format`` no grammar can
                say. Later attempts have other seeds, and a temperature of 0.7 where it was 0. One that was cut is not
                repeated; the last one is returned, valid or not: see :attr:`Response.parsed`.
            **overrides: Options of :class:`GenerationConfig` by name.

        Returns:
            The generated text, without the prompt; with ``stream``, its chunks.

        Raises:
            PromptError: The prompt is empty, or cannot be made into tokens.
            ContextSizeError: It is longer than the context may become.
            ContextMemoryError: There is not enough memory for a context.
            ContextError: llama.cpp cannot create one with the options of the model.
            DecodeError: llama.cpp failed; the error holds the text so far.
            SessionError: There are too many sessions.
            GrammarError: ``grammar`` is none.
            SchemaError: ``response_format`` cannot be converted to a grammar.
            UnsupportedModelError: The model is an encoder, or makes embeddings only.
            ForkedError: The process was forked after the model was loaded.
            ConfigError: An option has a value out of its range.
            ConfigTypeError: There is no such option, or the config has the wrong type.
        """
        check_attempts(max_attempts, n=n is not None, stream=stream, on_token=on_token is not None)
        task = self._text_task(config, overrides, grammar, response_format)
        if n is None and stream:
            return self._stream(prompt, task, session=session, on_token=on_token)
        if n is None:
            return self._first_valid(prompt, task, max_attempts, session=session, on_token=on_token)
        _check_alone(n, session=session, stream=stream, on_token=on_token)
        streams = [Stream(self, each, response_format=task.response_format) for each in self._group(prompt, task, n)]
        try:
            self._submit_all([each._request for each in streams])
            return [each.read() for each in streams]
        except BaseException:  # Ctrl-C, or the failure of one: its traceback would keep the others going
            for each in streams:
                each.cancel()
            raise

    @overload
    async def agenerate(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        on_token: Callable[[str], object] | None = None,
        **options: Unpack[AttemptOptions],
    ) -> Response: ...

    @overload
    async def agenerate(
        self, prompt: str | Sequence[int], config: ConfigLike = None, *, n: int, **options: Unpack[TextOptions]
    ) -> list[Response]: ...

    async def agenerate(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        n: int | None = None,
        on_token: Callable[[str], object] | None = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        max_attempts: int = 1,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | list[Response]:
        """Continue ``prompt`` without blocking the event loop; no thread waits meanwhile.

        >>> first, second = await asyncio.gather(llm.agenerate("Hello"), llm.agenerate("Good night"))

        Cancelling the task ends the generation within one step. Arguments, results and errors are those of a call;
        ``on_token`` may also return something to await.
        """
        check_attempts(max_attempts, n=n is not None, on_token=on_token is not None)
        task = self._text_task(config, overrides, grammar, response_format)
        if n is None:
            return await self._afirst_valid(prompt, task, max_attempts, session=session, on_token=on_token)
        _check_alone(n, session=session, on_token=on_token)
        outlets = [LoopOutlet() for _ in range(n)]
        pairs = zip(self._group(prompt, task, n, outlets), outlets, strict=True)
        streams = [AsyncStream(self, *pair, response_format=task.response_format) for pair in pairs]
        try:
            self._submit_all([stream._request for stream in streams])
            return [await stream.read() for stream in streams]
        except BaseException:  # the task was cancelled, or one of them failed
            for stream in streams:
                stream.cancel()
            raise

    def astream(
        self,
        prompt: str | Sequence[int],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        on_token: Callable[[str], object] | None = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> AsyncStream:
        """Continue ``prompt``, and return the chunks for an event loop.

        >>> async for chunk in llm.astream("Once upon a time"):
        ...     print(chunk, end="")

        Arguments and errors are those of a call.
        """
        task = self._text_task(config, overrides, grammar, response_format)
        return self._astream(prompt, task, session=session, on_token=on_token)

    # -------------------- chat

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: Literal[False] = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse: ...

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: Literal[True],
        **options: Unpack[ChatOptions],
    ) -> ChatStream: ...

    @overload
    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: bool,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream: ...

    def chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream:
        """Answer a chat.

        >>> llm.chat([{"role": "user", "content": "What is the capital of France?"}]).text
        'The capital of France is Paris.'

        Args:
            messages: The whole history: dicts in OpenAI's format, or :class:`Message`.
            config: Options for this generation, as for a call.
            session: Name of the conversation, of which only what is new is evaluated.
            stream: Return a :class:`ChatStream` of deltas instead of waiting for the whole answer.
            **options: Options of :class:`GenerationConfig` by name, and those of chats:

                tools: Tools that the model may call: OpenAI's dicts.
                tool_choice: "none", "auto" (the default), "required" or "any", the name of a tool, or OpenAI's dict.
                parallel_tool_calls: Whether one answer may call several tools.
                response_format: "json", a JSON schema, OpenAI's dict, or a pydantic model: what the content has to be.
                    With ``tools`` as well, the answer is a call or such a content, by one grammar;
                    :attr:`ChatResponse.parsed` of a call is ``None``. Where a call is required, it is not used.
                grammar: GBNF that the answer has to fit.
                max_attempts: How often to sample until the content is valid under what of ``response_format``, and a
                    call under what of a tool with ``strict``, no grammar can say. As for a call, but where no call of
                    a strict tool was valid, :class:`OutputError` is raised.
                chat_template: Jinja source to use instead of the model's own, the name of a template that llama.cpp
                    knows, such as "llama3", or the path of a file.
                chat_template_kwargs: Variables of the template by name; the values are JSON.
                enable_thinking: Whether the model reasons, where its template can be told.
                reasoning_effort: How hard it reasons, where its template can be told: "minimal", "low", "medium",
                    "high" or "xhigh"; "none" turns reasoning off.
                reasoning_budget: Tokens that it may reason with; then the end of the reasoning is forced. -1 for any
                    number (the default); 0 turns reasoning off.
                continue_final_message: Whether the answer continues the last message, the assistant's, instead of
                    following it. By default, it does so if there is such a message, and what it says can be the
                    beginning of an answer of that form. The message of the answer is what follows.

        Returns:
            The answer; with ``stream``, its deltas.

        Raises:
            ChatTemplateError: The model has no template, or it refuses the messages.
            MessageError: The messages are no chat.
            ToolError: A tool is not defined as one, or ``tool_choice`` is none.
            SchemaError: A schema cannot be converted to a grammar.
            GrammarError: ``grammar`` is none.
            OutputError: The arguments of a tool with ``strict`` are not valid.
            CyllamaError: As for a call.
        """
        max_attempts = check_attempts(options.pop("max_attempts", 1), stream=stream)
        plan, task = self._plan_chat(messages, config, options)
        if stream:
            return ChatStream(self._stream(plan.prompt, task, session=session), plan)
        for n, each in enumerate(self._attempts(task, max_attempts), 1):
            answer = ChatStream(self._stream(plan.prompt, each, session=session), plan)
            try:
                response = answer.read()
            except OutputError:  # a call of a strict tool
                if n == max_attempts:
                    raise
            else:
                if n == max_attempts or is_valid(response):
                    return response
        raise AssertionError("there is one attempt at least")

    async def achat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse:
        """Answer a chat without blocking the event loop. Arguments and errors are those of :meth:`chat`."""
        max_attempts = check_attempts(options.pop("max_attempts", 1))
        plan, task = self._plan_chat(messages, config, options)
        for n, each in enumerate(self._attempts(task, max_attempts), 1):
            answer = AsyncChatStream(self._astream(plan.prompt, each, session=session), plan)
            try:
                response = await answer.read()
            except OutputError:  # a call of a strict tool
                if n == max_attempts:
                    raise
            else:
                if n == max_attempts or is_valid(response):
                    return response
        raise AssertionError("there is one attempt at least")

    def astream_chat(
        self,
        messages: Sequence[MessageLike],
        config: ConfigLike = None,
        *,
        session: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream:
        """Answer a chat, and return the deltas for an event loop. Arguments and errors are those of :meth:`chat`."""
        check_attempts(options.pop("max_attempts", 1), stream=True)
        plan, task = self._plan_chat(messages, config, options)
        return AsyncChatStream(self._astream(plan.prompt, task, session=session), plan)

    # -------------------- LoRA adapters

    def load_lora(self, name: str, path: str | os.PathLike[str]) -> None:
        """Load a LoRA adapter, for generations that ask for it.

        >>> llm.load_lora("pirate", "pirate.gguf")
        >>> llm("Good morning!", lora={"pirate": 1.0})

        A generation is computed with the adapters in its config's ``lora`` and no others. Those with the same ones are
        decoded together, others take turns with them. What a session's KV cache holds is of use for the same adapters
        only: with others, the conversation is evaluated again.

        Args:
            name: What to call it from now on.
            path: A GGUF file made for this model, by llama.cpp's ``convert_lora_to_gguf.py``.

        Raises:
            AdapterNotFoundError: There is no such file.
            AdapterAccessError: It is a directory, or it may not be read.
            AdapterLoadError: It is no adapter, or damaged, or was made for another model.
            ConfigError: There is an adapter of that name.
            ConfigTypeError: The name is no text, or the path none.
            UnsupportedModelError: The model cannot generate text.
            ForkedError: The process was forked after the model was loaded.
        """
        self._check_process()
        self._check_generates()
        if not isinstance(name, str) or not name:
            raise ConfigTypeError(f"the name of an adapter is a str that is not empty, not {name!r:.80}")
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigTypeError(f"the path of an adapter is a str or a Path, not {type(path).__name__}")
        self._check_free(name)
        adapter = load_adapter(name, os.path.expanduser(os.fsdecode(path)), self._model)  # noqa: PTH111 - as for models
        with self._lock:
            self._check_free(name)
            self._adapters[name] = adapter

    def unload_lora(self, name: str) -> None:
        """Give an adapter back. Generations that were asked for with it go on with it to their end.

        Raises:
            ConfigError: There is no adapter of that name.
            ForkedError: The process was forked after the model was loaded.
        """
        self._check_process()
        with self._lock:
            adapter = self._adapters.pop(name, None)
            if adapter is None:
                raise ConfigError(self._unknown_adapter(name))
            adapter.unloaded = True
            if self._engine is not None:
                self._engine.free_unloaded_adapters()

    @property
    def loras(self) -> list[str]:
        """Names of the LoRA adapters that are loaded."""
        return list(self._adapters)

    # -------------------- text and tokens

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
        return self._tokenizer.tokenize(
            text,
            add_bos=self._config.add_bos if add_bos is None else add_bos,
            parse_special=self._config.parse_special if parse_special is None else parse_special,
        )

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without a beginning- or end-of-sequence token that the model adds by itself.

        Raises:
            PromptError: An id is out of the vocabulary's range.
        """
        return self._tokenizer.detokenize(ids)

    def count_tokens(self, text: str | Sequence[MessageLike], **options: Unpack[RenderOptions]) -> int:
        """Return how many tokens a prompt has: of a text, or of a chat with these messages.

        >>> llm.count_tokens([{"role": "user", "content": "What is the capital of France?"}])

        Args:
            text: The prompt, or messages: dicts in OpenAI's format, or :class:`Message`.
            **options: For messages, those of :meth:`render`.

        Raises:
            ConfigError: The prompt is a text, and one of the options of a chat is given.
            CyllamaError: As for :meth:`tokenize`, or as for :meth:`render`.
        """
        if isinstance(text, str):
            if given := [name for name, value in options.items() if value is not None]:
                raise ConfigError(f"{', '.join(given)}: options of a chat need messages instead of a text")
            return len(self.tokenize(text))
        return len(self._tokenizer.tokenize(self._render(text, options), add_bos=self._config.add_bos))

    def render(self, messages: Sequence[MessageLike], **options: Unpack[RenderOptions]) -> str:
        """Return the prompt of a chat as text, which ends where the answer begins.

        >>> llm(llm.render([{"role": "user", "content": "What is the capital of France?"}]))

        As a prompt, such a text means a control token wherever it spells one, also in what a message says.
        :meth:`chat` tells them apart: use it for messages that you did not write yourself.

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            **options: As for :meth:`chat`: ``tools``, ``chat_template``, ``chat_template_kwargs``, ``enable_thinking``,
                ``reasoning_effort`` and ``continue_final_message``.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            ConfigTypeError: There is no such option.
            MessageError: The messages are no chat.
            ToolError: A tool is not defined as one.
            PromptError: A text has lone surrogates.
        """
        return str(self._render(messages, options))

    def _render(self, messages: Sequence[MessageLike], options: Mapping[str, Any]) -> RenderedChat:
        self._check_process()
        check_option_names("LLM.render", options, sorted(RenderOptions.__optional_keys__))
        return self._chat.render(messages, **options)

    # -------------------- embeddings

    @overload
    def embed(  # pyright: ignore[reportOverlappingOverload]
        self, texts: str, *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]: ...

    @overload
    def embed(
        self, texts: Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[list[float]]: ...

    def embed(
        self, texts: str | Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float] | list[list[float]]:
        """Return the embedding of a text, or those of many in their order.

        >>> first, second = llm.embed(["A fox sleeps.", "An animal rests."])
        >>> similarity = sum(a * b for a, b in zip(first, second))

        Many texts are evaluated in one pass, so that one call with all of them is faster than one call for each. Tokens
        are pooled as the model says; the mean of them is taken where it does not. Embeddings have a context of their
        own, created by the first call and reused, replaced and released as that of generations is.

        Args:
            texts: A text, or any number of them.
            normalize: Scale every vector to the length 1, so that a dot product is the cosine of the angle.
            truncate: Leave out what is too long, instead of refusing it.
            n_ctx: Most tokens of a text; by default as configured. There are never more than the model was trained for.

        Raises:
            PromptError: There is no text, or one is empty or cannot be made into tokens.
            ContextSizeError: A text is longer than what the model was trained for, or than ``n_ctx``.
            ConfigError: ``n_ctx`` is less than 1.
            ContextMemoryError: There is not enough memory for a context.
            ContextError: llama.cpp cannot create one with the options of the model.
            DecodeError: llama.cpp failed.
            EmbeddingCancelledError: ``close()`` or ``reset_context()`` was called meanwhile.
            UnsupportedModelError: The model is one that ranks, or takes no text.
            ForkedError: The process was forked after the model was loaded.
        """
        vectors = _wait(self._submit_texts(texts, normalize, truncate, n_ctx))
        return vectors[0] if isinstance(texts, str) else vectors

    @overload
    async def aembed(  # pyright: ignore[reportOverlappingOverload]
        self, texts: str, *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]: ...

    @overload
    async def aembed(
        self, texts: Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[list[float]]: ...

    async def aembed(
        self, texts: str | Iterable[str], *, normalize: bool = True, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float] | list[list[float]]:
        """Return what :meth:`embed` does without blocking the event loop; no thread waits meanwhile."""
        vectors = await asyncio.wrap_future(self._submit_texts(texts, normalize, truncate, n_ctx).future)
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(
        self, query: str, documents: Iterable[str], *, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]:
        """Return how well each document answers the query, in their order: the higher, the better.

        >>> scores = llm.rerank("What do foxes eat?", ["Foxes eat mice.", "The sky is blue."])

        Scores are as the model gives them, on a scale of its own.

        Args:
            query: What is asked.
            documents: Texts to compare.
            truncate: Leave out the end of documents that are too long, instead of refusing them.
            n_ctx: Most tokens of the query with a document; by default as configured.

        Raises:
            UnsupportedModelError: The model does not rank. All other errors are those of :meth:`embed`.
        """
        return [score for score, *_ in _wait(self._submit_pairs(query, documents, truncate, n_ctx))]

    async def arerank(
        self, query: str, documents: Iterable[str], *, truncate: bool = False, n_ctx: int | None = None
    ) -> list[float]:
        """Return what :meth:`rerank` does without blocking the event loop; no thread waits meanwhile."""
        scores = await asyncio.wrap_future(self._submit_pairs(query, documents, truncate, n_ctx).future)
        return [score for score, *_ in scores]

    # -------------------- sessions

    def session(self, name: str | None = None) -> Session:
        """Return the conversation of that name, new if there is none.

        Args:
            name: Any text; by default a name that is free.

        Raises:
            SessionError: There are ``max_sessions`` already, and your code holds all of them.
            PromptTypeError: The name is no text.
        """
        if name is None:
            with self._lock:
                return Session(self, self._conversations.new_name())
        return Session(self, name)

    @property
    def sessions(self) -> list[str]:
        """Names of the conversations that are remembered."""
        with self._lock:
            self._forget_failed()
            return self._conversations.names

    def load_session(self, path: str | os.PathLike[str], name: str | None = None) -> Session:
        """Return a conversation that :meth:`Session.save` wrote to a file.

        Its KV cache is used if it fits the options of this ``LLM``, and evaluated again if not. As with pickles, load
        only what you trust: a state that was made to harm can.

        Args:
            path: The file.
            name: Its name; by default the one that it had.

        Raises:
            SessionFileError: The file is damaged, or of another model or version.
            SessionError: There is a session of that name.
            OSError: The file cannot be read.
        """
        self._check_process()
        saved = SavedSession.read(path)
        if saved.model != self._identity:
            raise SessionFileError(f"{os.fspath(path)!r} was saved with another model than {self.model_name!r}")
        history = History(saved.tokens, saved.text, tuple(Reply(*reply) for reply in saved.replies))
        conversation = Conversation(saved.name if name is None else name, history)
        with self._lock:
            self._add(conversation)
            if saved.state is not None and saved.cache_key == self._cache_key(saved.adapters):
                self._running_engine().adopt(conversation, saved.cached_tokens, saved.state, saved.adapters)
            return Session(self, conversation.name)

    # -------------------- context

    def reset_context(self, session: str | None = None) -> None:
        """Drop the contexts and every session; the next generation creates a fresh one.

        Generations in flight end as "cancelled", and embeddings with an error.

        Args:
            session: Forget only the conversation of this name, if there is one.
        """
        if session is None:
            with self._lock:
                for conversation in self._conversations:
                    self._forget(conversation)
            self._stop_engine()
            return
        with self._lock:
            conversation = self._conversations.find(session)
            if conversation is not None:
                self._forget(conversation)

    def close(self) -> None:
        """Give back the context and all that belongs to it, at once, and the one for embeddings.

        Generations in flight end as "cancelled", and embeddings with an error. The model stays loaded, and the instance
        usable: a new context is created on demand. Sessions keep their token ids, and are evaluated again when they are
        used. Closing twice is closing once.
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
        """What has been done so far, and what is going on; a snapshot."""
        engine = self._engine
        places = {"resident": 0, "swapped": 0, "dropped": 0}
        for conversation in self._conversations:
            if conversation.tokens:
                places[conversation.place] += 1
        return self._stats.snapshot(**places, **(engine.occupancy if engine is not None else {}))

    @property
    def config(self) -> GenerationConfig:
        """Defaults for every generation.

        They are what ``LLM(...)`` was given, else what the model's file recommends (:attr:`recommended_sampling`), else
        those of :class:`GenerationConfig`.
        """
        return self._config

    @property
    def recommended_sampling(self) -> dict[str, Any]:
        """The options of a generation that the model's file recommends, ``general.sampling.*``.

        They are the defaults where neither ``LLM(...)`` nor a call gives others.
        """
        return dict(self._recommended.options)

    @property
    def model_config(self) -> ModelConfig:
        """How the model was loaded."""
        return self._model_config

    @property
    def model_path(self) -> str:
        """The absolute path of the model's file."""
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

    def _merge(self, config: ConfigLike, overrides: Mapping[str, Any]) -> GenerationConfig:
        if config is None and not overrides:
            return self._config
        given = as_config(GenerationConfig, config)
        options = {name: getattr(given, name) for name in given.model_fields_set}
        return self._recommended.under(self._given.merge(**(options | dict(overrides))))

    def _text_task(
        self,
        config: ConfigLike,
        overrides: Mapping[str, Any],
        grammar: str | None,
        response_format: ResponseFormatLike,
    ) -> _Task:
        merged = self._merge(config, overrides)
        text, expected = check_constraint(grammar, response_format, self._vocab)
        first = tuple if text is None else partial(spec_samplers, self._vocab, GrammarSpec(text))
        return _Task(merged, first, response_format=expected)

    def _plan_chat(
        self, messages: Sequence[MessageLike], config: ConfigLike, options: Mapping[str, Any]
    ) -> tuple[ChatPlan, _Task]:
        """Return a chat's prompt with how its answer is read, and how the answer is generated."""
        self._check_process()
        of_chat, overrides = split_chat_options(options)
        plan = self._chat.prepare(messages, **of_chat)
        return plan, self._chat_task(config, overrides, plan)

    def _chat_task(self, config: ConfigLike, overrides: Mapping[str, Any], plan: ChatPlan) -> _Task:
        merged = self._merge(config, overrides)
        stops = tuple(dict.fromkeys([*merged.stop_sequences, *plan.stop_sequences]))
        preserved = preserved_token_ids(self._vocab, plan)
        return _Task(
            merged.merge(parse_special=True, stop_sequences=stops), partial(plan_samplers, self._vocab, plan), preserved
        )

    @staticmethod
    def _attempts(task: _Task, max_attempts: int) -> Iterator[_Task]:
        """Yield how each attempt is sampled."""
        return (task._replace(config=config) for config in attempts(task.config, max_attempts))

    def _first_valid(
        self,
        prompt: str | Sequence[int],
        task: _Task,
        max_attempts: int,
        *,
        session: str | None,
        on_token: Callable[[str], object] | None,
    ) -> Response:
        """Return the first valid answer, or the last one."""
        for n, each in enumerate(self._attempts(task, max_attempts), 1):
            streaming = on_token is not None
            answer = self._stream(prompt, each, session=session, streaming=streaming, on_token=on_token).read()
            if n == max_attempts or is_valid(answer):
                return answer
        raise AssertionError("there is one attempt at least")

    async def _afirst_valid(
        self,
        prompt: str | Sequence[int],
        task: _Task,
        max_attempts: int,
        *,
        session: str | None,
        on_token: Callable[[str], object] | None,
    ) -> Response:
        """Return the first valid answer, or the last one, for an event loop."""
        for n, each in enumerate(self._attempts(task, max_attempts), 1):
            answer = await self._astream(prompt, each, session=session, on_token=on_token).read()
            if n == max_attempts or is_valid(answer):
                return answer
        raise AssertionError("there is one attempt at least")

    def _stream(
        self,
        prompt: str | Sequence[int],
        task: _Task,
        *,
        session: str | None,
        append: bool = False,
        streaming: bool = True,
        on_token: Callable[[str], object] | None = None,
    ) -> Stream:
        """Begin a generation for a thread."""
        _check_callable("on_token", on_token)
        check_synchronous(on_token)
        make = self._maker(*self._prepare(prompt, task, append=append), task, None, streaming=streaming)
        with self._lock:
            request = make(self._conversation_of(session))
            stream = Stream(self, request, on_token, task.response_format)  # dropping it cancels: Ctrl-C leaves nothing
            self._submit(request)
        return stream

    def _astream(
        self,
        prompt: str | Sequence[int],
        task: _Task,
        *,
        session: str | None,
        append: bool = False,
        on_token: Callable[[str], object] | None = None,
    ) -> AsyncStream:
        """Begin a generation for an event loop."""
        _check_callable("on_token", on_token)
        outlet = LoopOutlet()
        make = self._maker(*self._prepare(prompt, task, append=append), task, outlet, streaming=True)
        with self._lock:
            request = make(self._conversation_of(session))
            stream = AsyncStream(self, request, outlet, on_token, task.response_format)
            self._submit(request)
        return stream

    def _conversation_of(self, session: str | None) -> Conversation | None:
        return None if session is None else self._conversation(session)

    def _submit(self, request: Request) -> None:
        """Hand a generation over to the engine, or leave no trace of it. To be called with the lock held."""
        try:
            if request.conversation is not None:
                request.conversation.requests[request] = None
            self._running_engine().submit(request)
        except BaseException:  # Ctrl-C
            self._withdraw(request)
            raise

    def _withdraw(self, request: Request) -> None:
        """End a request that the engine may or may not have seen."""
        request.cancelled = True
        if self._engine is not None:
            self._engine.submit(request)  # which ends it
        elif request.conversation is not None:
            request.conversation.requests.pop(request, None)

    def _submit_all(self, requests: list[Request]) -> None:
        """Hand over generations of the same prompt, of which the first one evaluates it for all, or none of them."""
        try:
            with self._lock:
                self._running_engine().submit(*requests)
        except BaseException:  # Ctrl-C
            with self._lock:
                for request in requests:
                    self._withdraw(request)
            raise

    def _group(
        self, prompt: str | Sequence[int], task: _Task, n: int, outlets: Sequence[LoopOutlet | None] | None = None
    ) -> list[Request]:
        """Return ``n`` generations of the same prompt, of which the first one evaluates it for all."""
        seed = task.config.seed
        tasks = [task] * n
        if seed is not None:
            tasks = [task._replace(config=task.config.merge(seed=(seed + i) % MAX_SEED)) for i in range(n)]
        first = task.first()  # compiled once
        tasks = [each._replace(first=lambda: [sampler.clone() for sampler in first]) for each in tasks]
        given, adapters = self._prepare(prompt, task)
        outlets = [None] * n if outlets is None else outlets
        makers = [self._maker(given, adapters, *pair) for pair in zip(tasks, outlets, strict=True)]
        return [make(None) for make in makers]

    def _prepare(self, prompt: str | Sequence[int], task: _Task, *, append: bool = False) -> tuple[Prompt, AdapterSet]:
        self._check_process()
        return self._prompt(prompt, task.config, append=append), self._adapter_set(task.config)

    def _maker(
        self, given: Prompt, adapters: AdapterSet, task: _Task, outlet: LoopOutlet | None, *, streaming: bool = False
    ) -> Callable[[Conversation | None], Request]:
        """Do all of a request's preparation that takes time; return what makes it one of a conversation."""
        config = task.config
        n_ctx = config.n_ctx or self._model.n_ctx_train
        make_sampler = sampler_maker(config, self._vocab, n_ctx, task.first())
        size_for = partial(context_size, config=config, model=self._model, kv_cells=self._model_config.kv_cells)
        # Nothing of this keeps the LLM alive.
        return lambda conversation: Request(
            given,
            config,
            conversation=conversation,
            streaming=streaming,
            size_for=size_for,
            make_sampler=make_sampler,
            preserved=task.preserved,
            outlet=outlet,
            adapters=adapters,
        )

    def _prompt(self, prompt: str | Sequence[int], config: GenerationConfig, *, append: bool = False) -> Prompt:
        self._check_generates()
        return self._tokenizer.prompt(prompt, config, append=append)

    def _check_generates(self) -> None:
        if not self._can_generate:
            raise UnsupportedModelError(
                f"{self.model_name} cannot generate text: it has an encoder, or its tokens attend to later ones"
            )

    def _adapter_set(self, config: GenerationConfig) -> AdapterSet:
        """Return what a config's ``lora`` names, which keeps it loaded."""
        if not config.lora:
            return NO_ADAPTERS
        with self._lock:
            for name in config.lora:
                if name not in self._adapters:
                    raise ConfigError(f"lora: {self._unknown_adapter(name)}")
            return AdapterSet((self._adapters[name], scale) for name, scale in config.lora.items())

    def _unknown_adapter(self, name: object) -> str:
        loaded = ", ".join(repr(known) for known in self._adapters) or "none"
        return f"there is no adapter {name!r:.80}: load_lora() has loaded {loaded}"

    def _check_free(self, name: str) -> None:
        if name in self._adapters:
            raise ConfigError(f"there is an adapter {name!r} already: unload_lora() it, or choose another name")

    def _running_engine(self) -> Engine:
        """Return the engine, started if need be. To be called with the lock held."""
        if self._engine is None:
            self._engine = Engine(self._model, self._model_config, self._stats, self._stopped_engine)
            self._stopped_engine = None
        return self._engine

    def _in_own_process(self) -> bool:
        return os.getpid() == self._process

    def _check_process(self) -> None:
        if not self._in_own_process():
            raise ForkedError(
                "this LLM was loaded before os.fork(), and its threads exist in the parent process only: load it in "
                "the child, or start processes with multiprocessing's 'spawn'"
            )

    def _cancel(self, request: Request) -> None:
        if not self._in_own_process():
            return  # a lock may have been held when it was forked, and nothing runs there anyway
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
            embedder = self._embedder or self._stopped_embedder
            self._embedder, self._stopped_embedder = None, embedder
        if engine is not None:
            engine.stop()
        if embedder is not None:
            embedder.stop()

    def _to_response(self, request: Request, response_format: ResponseFormat | None) -> Response:
        return Response(
            request.answer.text,
            finish_reason=request.finish_reason or "cancelled",
            usage=request.usage,
            timings=request.answer.clock.timings,
            model=self.model_name,
            logprobs=None if request.config.logprobs is None else tuple(request.answer.logprobs),
            response_format=response_format,
        )

    # -------------------- internal: embeddings

    def _submit_texts(
        self, texts: str | Iterable[str], normalize: bool, truncate: bool, n_ctx: int | None = None
    ) -> EmbeddingJob:
        self._check_process()
        pooling = pooling_of(self._model, self._model_config, self.model_name)
        if pooling == LlamaPoolingType.RANK:
            raise UnsupportedModelError(f"{self.model_name} makes no embeddings, it ranks: use rerank()")
        tokens = text_tokens(self._tokenizer, texts, self._max_text_tokens(n_ctx), truncate=truncate)
        return self._submit_embedding(EmbeddingJob(tokens, normalize=normalize), pooling)

    def _submit_pairs(
        self, query: str, documents: Iterable[str], truncate: bool, n_ctx: int | None = None
    ) -> EmbeddingJob:
        self._check_process()
        pooling = pooling_of(self._model, self._model_config, self.model_name)
        if pooling != LlamaPoolingType.RANK:
            raise UnsupportedModelError(f"{self.model_name} does not rank: compare what embed() returns")
        pairs = pair_tokens(self._model, query, documents, self._max_text_tokens(n_ctx), truncate=truncate)
        return self._submit_embedding(EmbeddingJob(pairs, normalize=False), pooling)

    def _max_text_tokens(self, n_ctx: int | None) -> int:
        merged = self._merge(None, {} if n_ctx is None else {"n_ctx": n_ctx})
        return max_text_tokens(self._model, merged.n_ctx)

    def _submit_embedding(self, job: EmbeddingJob, pooling: LlamaPoolingType) -> EmbeddingJob:
        with self._lock:
            if self._embedder is None:
                self._embedder = Embedder(self._model, self._model_config, pooling, self._stats, self._stopped_embedder)
                self._stopped_embedder = None
            self._embedder.submit(job)
        return job

    # -------------------- internal: what sessions do

    def _conversation(self, name: str) -> Conversation:
        """Return the conversation of that name. To be called with the lock held."""
        _check_name(name)
        conversation = self._conversations.find(name)
        if conversation is None:
            conversation = Conversation(name)
            self._add(conversation)
        return conversation

    def _add(self, conversation: Conversation) -> None:
        """Remember a conversation. To be called with the lock held."""
        _check_name(conversation.name)
        self._forget_failed()
        if conversation.name in self._conversations:
            raise SessionError(f"there is a session {conversation.name!r} already: close it, or choose another name")
        forgotten = self._conversations.add(conversation)
        if forgotten is not None:
            self._forget(forgotten)

    def _forget(self, conversation: Conversation) -> None:
        """Forget a conversation. To be called with the lock held."""
        self._conversations.forget(conversation)
        for request in list(conversation.requests):
            self._cancel(request)
        if self._engine is not None:
            self._engine.forget(conversation)

    def _forget_failed(self) -> None:
        """Forget the conversations whose first call failed. To be called with the lock held."""
        for conversation in self._conversations:
            if conversation.failed:
                self._forget(conversation)

    def _hold(self, session: Session) -> None:
        with self._lock:
            conversation = self._conversation(session.name)
            conversation.handles.add(session)
            conversation.opened = True

    def _session_length(self, name: str) -> int:
        conversation = self._conversations.find(name)
        return 0 if conversation is None else len(conversation.tokens)

    def _fork(self, session: Session, name: str | None) -> Session:
        self._check_process()
        with self._lock:
            source = self._conversation(session.name)
            branch = Conversation(self._conversations.new_name() if name is None else name, source.history)
            self._add(branch)
            if self._engine is not None:
                self._engine.share(source, branch)
            return Session(self, branch.name)

    def _save(self, session: Session, path: str | os.PathLike[str]) -> None:
        self._check_process()
        with self._lock:
            conversation, engine = self._conversation(session.name), self._engine
            answer = None if engine is None else engine.save(conversation)
        cached_tokens, state, adapters = ([], None, ()) if answer is None else answer.result()
        tokens, text, replies = conversation.history
        SavedSession(
            session.name,
            self._identity,
            self._cache_key(adapters),
            tokens,
            text,
            [(reply.n_tokens, reply.n_chars) for reply in replies],
            cached_tokens,
            state,
            adapters,
        ).write(path)

    def _cache_key(self, adapters: AdapterKey) -> str:
        """What the content of a KV cache depends on, besides the model's file."""
        config = self._model_config
        names = sorted(name for name in type(config).model_fields if name.startswith(("rope_", "yarn_")))
        key = [getattr(config, name) for name in names] + sorted(config.kv_overrides.items())
        return repr([*key, *adapters])


MAX_CONTINUATIONS = 1024
_alive: weakref.WeakSet[LLM] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """End all engine threads while the interpreter is whole: one that wakes up in its ruins would crash it."""
    for llm in list(_alive):
        llm.close()


def _renew_locks() -> None:
    """In a forked child: a thread of the parent may have held a lock, and never gives it back here."""
    for llm in list(_alive):
        llm._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _wait(job: EmbeddingJob) -> list[list[float]]:
    try:
        return job.future.result()
    except BaseException:  # Ctrl-C, or what the call failed with: then there is nothing left to cancel
        job.future.cancel()
        raise


def _check_callable(name: str, value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigTypeError(f"{name} is a function, not {type(value).__name__}: {value!r:.80}")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise PromptTypeError(f"the name of a session is a str, not {type(name).__name__}: {name!r:.80}")


def _check_alone(n: int, **others: object) -> None:
    """Refuse what several continuations cannot be combined with."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise ConfigTypeError(f"n is a number of continuations, not {type(n).__name__}: {n!r:.80}")
    if not 1 <= n <= MAX_CONTINUATIONS:
        raise ConfigError(f"n must be from 1 to {MAX_CONTINUATIONS}, not {n}")
    for name, value in others.items():
        if value:
            raise ConfigError(f"n={n} continuations cannot be combined with {name}: use sessions and fork() instead")
