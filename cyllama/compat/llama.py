"""`Llama` of llama-cpp-python over :class:`LLM`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NoReturn, TypeVar, overload

from typing_extensions import Self, Unpack

from ..chat import ChatResponse
from ..errors import CompatibilityError
from ..llm import LLM
from ..session_pool import SessionLease, SessionPool
from .answers import Writer
from .arguments import (
    ChatOptions,
    CompletionOptions,
    chat_options,
    check_arguments,
    check_pooling,
    generation_options,
    loading_options,
    refuse_several,
    seed_of,
    template_of,
)
from .chunks import ChunkStream
from .state import LlamaState
from .types import (
    CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse,
    CreateCompletionResponse,
    CreateCompletionStreamResponse,
    CreateEmbeddingResponse,
)

T = TypeVar("T")

_LORA = "lora"  # the name that the adapter of lora_path is loaded by
_COMPLETION: CompletionOptions = {"max_tokens": 16, "temperature": 0.8, "top_p": 0.95, "min_p": 0.05, "top_k": 40}
_CHAT: ChatOptions = {"max_tokens": None, "temperature": 0.2, "top_p": 0.95, "min_p": 0.05, "top_k": 40}

#: Members of llama-cpp-python's class that give access to one llama.cpp context, and what to use instead.
_INTERNALS = {
    "ctx": "llama.llm.model is the loaded model, and cyllama.llama.llama_cpp the binding",
    "eval": "a completion evaluates its prompt, as far as no earlier call did",
    "eval_logits": "logprobs=n of a completion reports probabilities",
    "eval_tokens": "a completion evaluates its prompt",
    "generate": "create_completion(stream=True) yields text, and llama.llm(..., stream=True) too",
    "input_ids": "llama.llm.session(name).tokens are the token ids of a conversation",
    "logits_to_logprobs": "logprobs=n of a completion reports probabilities",
    "model": "llama.llm.model is the loaded model",
    "sample": "the options of a completion choose how tokens are sampled",
    "scores": "logprobs=n of a completion reports probabilities",
    "tokenizer": "tokenize() and detokenize() are here, and on llama.llm for text",
}


class Llama:
    """A model for programs that were written for llama-cpp-python: its names, arguments and dicts, over :class:`LLM`.

    Any number of threads may use one object, and their generations are decoded together. Each call finds the earlier
    one whose history it goes on with, so that only what is new is evaluated.

    >>> from cyllama.compat import Llama
    >>> llama = Llama(LLM().model_path)
    >>> answer = llama.create_chat_completion([{"role": "user", "content": "What is the capital of France?"}])
    >>> answer["choices"][0]["message"]["content"]
    'The capital of France is Paris.'
    >>> llama("Once upon a time", max_tokens=8)["choices"][0]["finish_reason"]
    'length'

    Args:
        model_path: A GGUF file, or a model on the hub, "owner/repo:Q4_K_M".
        n_gpu_layers: Layers to keep on the GPU; -1 for all, "auto" for as many as fit, which is the default.
        n_ctx: Most tokens of a prompt and its answer; 0 for what the model was trained for. A context is only as large
            as its generations need.
        seed: Seed of every call that has none of its own; -1 for a new one each time.
        n_threads: Threads that evaluate single tokens; by default the physical cores that the process may use.
        chat_format: The name of a chat template, its source, or its file; by default the model's own.
        lora_path: A LoRA adapter that every call is computed with.
        lora_scale: Its scale.
        verbose: Show llama.cpp's log on stderr.
        **options: More of llama-cpp-python's arguments, such as `n_batch`, `use_mmap`, `type_k` or `flash_attn`, and
            those of :class:`LLM`, such as `n_parallel`. `embedding`, `logits_all`, `numa` and `no_perf` have no effect,
            because nothing has to be chosen.

    Raises:
        CompatibilityError: An argument asks for what cyllama does not have; the message says what to use instead.
        CyllamaError: Everything that :class:`LLM` raises.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_gpu_layers: int | Literal["auto"] | None = None,
        n_ctx: int = 0,
        seed: int | None = None,
        n_threads: int | None = None,
        chat_format: str | None = None,
        lora_path: str | None = None,
        lora_scale: float = 1.0,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "options")} | options
        self._start(arguments, lambda **how: LLM(model_path, **how))

    def _start(self, arguments: dict[str, Any], load: Callable[..., LLM]) -> None:
        """Load the model, by a function that takes the options of an :class:`LLM`."""
        self._arguments = arguments
        of_llama = ("model_path", "chat_format", "lora_path", "lora_scale")
        how = loading_options({name: value for name, value in arguments.items() if name not in of_llama})
        how.pop("seed", None)  # set_seed() may change it
        adapter = arguments.get("lora_path")
        if adapter is not None:
            how["lora"] = {_LORA: arguments["lora_scale"]}
        llm = load(**how)
        if adapter is not None:
            llm.load_lora(_LORA, adapter)
        check_pooling(arguments.get("pooling_type"), llm)
        self._llm: LLM | None = llm
        self._pool = SessionPool(llm)
        self._last_session: str | None = None  # of the last call
        self._seed: int | None = seed_of(arguments.get("seed"))
        self._ends = frozenset(llm.model.vocab.eog_tokens())
        self.model_path = os.fspath(arguments["model_path"])
        self.metadata = llm.model.metadata
        self.verbose = bool(arguments.get("verbose"))
        self.chat_format = arguments.get("chat_format")
        self._template = template_of(self.chat_format)
        if self._template is not None:
            llm.render([{"role": "user", "content": ""}], chat_template=self._template)

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a model of the hub, downloaded if it is not in the cache.

        Args:
            repo_id: The repository, "owner/repo".
            filename: A file of it, or a pattern such as "*Q8_0.gguf"; the other files of a split model are found.
            cache_dir: Another folder for downloads than the one that all tools share.
            **kwargs: Everything else that `Llama(...)` takes.

        Raises:
            CompatibilityError: An argument cannot be followed, such as `local_dir`.
            CyllamaError: Everything that :meth:`LLM.from_pretrained` raises.
        """
        check_arguments(kwargs)
        name = f"hf:{repo_id}/{filename}" if filename else repo_id
        arguments = {"model_path": name, "lora_scale": 1.0, "n_ctx": 0, "verbose": False} | kwargs
        self = cls.__new__(cls)
        self._start(arguments, lambda **how: LLM.from_pretrained(repo_id, filename, cache_dir=cache_dir, **how))
        self.model_path = self.llm.model_path
        self._arguments["model_path"] = self.model_path  # so that a copy in another process finds the file
        return self

    @property
    def llm(self) -> LLM:
        """The model, with everything that only :class:`LLM` has.

        Raises:
            CompatibilityError: This object is closed.
        """
        if self._llm is None:
            raise CompatibilityError("this Llama is closed, and its model freed: make another one")
        return self._llm

    # -------------------- completions

    @overload
    def create_completion(
        self, prompt: str | Sequence[int], *, stream: Literal[False] = False, **options: Unpack[CompletionOptions]
    ) -> CreateCompletionResponse: ...

    @overload
    def create_completion(
        self, prompt: str | Sequence[int], *, stream: Literal[True], **options: Unpack[CompletionOptions]
    ) -> ChunkStream[CreateCompletionStreamResponse]: ...

    @overload
    def create_completion(
        self, prompt: str | Sequence[int], *, stream: bool, **options: Unpack[CompletionOptions]
    ) -> CreateCompletionResponse | ChunkStream[CreateCompletionStreamResponse]: ...

    def create_completion(
        self, prompt: str | Sequence[int], *, stream: bool = False, **options: Unpack[CompletionOptions]
    ) -> CreateCompletionResponse | ChunkStream[CreateCompletionStreamResponse]:
        """Continue a prompt.

        >>> from cyllama.compat import Llama
        >>> llama = Llama(LLM().model_path)
        >>> chunks = llama.create_completion("Once upon a time", max_tokens=8, temperature=0, stream=True)
        >>> text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
        >>> text == llama("Once upon a time", max_tokens=8, temperature=0)["choices"][0]["text"]
        True

        Args:
            prompt: Text, or token ids.
            stream: Return a stream of chunks instead of waiting for the whole text.
            **options: `max_tokens` (16; 0 or less, or `None`, for no limit but the context), `temperature` (0.8),
                `top_p`, `min_p`, `top_k`, `typical_p`, `repeat_penalty`, `frequency_penalty`, `presence_penalty`,
                `mirostat_mode`, `stop` (a str or a list), `seed`, `logprobs` (a number of alternatives), `echo`,
                `grammar` (a :class:`LlamaGrammar` or GBNF), `logit_bias`, `model` (the name in the answer), `n` (a
                number of texts, not with `stream`), and all options of a :class:`GenerationConfig`.

        Returns:
            A dict in OpenAI's format; with `stream`, such dicts. The last chunk has the usage.

        Raises:
            CompatibilityError: An argument cannot be followed, such as `logits_processor`.
            CyllamaError: Everything that :class:`LLM` raises for a call.
        """
        llm = self.llm
        given = generation_options({**_COMPLETION, "seed": self._seed, **options})
        echo, n, name = given.pop("echo", False), given.pop("n", 1), given.pop("model", self.model_path)
        text = prompt if isinstance(prompt, str) else llm.detokenize(prompt) if echo else ""
        if echo and "logprobs" in given:
            raise CompatibilityError("echo with logprobs cannot be used: those of a prompt are not computed")
        writer = Writer(name)
        how: dict[str, Any] = {"prompt": text, "n_prompt": 0 if echo else len(text), "echo": echo}
        lease = self._pool.lease(prompt) if isinstance(prompt, str) else self._pool.stateless()
        if stream:
            refuse_several(n)
            started = self._begin(lease, lambda session: llm(prompt, session=session, stream=True, **given))
            return ChunkStream(writer.completion_chunks(started[0], **how), *started)
        if n != 1:
            return writer.completion(llm(prompt, n=n, **given), **how)
        response = self._answer(lease, lambda session: llm(prompt, session=session, **given))
        return writer.completion([response], **how)

    __call__ = create_completion

    # -------------------- chats

    @overload
    def create_chat_completion(
        self, messages: Sequence[Any], *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> CreateChatCompletionResponse: ...

    @overload
    def create_chat_completion(
        self, messages: Sequence[Any], *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> ChunkStream[CreateChatCompletionStreamResponse]: ...

    @overload
    def create_chat_completion(
        self, messages: Sequence[Any], *, stream: bool, **options: Unpack[ChatOptions]
    ) -> CreateChatCompletionResponse | ChunkStream[CreateChatCompletionStreamResponse]: ...

    def create_chat_completion(
        self, messages: Sequence[Any], *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> CreateChatCompletionResponse | ChunkStream[CreateChatCompletionStreamResponse]:
        """Answer a chat.

        Args:
            messages: The whole history, OpenAI's dicts.
            stream: Return a stream of chunks instead of waiting for the whole answer.
            **options: `tools`, `tool_choice`, `response_format` ({"type": "json_object", "schema": ...}), `max_tokens`
                (by default no limit but the context), `temperature` (0.2), `logprobs` (a bool) and `top_logprobs`, `n`,
                and those of :meth:`create_completion`; the old `functions` and `function_call` too. All options of
                :meth:`LLM.chat` besides, such as `enable_thinking`.

        Returns:
            A dict in OpenAI's format; with `stream`, such dicts: the first one has the role, the last one the finish
            reason and the usage.

        Raises:
            CompatibilityError: An argument cannot be followed, such as `logits_processor`.
            CyllamaError: Everything that :meth:`LLM.chat` raises.
        """
        llm = self.llm
        given = chat_options({**_CHAT, "seed": self._seed, **options})
        n, name = given.pop("n", 1), given.pop("model", self.model_path)
        if self._template is not None:
            given.setdefault("chat_template", self._template)
        writer = Writer(name)
        lease = self._pool.lease(messages, options=given)
        if stream:
            refuse_several(n)
            started = self._begin(lease, lambda session: llm.chat(messages, session=session, stream=True, **given))
            chunks = writer.chat_chunks(started[0], self._ends, of_tools="tools" in given)
            return ChunkStream(chunks, *started)
        if n != 1:
            responses = self._chat_several(messages, n, given)
        else:
            responses = [self._answer(lease, lambda session: llm.chat(messages, session=session, **given))]
        return writer.chat(responses, self._ends)

    def create_chat_completion_openai_v1(self, messages: Sequence[Any], **options: Any) -> Any:
        """Return what :meth:`create_chat_completion` does, as the objects of the package `openai`, which it needs.

        Args:
            messages: The whole history.
            **options: As for :meth:`create_chat_completion`, `stream` included.

        Raises:
            ImportError: The package is not installed.
        """
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError("objects of OpenAI's API need its package: pip install openai") from error
        if options.get("stream"):
            chunks = self.create_chat_completion(messages, **options)
            return ChunkStream((ChatCompletionChunk(**chunk) for chunk in chunks), chunks, chunks.close)
        return ChatCompletion(**self.create_chat_completion(messages, **options))

    def _chat_several(self, messages: Sequence[Any], n: int, given: dict[str, Any]) -> list[ChatResponse]:
        """Return several answers, which are decoded together. With a seed, they use that and the following ones."""
        seed = given.pop("seed", None)
        streams = [
            self.llm.chat(messages, stream=True, **given, seed=None if seed is None else seed_of(seed + i))
            for i in range(n)
        ]
        return [stream.read() for stream in streams]

    def _answer(self, lease: SessionLease, start: Callable[[str | None], T]) -> T:
        """Return the answer of a call in its session."""
        with lease:
            self._last_session = lease.name
            return lease.hand_over(start)

    def _begin(self, lease: SessionLease, start: Callable[[str | None], T]) -> tuple[T, Callable[[], None]]:
        """Return the stream of a call, and what gives back its session."""
        with ExitStack() as stack:
            stream = stack.enter_context(lease).hand_over(start)
            self._last_session = lease.name
            return stream, stack.pop_all().close
        raise AssertionError("unreachable")

    # -------------------- embeddings

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> CreateEmbeddingResponse:
        """Return the embeddings of a text, or of several, as a dict in OpenAI's format.

        >>> from cyllama.compat import Llama
        >>> llama = Llama(LLM().model_path, embedding=True)
        >>> [len(item["embedding"]) == llama.n_embd() for item in llama.create_embedding(["A fox", "An owl"])["data"]]
        [True, True]

        Args:
            input: The text or texts.
            model: The name of the model in the answer.

        Raises:
            CyllamaError: Everything that :meth:`LLM.embed` raises.
        """
        vectors, n_tokens = self.embed([input] if isinstance(input, str) else input, return_count=True)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(vectors)],
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }

    def embed(
        self, input: str | Sequence[str], normalize: bool = False, truncate: bool = True, return_count: bool = False
    ) -> Any:
        """Return the embedding of a text, or a list of those of several.

        Args:
            input: The text or texts.
            normalize: Scale every vector to the length 1.
            truncate: Leave out the tokens of a text that are too many, instead of refusing it.
            return_count: Return a tuple of that, and of the number of tokens.

        Raises:
            CyllamaError: Everything that :meth:`LLM.embed` raises.
        """
        texts = [input] if isinstance(input, str) else list(input)
        vectors = self.llm.embed(texts, normalize=normalize, truncate=truncate)
        result = vectors[0] if isinstance(input, str) else vectors
        if not return_count:
            return result
        return result, sum(min(self.llm.count_tokens(text), self.n_ctx()) for text in texts)

    # -------------------- tokens

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Return the token ids of a text.

        >>> from cyllama.compat import Llama
        >>> llama = Llama(LLM().model_path)
        >>> llama.detokenize(llama.tokenize(b"Hello"))
        b'Hello'

        Args:
            text: The text in UTF-8.
            add_bos: Whether it begins with the beginning-of-sequence token, if the model's prompts do.
            special: Whether the text of control tokens means the token.

        Raises:
            UnicodeDecodeError: It is not UTF-8.
        """
        return self.llm.tokenize(text.decode(), add_bos=None if add_bos else False, parse_special=special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the text of token ids in UTF-8, which may begin or end within a character.

        Args:
            tokens: The token ids.
            prev_tokens: Token ids before them, on which a leading space may depend.
            special: Whether control tokens are written.
        """
        vocab = self.llm.model.vocab

        def text_of(ids: Sequence[int]) -> bytes:
            text = b"".join(vocab.token_to_piece(token, special=special) for token in ids)
            return text.removeprefix(b" ") if len(ids) > 1 and ids[0] == vocab.bos else text

        before = list(prev_tokens or ())
        return text_of([*before, *tokens])[len(text_of(before)) :]

    def token_bos(self) -> int:
        """Return the id of the beginning-of-sequence token; -1 if the vocabulary has no such token."""
        return self.llm.model.vocab.bos

    def token_eos(self) -> int:
        """Return the id of the end-of-sequence token; -1 if the vocabulary has no such token."""
        return self.llm.model.vocab.eos

    def token_nl(self) -> int:
        """Return the id of the token of a line break; -1 if the vocabulary has no such token."""
        return self.llm.model.vocab.nl

    def n_vocab(self) -> int:
        """Return the number of tokens of the vocabulary."""
        return self.llm.model.vocab.n_tokens

    def n_embd(self) -> int:
        """Return the number of values of an embedding."""
        return self.llm.model.n_embd

    def n_ctx(self) -> int:
        """Return the most tokens of a prompt and its answer: `n_ctx`, or what the model was trained for."""
        return self.llm.config.n_ctx or self.llm.n_ctx_train

    # -------------------- state

    def set_seed(self, seed: int) -> None:
        """Set the seed of all later calls that have none of their own; -1 for a new one each time."""
        self._seed = seed_of(seed)

    def set_cache(self, cache: object) -> None:
        """Do nothing: the calls of all threads share what was evaluated, and idle histories move to host memory."""

    def reset(self) -> None:
        """Do nothing: a generation starts from its own prompt, whatever ran before."""

    def save_state(self) -> LlamaState:
        """Return the tokens and the KV cache of the last call, for :meth:`load_state` in this process or another."""
        return LlamaState.of(self.llm, self._last_session, self._seed)

    def load_state(self, state: LlamaState) -> None:
        """Know the tokens of a state again: a prompt that begins with them evaluates only what follows."""
        state.restore(self.llm)
        self._seed = state.seed

    def close(self) -> None:
        """Free the model and all that belongs to it. Closing twice has no further effect."""
        llm, self._llm = self._llm, None
        if llm is not None:
            del self._pool
            llm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the arguments: a copy, or a process that unpickles it, loads the model again."""
        return self._arguments

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self._start(dict(arguments), lambda **how: LLM(arguments["model_path"], **how))

    def __getattr__(self, name: str) -> NoReturn:
        """Say what there is instead of a member that does not exist here."""
        if name in _INTERNALS:
            raise AttributeError(f"Llama.{name} does not exist in cyllama.compat: {_INTERNALS[name]}")
        raise AttributeError(f"Llama has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"Llama({self.model_path!r})"
