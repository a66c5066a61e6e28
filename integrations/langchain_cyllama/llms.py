"""Completions: a model continues texts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams, LanguageModelInput
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from typing_extensions import override

from ._calls import CALL, NOT_OPTIONS
from ._completions import (
    TextCalls,
    TextRequest,
    details,
    in_parts,
    options_in_cache_keys,
    options_of_call,
    to_chunk,
    to_result,
)
from ._generating import CyllamaBase
from ._serialization import register
from ._tracing import traced
from ._unused import UNUSED_IN_COMPLETIONS, Unused, warn_unused
from .sessions import find_session


class CyllamaLLM(CyllamaBase, BaseLLM):
    r"""A GGUF model in this process that continues texts.

    The prompt is not changed. For a model that was trained to chat, use `ChatCyllama`.

    Setup:
        ```bash
        pip install '.[langchain]'  # in a checkout of cyllama's repository
        ```

    Key init args — generation params:
        temperature: float | None
            0 always takes the most likely token.
        max_tokens: int | None
            Maximum number of tokens to generate.
        stop: list[str] | None
            Generation ends before the first of these.
        seed: int | None
            Makes a generation reproducible.
        grammar: str | None
            GBNF that the text has to fit.

    Key init args — model params:
        model_path: str | None
            A GGUF file, or a model on the hub: "owner/repo:Q4_K_M"; `None` for tiny-chat, the embedded model.
        n_ctx: int | None
            Size of the context in tokens; by default as large as the generations need.
        n_gpu_layers: int | str | None
            Layers to keep on GPUs; "auto", the default, for what fits, -1 for all.
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

    Several prompts, decoded together:
        ```python
        llm.batch(["Once upon a time", "In a land far away"])
        ```

    A conversation. Only the new part of the text is evaluated:
        ```python
        config = {"configurable": {"session_id": "ada"}}
        text = "Ada: Hello!\nBob:"
        text += llm.invoke(text, config) + "\nAda: How are you?\nBob:"
        text += llm.invoke(text, config)
        llm.reset_session("ada")
        ```

    Release the memory:
        ```python
        llm.close()
        ```

    Raises:
        cyllama.ModelNotFoundError: There is no such file, nor a model of that name.
        cyllama.ConfigError: An argument has a value out of its range.
        cyllama.ConfigTypeError: There is no such argument.
    """

    suffix: str | None = None
    """A text to append to every generated text."""

    echo: bool | None = None
    """Whether every generated text begins with its prompt."""

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_COMPLETIONS

    @property
    def _llm_type(self) -> str:
        return "cyllama-llm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, **options_of_call()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._merge(stop, {n: v for n, v in kwargs.items() if n not in (*NOT_OPTIONS, *self._unused)})
        name = self.client.model_name
        return traced(self.client.config, options, ls_provider="cyllama", ls_model_name=name, ls_model_type="llm")

    # -------------------- where the config is known

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Continue texts, which are decoded together: see `Runnable.batch`."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        if return_exceptions:  # each text in a call of its own, so that an error of one does not end the others
            configs = [cast("RunnableConfig", {"max_concurrency": len(inputs), **each}) for each in configs]
            return Runnable.batch(self, inputs, configs, return_exceptions=True, **kwargs)
        results: list[str] = []
        for some, of_them in in_parts(inputs, configs):
            results += super().batch(some, of_them, **self._with_calls(kwargs, some, of_them))
        return results

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Do what `batch` does without blocking the event loop."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        if return_exceptions:
            return await Runnable.abatch(self, inputs, configs, return_exceptions=True, **kwargs)
        results: list[str] = []
        for some, of_them in in_parts(inputs, configs):
            results += await super().abatch(some, of_them, **self._with_calls(kwargs, some, of_them))
        return results

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Continue texts, and return them with token usage and finish reasons: see `BaseLLM.generate`."""
        with options_in_cache_keys(kwargs):
            return super().generate(*args, **kwargs)

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Do what `generate` does without blocking the event loop."""
        with options_in_cache_keys(kwargs):
            return await super().agenerate(*args, **kwargs)

    @override
    def _with_calls(
        self,
        kwargs: Mapping[str, Any],
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig | None],
    ) -> dict[str, Any]:
        named = kwargs.get("session_id") or self.session_id
        prompts = (
            (self._convert_input(each).to_string(), find_session(named, config))
            for each, config in zip(inputs, configs, strict=True)
        )
        return {**kwargs, CALL: TextCalls(prompts)}

    # -------------------- generating

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        request = self._request(prompts, stop, kwargs)
        with ExitStack() as stack:
            streams = [request.open(stack, prompt) for prompt in prompts]
            if run_manager is not None and self.streaming and len(prompts) == 1:
                for text in streams[0]:
                    run_manager.on_llm_new_token(str(text), chunk=to_chunk(text))
            return to_result([stream.read() for stream in streams], prompts, request)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        request = self._request(prompts, stop, kwargs)
        with ExitStack() as stack:
            streams = [await request.aopen(stack, prompt) for prompt in prompts]
            if run_manager is not None and self.streaming and len(prompts) == 1:
                async for text in streams[0]:
                    await run_manager.on_llm_new_token(str(text), chunk=to_chunk(text))
            return to_result([await stream.read() for stream in streams], prompts, request)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        request, n_reported = self._request([prompt], stop, kwargs), 0
        with ExitStack() as stack:
            stream = request.open(stack, prompt)
            if request.echo:
                yield GenerationChunk(text=prompt)
            for text in stream:
                chunk, n_reported = to_chunk(text), n_reported + len(text.logprobs)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=request.suffix, generation_info=details(stream.response, n_reported))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        request, n_reported = self._request([prompt], stop, kwargs), 0
        with ExitStack() as stack:
            stream = await request.aopen(stack, prompt)
            if request.echo:
                yield GenerationChunk(text=prompt)
            async for text in stream:
                chunk, n_reported = to_chunk(text), n_reported + len(text.logprobs)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=request.suffix, generation_info=details(stream.response, n_reported))

    def _request(self, prompts: list[str], stop: list[str] | None, kwargs: Mapping[str, Any]) -> TextRequest:
        """Return the request of a call."""
        options = self._call_options(stop, {n: v for n, v in kwargs.items() if n not in NOT_OPTIONS})
        for name in ("model", "model_path"):
            if (other := options.pop(name, None)) is not None and str(other) != str(self._path()):
                warn_unused(f"{type(self).__name__}.invoke", name, other, "an object has one model; make another one")
        calls = kwargs.get(CALL)
        if not isinstance(calls, TextCalls):  # the caller called generate()
            found = find_session(kwargs.get("session_id") or self.session_id)
            calls = TextCalls((prompt, found) for prompt in prompts)
        echo, suffix = bool(options.pop("echo", self.echo)), options.pop("suffix", self.suffix) or ""
        return TextRequest(
            self.client, options, calls, exclusive=self.sessions == "exclusive", echo=echo, suffix=suffix
        )


register(CyllamaLLM)
