"""Completions: texts that a model continues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list

from cyllama import LLM, AsyncStream, Response, Stream, TextChunk, TokenLogprob, Usage

from ._base import CyllamaBase
from ._serialization import register
from ._unused import UNUSED_IN_COMPLETIONS, Unused, warn_unused
from .sessions import SessionKey, conversations_of, find_session, fingerprint


class CyllamaLLM(CyllamaBase, BaseLLM):
    r"""A GGUF model in this process that continues texts.

    The prompt is given to the model as it is. For a model that was trained to chat, use `ChatCyllama`.

    Setup:
        ```bash
        pip install 'cyllama[langchain]'
        ```

    Key init args — generation params:
        temperature: float | None
            0 always takes the most likely token.
        max_tokens: int | None
            Most tokens to generate.
        stop: list[str] | None
            Generation ends before the first of these.
        seed: int | None
            Makes a generation reproducible.
        grammar: str | None
            GBNF that the text has to fit.

    Key init args — model params:
        model_path: str | None
            A GGUF file; `None` for tiny-chat, the embedded model.
        n_ctx: int | None
            Size of the context in tokens; by need, if it is not given.
        n_gpu_layers: int | None
            Layers to keep on the GPU; -1 for all.
        llm: cyllama.LLM | None
            A loaded model to use instead.

    Every option of `cyllama.GenerationConfig` and `cyllama.ModelConfig` is an argument too, and so are those of
    `LlamaCpp` and `OllamaLLM`.

    Instantiate:
        ```python
        from langchain_cyllama import CyllamaLLM

        llm = CyllamaLLM(temperature=0, max_tokens=64)
        ```

    Invoke:
        ```python
        print(llm.invoke("Once upon a time"))
        ```

    Stream:
        ```python
        for chunk in llm.stream("Once upon a time"):
            print(chunk, end="")
        ```

    Async:
        ```python
        await llm.ainvoke("Once upon a time")
        ```

    Many prompts at once, decoded together:
        ```python
        llm.batch(["Once upon a time", "In a land far away"])
        ```

    A conversation, of which only what is new is evaluated:
        ```python
        config = {"configurable": {"session_id": "ada"}}
        text = "Ada: Hello!\nBob:"
        text += llm.invoke(text, config) + "\nAda: How are you?\nBob:"
        text += llm.invoke(text, config)
        llm.reset_session("ada")
        ```

    Give the memory back:
        ```python
        llm.close()
        ```

    Raises:
        cyllama.ModelNotFoundError: There is no such file.
        cyllama.ConfigError: An argument has a value out of its range.
        cyllama.ConfigTypeError: There is no such argument.
    """

    suffix: str | None = None
    """Appended to every text."""

    echo: bool | None = None
    """Whether a text begins with its prompt."""

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_COMPLETIONS

    @property
    def _llm_type(self) -> str:
        return "cyllama-llm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, **_given_to_this_call.get()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._merge(stop, {n: v for n, v in kwargs.items() if n not in (*_NOT_OPTIONS, *self._unused)})
        params = LangSmithParams(ls_provider="cyllama", ls_model_name=self.client.model_name, ls_model_type="llm")
        config = self.client.config
        params["ls_temperature"] = options.get("temperature", config.temperature)
        if (max_tokens := options.get("max_tokens", config.max_tokens)) is not None:
            params["ls_max_tokens"] = max_tokens
        if stops := options.get("stop_sequences", config.stop_sequences):
            params["ls_stop"] = [stops] if isinstance(stops, str) else list(stops)
        return params

    # -------------------- where the config is known

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Continue a text. See `CyllamaLLM` for which session it belongs to."""
        return super().invoke(input, config, stop=stop, **self._with_keys(kwargs, [input], [config]))

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Continue a text without blocking the event loop; no thread waits meanwhile."""
        return await super().ainvoke(input, config, stop=stop, **self._with_keys(kwargs, [input], [config]))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[str]:
        """Continue a text, piece by piece."""
        kwargs = self._with_keys(kwargs, [input], [config])
        try:
            yield from super().stream(input, config, stop=stop, **kwargs)
        finally:  # closed early: whoever still refers to a frame of it keeps nothing running
            kwargs[_KEYS].cancel()

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str]:
        """Continue a text for an event loop, piece by piece."""
        kwargs = self._with_keys(kwargs, [input], [config])
        try:
            async for chunk in super().astream(input, config, stop=stop, **kwargs):
                yield chunk
        finally:  # and not waited for: an event loop that ends closes all generators at once
            kwargs[_KEYS].cancel()

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Continue many texts, which are decoded together."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        if return_exceptions:  # each text by itself, so that one that fails takes no other with it
            configs = [cast("RunnableConfig", {"max_concurrency": len(inputs), **each}) for each in configs]
            return Runnable.batch(self, inputs, configs, return_exceptions=True, **kwargs)
        results: list[str] = []
        for some, of_them in _in_parts(inputs, configs):
            results += super().batch(some, of_them, **self._with_keys(kwargs, some, of_them))
        return results

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Continue many texts, which are decoded together, without blocking the event loop."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        if return_exceptions:
            return await Runnable.abatch(self, inputs, configs, return_exceptions=True, **kwargs)
        results: list[str] = []
        for some, of_them in _in_parts(inputs, configs):
            results += await super().abatch(some, of_them, **self._with_keys(kwargs, some, of_them))
        return results

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Continue many texts, and return all that is known of them. See LangChain's `BaseLLM`."""
        with _caching_what_depends_on(kwargs):
            return super().generate(*args, **kwargs)

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Do what `generate` does without blocking the event loop."""
        with _caching_what_depends_on(kwargs):
            return await super().agenerate(*args, **kwargs)

    def _with_keys(
        self, kwargs: dict[str, Any], inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig | None]
    ) -> dict[str, Any]:
        """Return the arguments of a call with the conversation that each of its texts belongs to."""
        named = kwargs.get("session_id") or self.session_id
        keys = (
            (fingerprint(self._convert_input(each).to_string()), find_session(named, config))
            for each, config in zip(inputs, configs, strict=True)
        )
        return {**kwargs, _KEYS: _Keys(keys)}

    # -------------------- generating

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        call = self._prepare(prompts, stop, kwargs)
        with ExitStack() as stack:
            streams = [self._open(stack, call, prompt) for prompt in prompts]
            if run_manager is not None and self.streaming and len(prompts) == 1:
                for text in streams[0]:
                    run_manager.on_llm_new_token(str(text), chunk=_to_chunk(text))
            return _to_result([stream.read() for stream in streams], prompts, call)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        call = self._prepare(prompts, stop, kwargs)
        with ExitStack() as stack:
            streams = [await self._aopen(stack, call, prompt) for prompt in prompts]
            if run_manager is not None and self.streaming and len(prompts) == 1:
                async for text in streams[0]:
                    await run_manager.on_llm_new_token(str(text), chunk=_to_chunk(text))
            return _to_result([await stream.read() for stream in streams], prompts, call)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        call, n_reported = self._prepare([prompt], stop, kwargs), 0
        with ExitStack() as stack:
            stream = self._open(stack, call, prompt)
            if call.echo:
                yield GenerationChunk(text=prompt)
            for text in stream:
                chunk, n_reported = _to_chunk(text), n_reported + len(text.logprobs)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=call.suffix, generation_info=_info(stream.response, n_reported))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        call, n_reported = self._prepare([prompt], stop, kwargs), 0
        with ExitStack() as stack:
            stream = await self._aopen(stack, call, prompt)
            if call.echo:
                yield GenerationChunk(text=prompt)
            async for text in stream:
                chunk, n_reported = _to_chunk(text), n_reported + len(text.logprobs)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=call.suffix, generation_info=_info(stream.response, n_reported))

    # -------------------- internal

    def _prepare(self, prompts: list[str], stop: list[str] | None, kwargs: Mapping[str, Any]) -> _Call:
        """Return how a call generates."""
        options = self._call_options(stop, {n: v for n, v in kwargs.items() if n not in _NOT_OPTIONS})
        for name in ("model", "model_path"):
            if (other := options.pop(name, None)) is not None and str(other) != str(self._path()):
                warn_unused(f"{type(self).__name__}.invoke", name, other, "an object has one model; make another one")
        keys = kwargs.get(_KEYS)
        if not isinstance(keys, _Keys):  # generate() was called
            found = find_session(kwargs.get("session_id") or self.session_id)
            keys = _Keys((fingerprint(prompt), found) for prompt in prompts)
        return _Call(
            self.client,
            options,
            keys,
            exclusive=self.sessions == "exclusive",
            echo=bool(options.pop("echo", self.echo)),
            suffix=options.pop("suffix", self.suffix) or "",
        )

    def _open(self, stack: ExitStack, call: _Call, prompt: str) -> Stream:
        """Hand a text over to the model, and end what it generates on the way out."""
        key, conversations = call.keys.of(prompt), conversations_of(call.llm)
        with conversations.entry(call.llm, key, exclusive=call.exclusive):
            session = stack.enter_context(conversations.use(call.llm, key, _lines(prompt), 0))
            stream = stack.enter_context(call.llm(prompt, session=session, stream=True, **call.options))
        call.keys.running.append(stream)
        return stream

    async def _aopen(self, stack: ExitStack, call: _Call, prompt: str) -> AsyncStream:
        key, conversations = call.keys.of(prompt), conversations_of(call.llm)
        async with conversations.aentry(call.llm, key, exclusive=call.exclusive):
            session = stack.enter_context(conversations.use(call.llm, key, _lines(prompt), 0))
            stream = call.llm.astream(prompt, session=session, **call.options)
            stack.callback(stream.cancel)  # and not waited for: an event loop may be closing
        call.keys.running.append(stream)
        return stream


_KEYS = "cyllama_keys"  # the argument that sessions travel in, from where the configs are known
_NOT_OPTIONS = (_KEYS, "session_id")
_GENERATE = ("prompts", "stop", "callbacks", "tags", "metadata", "run_name", "run_id")

_given_to_this_call: ContextVar[Mapping[str, Any]] = ContextVar("_given_to_this_call", default=MappingProxyType({}))


@contextmanager
def _caching_what_depends_on(kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Let the options of a call be a part of what LangChain looks up in its cache: it does not by itself."""
    options = {name: value for name, value in kwargs.items() if name not in (*_GENERATE, *_NOT_OPTIONS)}
    token = _given_to_this_call.set(options)
    try:
        yield
    finally:
        _given_to_this_call.reset(token)


class _Keys(list[tuple[int, SessionKey | None]]):
    """What stands for the texts of a call, in their order, and the conversations that they belong to.

    Attributes:
        running: What is generated for them.
    """

    def __init__(self, keys: Iterable[tuple[int, SessionKey | None]]) -> None:
        super().__init__(keys)
        self.running: list[Stream | AsyncStream] = []
        self._left = iter(self)

    def of(self, prompt: str) -> SessionKey | None:
        """Return the conversation of the next text. What comes before it was answered from a cache."""
        return next((key for standing, key in self._left if standing == fingerprint(prompt)), None)

    def cancel(self) -> None:
        """End what has not ended."""
        for stream in self.running:
            stream.cancel()


@dataclass
class _Call:
    """How a call generates.

    Attributes:
        llm: The model.
        options: What it is asked for, by cyllama's names.
        keys: The conversations that its texts belong to.
        exclusive: Whether the model keeps one conversation only.
        echo: Whether a text begins with its prompt.
        suffix: What it ends with.
    """

    llm: LLM
    options: dict[str, Any]
    keys: _Keys
    exclusive: bool
    echo: bool
    suffix: str

    def around(self, text: str, prompt: str) -> str:
        """Return a text with what belongs around it."""
        return f"{prompt if self.echo else ''}{text}{self.suffix}"


def _in_parts(
    inputs: list[LanguageModelInput], configs: list[RunnableConfig]
) -> Iterator[tuple[list[LanguageModelInput], list[RunnableConfig]]]:
    """Return as many of a batch at a time as may run together."""
    size = (configs[0].get("max_concurrency") if configs else None) or max(len(inputs), 1)
    configs = [{**config, "max_concurrency": None} for config in configs]
    for i in range(0, len(inputs), size):
        yield inputs[i : i + size], configs[i : i + size]


def _lines(prompt: str) -> list[int]:
    """Return what stands for the lines of a prompt that are complete: the last one may go on with the answer."""
    return [fingerprint(line) for line in prompt.splitlines(keepends=True)[:-1]]


def _to_result(responses: list[Response], prompts: list[str], call: _Call) -> LLMResult:
    generations = [
        [Generation(text=call.around(response.text, prompt), generation_info=_info(response))]
        for response, prompt in zip(responses, prompts, strict=True)
    ]
    usages = [response.usage for response in responses]
    total = Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
    model = responses[0].model if responses else None
    return LLMResult(generations=generations, llm_output={"token_usage": _usage(total), "model_name": model})


def _to_chunk(text: TextChunk) -> GenerationChunk:
    return GenerationChunk(text=str(text), generation_info=_logprobs(text.logprobs))


def _info(response: Response, n_reported: int = 0) -> dict[str, Any]:
    """Return what is known of a text when it has ended.

    Args:
        response: The text.
        n_reported: Tokens whose log probabilities were told already.
    """
    timings = response.timings
    return {
        "finish_reason": response.finish_reason,
        "model_name": response.model,
        "token_usage": _usage(response.usage),
        "timings": {"queued": timings.queued, "prompt": timings.prompt, "generation": timings.generation},
        **(_logprobs((response.logprobs or ())[n_reported:]) or {}),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """Return log probabilities as OpenAI's completions have them: lists, which add up over chunks."""
    if not tokens:
        return None
    return {
        "logprobs": {
            "tokens": [token.token for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{top.token: top.logprob for top in token.top} for token in tokens],
        }
    }


register(CyllamaLLM)
