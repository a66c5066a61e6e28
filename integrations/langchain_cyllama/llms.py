"""Completions: texts that a model continues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM, LangSmithParams
from langchain_core.outputs import Generation, GenerationChunk, LLMResult

from cyllama import AsyncStream, Response, Stream, TextChunk, TokenLogprob, Usage

from ._base import CyllamaBase
from ._unused import UNUSED_IN_COMPLETIONS, Unused


class CyllamaLLM(CyllamaBase, BaseLLM):
    """A GGUF model in this process that continues texts.

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

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        self._tracing_params(params, stop, kwargs)
        return params

    # -------------------- whole texts

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        frame, options = self._frame(stop, kwargs)
        report = run_manager if self.streaming and len(prompts) == 1 else None
        streams: list[Stream] = []
        try:
            for prompt in prompts:
                streams.append(self.client(prompt, stream=True, **options))
            if report is not None:
                for chunk in streams[0]:
                    report.on_llm_new_token(chunk, chunk=GenerationChunk(text=chunk))
            return _to_result([stream.read() for stream in streams], prompts, frame)
        except BaseException:  # Ctrl-C, or the failure of one: its traceback would keep the others going
            _cancel(streams)
            raise

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        frame, options = self._frame(stop, kwargs)
        report = run_manager if self.streaming and len(prompts) == 1 else None
        streams: list[AsyncStream] = []
        try:
            for prompt in prompts:
                streams.append(self.client.astream(prompt, **options))
            if report is not None:
                async for chunk in streams[0]:
                    await report.on_llm_new_token(chunk, chunk=GenerationChunk(text=chunk))
            return _to_result([await stream.read() for stream in streams], prompts, frame)
        except BaseException:  # the task was cancelled, or one of them failed
            _cancel(streams)
            raise

    # -------------------- streams

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        frame, options = self._frame(stop, kwargs)
        with self.client(prompt, stream=True, **options) as stream:
            n_reported = 0
            if frame.echo:
                yield GenerationChunk(text=prompt)
            for text in stream:
                chunk, n_reported = _to_chunk(text), n_reported + len(text.logprobs)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=frame.suffix, generation_info=_info(stream.response, n_reported))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        frame, options = self._frame(stop, kwargs)
        async with self.client.astream(prompt, **options) as stream:
            n_reported = 0
            if frame.echo:
                yield GenerationChunk(text=prompt)
            async for text in stream:
                chunk = _to_chunk(text)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            yield GenerationChunk(text=frame.suffix, generation_info=_info(stream.response, n_reported))

    # -------------------- internal

    def _frame(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> tuple[_Frame, dict[str, Any]]:
        """Return what is put around the text of one call, and cyllama's options of it."""
        options = self._call_options(stop, kwargs)
        frame = _Frame(bool(options.pop("echo", self.echo)), options.pop("suffix", self.suffix) or "")
        return frame, options


class _Frame(NamedTuple):
    """What is put around a text.

    Attributes:
        echo: Whether it begins with its prompt.
        suffix: What it ends with.
    """

    echo: bool
    suffix: str

    def around(self, text: str, prompt: str) -> str:
        return f"{prompt if self.echo else ''}{text}{self.suffix}"


def _cancel(streams: Sequence[Stream | AsyncStream]) -> None:
    for stream in streams:
        stream.cancel()


def _to_result(responses: list[Response], prompts: list[str], frame: _Frame) -> LLMResult:
    generations = [
        [Generation(text=frame.around(response.text, prompt), generation_info=_info(response))]
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
