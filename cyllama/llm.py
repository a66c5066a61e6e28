"""One model, and the context that it generates in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import Self, Unpack

from . import calls, submission
from .attempts import check_attempts
from .config import ConfigLike, GenerationConfig, ModelConfig, as_config
from .embeddings import Embeddings
from .errors import ConfigError
from .loading import show_log, split_overrides
from .models import hub_file, resolve_model_path
from .runtime import Runtime
from .session import Session
from .stream import check_callable

if TYPE_CHECKING:
    from .call_types import (
        AttemptCall,
        ChatCall,
        ChatStreamCall,
        MessagesLike,
        OnToken,
        PathLike,
        Progress,
        PromptLike,
        StreamCall,
        TextCall,
    )
    from .chat import ChatResponse
    from .chat_stream import AsyncChatStream, ChatStream
    from .engine import DraftModel, Stats
    from .grammar import ResponseFormatLike
    from .llama.llama_cpp import LlamaModel
    from .options import ChatOptions, GenerationOptions, RenderOptions, TextOptions
    from .response import Response
    from .stream import AsyncStream, Stream


class LLM(Embeddings):
    """A language model in this process.

    Calling it generates text. The model is loaded at once. The first generation creates a context; later ones reuse it
    while it is large enough, and replace it by a larger one when it is not; :meth:`close` releases it. Every generation
    starts from a clean state: the same prompt, config and seed give the same text, whatever ran before. A
    :meth:`session` instead continues from what it holds.

    Any number of threads and tasks may use one ``LLM``; up to ``n_parallel`` generations are decoded together.

    >>> from cyllama import LLM
    >>> with LLM(temperature=0) as llm:
    ...     response = llm("Once upon a time", max_tokens=32)
    >>> response.usage.completion_tokens
    32

    Args:
        model_path: A GGUF file, or a model on the hub, "owner/repo:Q4_K_M"; ``None`` for the embedded tiny-chat.
        config: Defaults for every generation, a :class:`GenerationConfig` or a dict of its options. For options that it
            leaves out, the model's file may recommend others than llama.cpp's (:attr:`recommended_sampling`).
        model_config: How to load the model, a :class:`ModelConfig` or a dict of its options.
        verbose: Show the log on stderr: attaches a handler to the logger "cyllama", for the whole process.
        progress_callback: Called while the model is loaded, with 0.0 to 1.0; returning ``False`` stops it.
        **overrides: Options of :class:`GenerationConfig` and :class:`ModelConfig` by name; ``draft_model`` also as a
            loaded :class:`LLM`, which may draft for several.

    Raises:
        ModelNotFoundError: There is no such file, nor a model of that name.
        ModelAccessError: It is a directory, or it may not be read.
        ModelDownloadError: It cannot be downloaded.
        ModelLoadError: It is not a model, or damaged, or does not fit into memory.
        ContextMemoryError: The KV cache of ``kv_cells`` tokens does not fit into memory.
        ConfigError: An option has a value out of its range, or this machine does not have what it asks for.
        ConfigTypeError: There is no such option, or an argument has the wrong type.
        ForkedError: The process was forked after another model had started to use its devices.
    """

    def __init__(
        self,
        model_path: PathLike | None = None,
        config: GenerationConfig | dict[str, Any] | None = None,
        *,
        model_config: ModelConfig | dict[str, Any] | None = None,
        verbose: bool = False,
        progress_callback: Progress | None = None,
        **overrides: Any,
    ) -> None:
        generation, loading = split_overrides(overrides)
        drafting, draft = loading.get("draft_model"), None
        if isinstance(drafting, LLM):
            loading["draft_model"], draft = drafting.model_path, drafting._as_draft()
        given = as_config(GenerationConfig, config).merge(**generation)
        how = as_config(ModelConfig, model_config).merge(**loading)
        if verbose:
            show_log()
        check_callable("progress_callback", progress_callback)
        super().__init__(Runtime(resolve_model_path(model_path), how, given, progress_callback, draft))

    def _as_draft(self) -> DraftModel:
        return self._runtime.as_draft()

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: PathLike | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Return a model of the hub, downloaded if it is not in the cache, and loaded. It raises what ``LLM()`` does.

        >>> LLM.from_pretrained("owner/repo", "*Q8_0.gguf", local_files_only=True)
        Traceback (most recent call last):
        cyllama.errors.ModelNotFoundError: 'hf:owner/repo/*Q8_0.gguf' is not in the cache at ...

        Args:
            repo_id: The repository, "owner/repo", or "owner/repo:Q4_K_M" for a quantization.
            filename: A file of it, or a pattern that fits one model.
            revision: A branch, a tag or a commit; by default the main branch.
            token: An access token; by default ``HF_TOKEN`` or that of the log-in.
            cache_dir: Another folder for downloads than the one that all tools share.
            local_files_only: Download nothing: use what is in the cache.
            **options: Everything else that ``LLM(...)`` takes.
        """
        return cls(hub_file(repo_id, filename, revision, token, cache_dir, local_files_only), **options)

    # -------------------- text

    @overload
    def __call__(self, prompt: PromptLike, config: ConfigLike = None, **options: Unpack[TextCall]) -> Response: ...

    @overload
    def __call__(
        self, prompt: PromptLike, config: ConfigLike = None, *, stream: Literal[True], **options: Unpack[StreamCall]
    ) -> Stream: ...

    @overload
    def __call__(
        self, prompt: PromptLike, config: ConfigLike = None, *, stream: bool, **options: Unpack[StreamCall]
    ) -> Response | Stream: ...

    @overload
    def __call__(
        self, prompt: PromptLike, config: ConfigLike = None, *, n: int, **options: Unpack[TextOptions]
    ) -> list[Response]: ...

    def __call__(
        self,
        prompt: PromptLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        n: int | None = None,
        stream: bool = False,
        on_token: OnToken = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        max_attempts: int = 1,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | Stream | list[Response]:
        """Continue ``prompt``.

        >>> llm("Once upon a time", max_tokens=16).finish_reason
        'length'
        >>> chunks = list(llm("Once upon a time", max_tokens=16, stream=True))
        >>> "".join(chunks) == llm("Once upon a time", max_tokens=16)
        True
        >>> len(llm("The answer is", n=3, temperature=1.0, max_tokens=8))
        3

        Args:
            prompt: Text, the token ids of one, or a list of texts and each :class:`Image` in its place among them.
            config: Options for this generation; those that it leaves out are as given to the ``LLM``.
            session: Name of the conversation that ``prompt`` is the whole history of: only what follows the longest
                common prefix with what it holds is evaluated. Without one, the generation starts from a clean state.
            n: Return a list of this many continuations of the same prompt, which is evaluated once. With a ``seed``,
                they use that and the following ones.
            stream: Return a :class:`Stream` of chunks instead of waiting for the whole text.
            on_token: Called with every chunk of text, on this thread. An exception that it raises ends the generation.
            grammar: GBNF that the text has to fit.
            response_format: "json", a JSON schema, OpenAI's dict, or a pydantic model: what the text has to be. It is
                better if the prompt asks for it as well.
            max_attempts: How often to sample, 1 to 100, until the text is valid also under those rules of
                ``response_format`` that no grammar can express. Later attempts have other seeds, and a temperature of
                0.7 where it was 0. A text that was cut is not sampled again. The last text is returned, valid or not:
                see :attr:`Response.parsed`.
            **overrides: Options of :class:`GenerationConfig` by name.

        Returns:
            The generated text, without the prompt; with ``stream``, its chunks; with ``n``, a list of texts.

        Raises:
            PromptError: The prompt is empty, or cannot be made into tokens.
            ContextSizeError: It is longer than the context may become.
            ContextMemoryError: There is not enough memory for a context.
            ContextError: llama.cpp cannot create one with the options of the model.
            DecodeError: llama.cpp failed; the error holds the text so far.
            SessionError: There are ``max_sessions`` conversations, and all are in use.
            GrammarError: ``grammar`` is not valid GBNF, or following it takes too much work.
            SchemaError: ``response_format`` cannot be converted to a grammar.
            UnsupportedModelError: The model is an encoder, or makes embeddings only.
            ForkedError: The process was forked after the model was loaded.
            ConfigError: An option has a value out of its range.
            ConfigTypeError: There is no such option, or an argument has the wrong type.
        """
        check_attempts(max_attempts, n=n is not None, stream=stream, on_token=on_token is not None)
        task = calls.text_task(self._runtime, prompt, config, overrides, grammar, response_format)
        if n is not None:
            calls.check_continuations(n, session=session, stream=stream, on_token=on_token)
            return submission.generate_all(self._runtime, task, n)
        streaming = stream or on_token is not None
        begin = partial(submission.start, self._runtime, session=session, streaming=streaming, on_token=on_token)
        return begin(task) if stream else submission.first_valid(task, max_attempts, begin)

    @overload
    async def agenerate(
        self, prompt: PromptLike, config: ConfigLike = None, **options: Unpack[AttemptCall]
    ) -> Response: ...

    @overload
    async def agenerate(
        self, prompt: PromptLike, config: ConfigLike = None, *, n: int, **options: Unpack[TextOptions]
    ) -> list[Response]: ...

    async def agenerate(
        self,
        prompt: PromptLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        n: int | None = None,
        on_token: OnToken = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        max_attempts: int = 1,
        **overrides: Unpack[GenerationOptions],
    ) -> Response | list[Response]:
        """Continue ``prompt`` without blocking the event loop; no thread waits meanwhile.

        Cancelling the task ends the generation within one step. Arguments, results and errors are those of
        :meth:`__call__`; ``on_token`` may also return something to await.

        >>> async def both():
        ...     return await asyncio.gather(llm.agenerate("Hello", max_tokens=4), llm.agenerate("Bye", max_tokens=4))
        >>> [response.usage.completion_tokens for response in asyncio.run(both())]
        [4, 4]
        """
        check_attempts(max_attempts, n=n is not None, on_token=on_token is not None)
        task = calls.text_task(self._runtime, prompt, config, overrides, grammar, response_format)
        if n is not None:
            calls.check_continuations(n, session=session, on_token=on_token)
            return await submission.generate_all_async(self._runtime, task, n)
        begin = partial(submission.start_async, self._runtime, session=session, on_token=on_token)
        return await submission.first_valid_async(task, max_attempts, begin)

    def astream(
        self,
        prompt: PromptLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        on_token: OnToken = None,
        grammar: str | None = None,
        response_format: ResponseFormatLike = None,
        **overrides: Unpack[GenerationOptions],
    ) -> AsyncStream:
        """Continue ``prompt``, and return the chunks for the running event loop.

        Arguments and errors are those of :meth:`__call__`.

        >>> async def story():
        ...     return [chunk async for chunk in llm.astream("Once upon a time", max_tokens=8)]
        >>> len("".join(asyncio.run(story()))) > 0
        True
        """
        task = calls.text_task(self._runtime, prompt, config, overrides, grammar, response_format)
        return submission.start_async(self._runtime, task, session=session, on_token=on_token)

    # -------------------- chat

    @overload
    def chat(self, messages: MessagesLike, config: ConfigLike = None, **options: Unpack[ChatCall]) -> ChatResponse: ...

    @overload
    def chat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        stream: Literal[True],
        **options: Unpack[ChatStreamCall],
    ) -> ChatStream: ...

    @overload
    def chat(
        self, messages: MessagesLike, config: ConfigLike = None, *, stream: bool, **options: Unpack[ChatStreamCall]
    ) -> ChatResponse | ChatStream: ...

    def chat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        stream: bool = False,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse | ChatStream:
        """Answer a chat.

        >>> llm.chat([{"role": "user", "content": "What is the capital of France?"}]).text
        'The capital of France is Paris.'

        With ``tools`` and a ``response_format``, the answer is a call or a content of that format, by one grammar.

        Args:
            messages: The whole history: dicts in OpenAI's format, or :class:`Message`.
            config: Options for this generation, as for a call.
            session: Name of the conversation, of which only what is new is evaluated.
            stream: Return a :class:`ChatStream` of deltas instead of waiting for the whole answer.
            **options: Options of :class:`GenerationConfig` by name, and those of chats:
                grammar: GBNF, llama.cpp's language of grammars, that the text has to fit. ``None``: any text.
                response_format: What the text has to be: "json", a JSON schema, OpenAI's dict, a pydantic model, or a
                    type such as ``list[Model]``, a dataclass, a ``TypedDict`` or a ``Literal``. ``None``: any text.
                max_attempts: How often to sample until the text is valid under the part of its ``response_format`` that
                    no grammar can express, and a call of a ``strict`` tool under its schema. Every attempt costs a
                    whole answer.
                tools: What the model may call: OpenAI's dicts, pydantic models of the arguments, or functions whose
                    arguments have annotations. ``None``: no tools.
                chat_template: Jinja source of a template to use instead of the model's own, the name of a template that
                    llama.cpp knows, such as "llama3", or the path of a file. ``None``: the model's own template.
                chat_template_kwargs: Variables of the chat template by name; the values are JSON.
                enable_thinking: Whether the model reasons before it answers, where its template has a switch for it.
                    ``None``: as ``chat_template_kwargs`` says, else it reasons.
                reasoning_effort: How hard the model reasons, where its template has a variable for it: "minimal",
                    "low", "medium", "high" or "xhigh"; "none" turns reasoning off. ``None``: as the template says.
                continue_final_message: Whether the answer continues the last message, the assistant's, instead of
                    following it. ``None``: it does so if there is such a message, and what it says can be the beginning
                    of the answer.
                tool_choice: Whether the model calls tools: "none", "auto", "required" or "any", the name of a tool, or
                    OpenAI's dict. It changes what the model may write, not the prompt. ``None``: "auto" where there are
                    tools.
                parallel_tool_calls: Whether one answer may call several tools.
                reasoning_budget: Most tokens that the model may reason with; then the end of its reasoning is forced,
                    and it answers. -1 for any number; 0 turns reasoning off. ``None``: any number.

        Returns:
            The answer; with ``stream``, its deltas.

        Raises:
            ChatTemplateError: The model has no template, or it refuses the messages.
            MessageError: The messages are not a valid chat.
            ToolError: A tool is not defined as one, or ``tool_choice`` is not valid.
            SchemaError: A schema cannot be converted to a grammar.
            GrammarError: ``grammar`` is not valid GBNF, or following it takes too much work.
            OutputError: The arguments of a tool with ``strict`` are not valid.
            CyllamaError: Everything else that :meth:`__call__` raises.
        """
        from .chat_submission import ChatTurn  # here, since completions do without

        return ChatTurn(messages, config, options, session).answer(self._runtime, stream=stream)

    async def achat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatResponse:
        """Answer a chat without blocking the event loop.

        Arguments, results and errors are those of :meth:`chat`.

        >>> asyncio.run(llm.achat([{"role": "user", "content": "What is the capital of France?"}])).text
        'The capital of France is Paris.'
        """
        from .chat_submission import ChatTurn

        return await ChatTurn(messages, config, options, session).aanswer(self._runtime)

    def astream_chat(
        self,
        messages: MessagesLike,
        config: ConfigLike = None,
        *,
        session: str | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream:
        """Answer a chat, and return the deltas for the running event loop.

        Arguments and errors are those of :meth:`chat`.

        >>> async def answer():
        ...     deltas = llm.astream_chat([{"role": "user", "content": "What is the capital of France?"}])
        ...     return "".join([delta.content async for delta in deltas])
        >>> asyncio.run(answer())
        'The capital of France is Paris.'
        """
        from .chat_submission import ChatTurn

        return ChatTurn(messages, config, options, session).astream(self._runtime)

    # -------------------- LoRA adapters

    def load_lora(self, name: str, path: PathLike) -> None:
        """Load a LoRA adapter, for generations that ask for it.

        A generation is computed with the adapters in its config's ``lora`` and no others. Those with the same ones are
        decoded together, others alternate with them. The KV cache of a session is valid for the same adapters only:
        with others, the conversation is evaluated again.

        >>> llm.load_lora("pirate", "pirate.gguf")
        >>> response = llm("Good morning!", lora={"pirate": 1.0}, max_tokens=16)
        >>> llm.loras
        ['pirate']

        Args:
            name: The name that ``lora`` refers to it by.
            path: A GGUF file made for this model, by llama.cpp's ``convert_lora_to_gguf.py``.

        Raises:
            AdapterNotFoundError: There is no such file.
            AdapterAccessError: It is a directory, or it may not be read.
            AdapterLoadError: It is not an adapter, or damaged, or was made for another model.
            ConfigError: There is an adapter of that name.
            ConfigTypeError: The name is not a str or empty, or the path is not a path.
            UnsupportedModelError: The model cannot generate text.
            ForkedError: The process was forked after the model was loaded.
        """
        self._runtime.load_adapter(name, path)

    def unload_lora(self, name: str) -> None:
        """Free a LoRA adapter. Generations that were asked for with it use it to their end.

        >>> llm.load_lora("pirate", "pirate.gguf")
        >>> llm.unload_lora("pirate")
        >>> llm.loras
        []

        Args:
            name: The name that it was loaded by.

        Raises:
            ConfigError: There is no adapter of that name.
            ForkedError: The process was forked after the model was loaded.
        """
        self._runtime.unload_adapter(name)

    @property
    def loras(self) -> list[str]:
        """Names of the LoRA adapters that are loaded, in the order of loading.

        >>> llm.loras
        []
        """
        return self._runtime.adapter_names

    # -------------------- text and tokens

    def tokenize(self, text: str, *, add_bos: bool | None = None, parse_special: bool | None = None) -> list[int]:
        """Return the token ids of ``text``, the same as a prompt of it would have.

        >>> llm.detokenize(llm.tokenize("Hello")) == "Hello"
        True

        Args:
            text: Any text.
            add_bos: Whether it starts with the beginning-of-sequence token; by default as configured.
            parse_special: Whether the text of control tokens means the token; by default as configured.

        Returns:
            Token ids, each from 0 to the size of the vocabulary.

        Raises:
            PromptError: The text has lone surrogates.
            PromptTypeError: It is not a str.
            ConfigError: ``add_bos`` is set, but the model has no such token.
        """
        config = self.config
        return self._runtime.tokenizer.tokenize(
            text,
            add_bos=config.add_bos if add_bos is None else add_bos,
            parse_special=config.parse_special if parse_special is None else parse_special,
        )

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without a beginning- or end-of-sequence token that the model adds by itself.

        >>> llm.detokenize(llm.tokenize("Hello") + llm.tokenize(" world"))
        'Hello world'

        Args:
            ids: Token ids. Bytes that are not valid UTF-8 become U+FFFD.

        Returns:
            The text; that of control tokens included.

        Raises:
            PromptError: An id is out of the vocabulary's range.
            PromptTypeError: ``ids`` is not a sequence of int.
        """
        return self._runtime.tokenizer.detokenize(ids)

    def count_tokens(self, text: str | MessagesLike, **options: Unpack[RenderOptions]) -> int:
        """Return how many tokens a prompt has: of a text, or of a chat with these messages.

        >>> llm.count_tokens("Hello") == len(llm.tokenize("Hello"))
        True
        >>> llm.count_tokens([{"role": "user", "content": "Hello"}]) > llm.count_tokens("Hello")
        True

        Args:
            text: The prompt, or messages: dicts in OpenAI's format, or :class:`Message`.
            **options: For messages, those of :meth:`render`.

        Returns:
            The number of tokens.

        Raises:
            ConfigError: The prompt is a text, and one of the options of a chat is given.
            CyllamaError: What :meth:`tokenize` or :meth:`render` raises.
        """
        if isinstance(text, str):
            if given := [name for name, value in options.items() if value is not None]:
                raise ConfigError(f"{', '.join(given)}: options of a chat need messages instead of a text")
            return len(self.tokenize(text))
        prompt = calls.rendered(self._runtime, text, options)
        return len(self._runtime.tokenizer.tokenize(prompt, add_bos=self.config.add_bos))

    def render(self, messages: MessagesLike, **options: Unpack[RenderOptions]) -> str:
        """Return the prompt of a chat as text, which ends where the answer begins.

        As a prompt, such a text means a control token wherever it spells one, also in what a message says.
        :meth:`chat` tells them apart: use it for messages that you did not write yourself.

        >>> prompt = llm.render([{"role": "user", "content": "What is the capital of France?"}])
        >>> llm(prompt)
        'The capital of France is Paris.'

        Args:
            messages: Dicts in OpenAI's format, or :class:`Message`.
            **options: As for :meth:`chat`: ``tools``, ``chat_template``, ``chat_template_kwargs``, ``enable_thinking``,
                ``reasoning_effort`` and ``continue_final_message``.

        Returns:
            The prompt.

        Raises:
            ChatTemplateError: There is no template, or it cannot be compiled, or it refuses the messages.
            ConfigTypeError: There is no such option.
            MessageError: The messages are not a valid chat.
            ToolError: A tool is not defined as one.
            PromptError: A text has lone surrogates.
            ForkedError: The process was forked after the model was loaded.
        """
        return str(calls.rendered(self._runtime, messages, options))

    # -------------------- sessions

    def session(self, name: str | None = None) -> Session[Self]:
        """Return the conversation of that name, a new one if there is none.

        >>> llm.session("ada").name
        'ada'

        Args:
            name: Any text; by default a name that is free.

        Returns:
            A handle. While it exists, the conversation is not forgotten to make room for others.

        Raises:
            SessionError: There are ``max_sessions`` conversations, and all are in use.
            PromptTypeError: The name is not a str.
        """
        with self._runtime.lock:
            return Session(self, self._runtime, self._runtime.conversations.new_name() if name is None else name)

    @property
    def sessions(self) -> list[str]:
        """Names of the conversations that are remembered, oldest first.

        >>> ada, bob = llm.session("ada"), llm.session("bob")
        >>> llm.sessions
        ['ada', 'bob']
        """
        return self._runtime.session_names

    def load_session(self, path: PathLike, name: str | None = None) -> Session[Self]:
        """Return a conversation that :meth:`Session.save` wrote to a file.

        Its KV cache is used if it fits the options of this ``LLM``, and evaluated again if not. As with pickles, load
        only files that you trust: llama.cpp does not check all of a state, and a forged one can do harm.

        >>> ada = llm.session("ada")
        >>> _ = ada("My name is Ada.", max_tokens=8)
        >>> ada.save("ada.session")
        >>> llm.load_session("ada.session", "copy of ada").tokens == ada.tokens
        True

        Args:
            path: The file.
            name: The conversation's name; by default the one that it had.

        Returns:
            A handle, as of :meth:`session`.

        Raises:
            SessionFileError: The file is damaged, or of another model or version.
            SessionError: There is a session of that name, or there are too many.
            PromptTypeError: The name is not a str.
            ForkedError: The process was forked after the model was loaded.
            OSError: The file cannot be read.
        """
        saved = self._runtime.read_saved(path)
        with self._runtime.lock:
            return Session(self, self._runtime, self._runtime.restore(saved, name))

    # -------------------- context

    def reset_context(self, session: str | None = None) -> None:
        """Drop the contexts and every session; the next generation creates a new context.

        Generations in flight end as "cancelled", and embeddings with :class:`EmbeddingCancelledError`.

        >>> ada = llm.session("ada")
        >>> llm.reset_context()
        >>> llm.sessions, llm.stats.n_ctx
        ([], 0)

        Args:
            session: Forget only the conversation of this name, if there is one.
        """
        self._runtime.forget(session)
        if session is None:
            self._runtime.stop()

    def close(self) -> None:
        """Release the contexts, for generations and for embeddings, and all that belongs to them, at once.

        Generations in flight end as "cancelled", and embeddings with :class:`EmbeddingCancelledError`. The model stays
        loaded, and the instance usable: a new context is created on demand. Sessions keep their token ids, and are
        evaluated again when they are used. Closing twice has no further effect.

        >>> _ = llm("Once upon a time", max_tokens=1)
        >>> llm.close()
        >>> llm.stats.n_ctx
        0
        """
        self._runtime.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    # -------------------- properties

    @property
    def stats(self) -> Stats:
        """What has been done so far, and what is going on; a snapshot.

        >>> before = llm.stats
        >>> _ = llm("Once upon a time", max_tokens=8)
        >>> llm.stats.tokens_generated - before.tokens_generated
        8
        """
        return self._runtime.stats

    @property
    def config(self) -> GenerationConfig:
        """Defaults for every generation.

        They are what ``LLM(...)`` was given, else what the model's file recommends (:attr:`recommended_sampling`), else
        those of :class:`GenerationConfig`.

        >>> llm.config.temperature
        0.0
        """
        return self._runtime.defaults.config

    @property
    def recommended_sampling(self) -> dict[str, Any]:
        """The options that the model's file recommends, ``general.sampling.*``: defaults under those of ``LLM(...)``.

        >>> llm.recommended_sampling
        {}
        """
        return self._runtime.defaults.recommended

    @property
    def model_config(self) -> ModelConfig:
        """How the model was loaded.

        >>> llm.model_config.n_parallel
        4
        """
        return self._runtime.config

    @property
    def model_path(self) -> str:
        """The absolute path of the model's file.

        >>> Path(llm.model_path).name
        'tiny-chat.gguf'
        """
        return os.fspath(self._runtime.path)

    @property
    def model_name(self) -> str:
        """The model's name: ``general.name`` of its file, else the name of the file.

        >>> llm.model_name == llm("Hello", max_tokens=1).model
        True
        """
        return self._runtime.name

    @property
    def model(self) -> LlamaModel:
        """The loaded model, for what only the binding offers.

        >>> llm.model.vocab.n_tokens > 0
        True
        """
        return self._runtime.model

    @property
    def n_ctx_train(self) -> int:
        """Context length of the model's training, in tokens: as large as a context gets without an ``n_ctx``.

        >>> llm.n_ctx_train > 0
        True
        """
        return self._runtime.model.n_ctx_train

    def __repr__(self) -> str:
        return f"LLM({self.model_path!r}, n_ctx={self._runtime.n_ctx})"

    def __reduce__(self) -> Any:
        raise TypeError("an LLM cannot be pickled or copied: it owns a loaded model. Pass its path and load it there")
