"""Requests and results of completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from cyllama import LLM, AsyncStream, Response, SessionLease, Stream, TextChunk, TokenLogprob, Usage

from ._calls import NOT_OPTIONS, Call, ahand_over, hand_over
from .sessions import SessionKey, lease_session

_GENERATE = ("prompts", "stop", "callbacks", "tags", "metadata", "run_name", "run_id")  # arguments of generate()

_options_of_call: ContextVar[Mapping[str, Any]] = ContextVar("_options_of_call", default=MappingProxyType({}))


class TextCalls(list[SessionKey | None]):
    """The calls of several prompts, in their order.

    It is a list of their conversations, because LangChain's traces write all arguments as JSON.

    Args:
        prompts: The prompts, each with its conversation.
    """

    def __init__(self, prompts: Iterable[tuple[str, SessionKey | None]]) -> None:
        self._calls = [(prompt, Call(key)) for prompt, key in prompts]
        self._left = iter(list(self._calls))
        super().__init__(call.key for _, call in self._calls)

    def next_of(self, prompt: str) -> Call:
        """Return the next call of a prompt. LangChain's cache has answered the calls before it."""
        found = next((call for text, call in self._left if text == prompt), None)
        if found is None:
            found = Call(None)
            self._calls.append((prompt, found))
        return found

    def cancel(self) -> None:
        """End all generations, also those that have not begun yet."""
        for _, call in self._calls:
            call.cancel()


@dataclass
class TextRequest:
    """A request to continue prompts.

    Attributes:
        llm: The model.
        options: The options, as `LLM` takes them.
        calls: The calls of the prompts.
        exclusive: Whether the model holds one conversation at a time.
        echo: Whether a text begins with its prompt.
        suffix: The text after each generated text.
    """

    llm: LLM
    options: dict[str, Any]
    calls: TextCalls
    exclusive: bool
    echo: bool
    suffix: str

    def open(self, stack: ExitStack, prompt: str) -> Stream:
        """Hand a prompt over to the model. Closing the stack ends the generation."""

        def start(session: str | None) -> Stream:
            return self.llm(prompt, session=session, stream=True, **self.options)

        call = self.calls.next_of(prompt)
        return hand_over(stack, self._lease(call, prompt), call, start)

    async def aopen(self, stack: ExitStack, prompt: str) -> AsyncStream:
        """Do what `open` does without blocking the event loop."""

        def start(session: str | None) -> AsyncStream:
            return self.llm.astream(prompt, session=session, **self.options)

        call = self.calls.next_of(prompt)
        return await ahand_over(stack, self._lease(call, prompt), call, start)

    def around(self, text: str, prompt: str) -> str:
        """Return a generated text with its prompt (if `echo` is set) and its suffix."""
        return f"{prompt if self.echo else ''}{text}{self.suffix}"

    def _lease(self, call: Call, prompt: str) -> SessionLease:
        return lease_session(self.llm, call.key, prompt, self.options, exclusive=self.exclusive)


@contextmanager
def options_in_cache_keys(kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Make the options of a call a part of the key in LangChain's cache, which LangChain itself does not."""
    options = {name: value for name, value in kwargs.items() if name not in (*_GENERATE, *NOT_OPTIONS)}
    token = _options_of_call.set(options)
    try:
        yield
    finally:
        _options_of_call.reset(token)


def options_of_call() -> Mapping[str, Any]:
    """Return the options of the call in progress, for LangChain's cache."""
    return _options_of_call.get()


def in_parts(
    inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig]
) -> Iterator[tuple[list[LanguageModelInput], list[RunnableConfig]]]:
    """Yield the parts of a batch, of at most `max_concurrency` inputs each, with their configs."""
    size = (configs[0].get("max_concurrency") if configs else None) or max(len(inputs), 1)
    for i in range(0, len(inputs), size):
        parallel: list[RunnableConfig] = [{**config, "max_concurrency": None} for config in configs[i : i + size]]
        yield list(inputs[i : i + size]), parallel


# ------------------------------------------------------------------------------------------------- LangChain's results


def to_result(responses: Sequence[Response], prompts: Sequence[str], request: TextRequest) -> LLMResult:
    """Return responses as the result of `generate`."""
    generations = [
        [Generation(text=request.around(response.text, prompt), generation_info=details(response))]
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


def to_chunk(text: TextChunk) -> GenerationChunk:
    """Return one chunk of a text."""
    return GenerationChunk(text=str(text), generation_info=_logprobs(text.logprobs))


def details(response: Response, n_reported: int = 0) -> dict[str, Any]:
    """Return finish reason, token usage and timings of a text.

    Args:
        response: The text.
        n_reported: Number of tokens whose log probabilities were reported in earlier chunks.
    """
    timings = response.timings
    return {
        "finish_reason": response.finish_reason,
        "model_name": response.model,
        "token_usage": _usage(response.usage),
        "timings": asdict(timings),
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
