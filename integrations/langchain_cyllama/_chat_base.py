"""Options of chat models, and requests from calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from pydantic import PrivateAttr
from typing_extensions import override

from cyllama import LLM, ConfigError, ModelConfig
from cyllama.attempts import check_attempts

from ._answering import ChatRequest
from ._base import N_PARALLEL
from ._batches import BatchMethods
from ._calls import CALL, NOT_OPTIONS, Call
from ._fields import ChatFields
from ._generating import CyllamaBase
from ._shared import SharedLLM, share
from .messages import to_cyllama
from .sessions import find_session

_LANGCHAIN_ONLY = (
    "ls_structured_output_format",
    "structured_output_format",
    "stream",
    "stream_usage",
    "strict",
)


class ChatBase(BatchMethods, CyllamaBase, ChatFields):
    """The options of a chat model, and its requests.

    A subclass also derives from LangChain's class: `class ChatCyllama(ChatBase, BaseChatModel)`.
    """

    reasoning: bool | str | dict[str, Any] | None = None
    """Another name for `enable_thinking` with a `bool`, and for `reasoning_effort` with a level."""

    _others: dict[str, SharedLLM] = PrivateAttr(default_factory=dict)

    # -------------------- models that calls name

    @override
    def _loaded(self) -> list[LLM]:
        return [*super()._loaded(), *(shared.load() for shared in self._others.values())]

    def _client_of(self, model: Any) -> LLM:
        """Return the model of this object, or the model that a call names."""
        if model is None or str(model) == str(self._path()):
            return self.client
        if self.llm is not None:
            raise ConfigError(f"model is {model!r:.80}, but this object was given an llm: use another object for it")
        shared = self._others.get(str(model))
        if shared is None:
            options = {"n_parallel": N_PARALLEL, **self._loading()}
            shared = self._others.setdefault(str(model), share(str(model), ModelConfig(**options)))
        return shared.load()

    @override
    def close(self) -> None:
        super().close()
        self._others = {}  # not clear(): a copy of this object may use the same dict

    @override
    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_others": {}}}

    # -------------------- requests

    def _call(self, kwargs: Mapping[str, Any], config: RunnableConfig | None) -> Call:
        """Return the `Call` that `_with_calls` has put into the arguments, or a new one."""
        call = kwargs.get(CALL)
        if isinstance(call, Call):
            return call
        named = kwargs.get("model")
        key = find_session(kwargs.get("session_id") or self.session_id, config)
        return Call(key, None if named is None else str(named))

    @override
    def _with_calls(
        self,
        kwargs: Mapping[str, Any],
        inputs: Sequence[LanguageModelInput],
        configs: Sequence[RunnableConfig | None],
    ) -> dict[str, Any]:
        [config] = configs
        return {**kwargs, CALL: self._call(kwargs, config)}

    def _request(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> ChatRequest:
        """Return the request of a call.

        Raises:
            MessageError: A message cannot be a part of a chat.
            ConfigError: An option has a value out of its range, or contradicts another one.
        """
        options = self._call_options(stop, without(kwargs, *NOT_OPTIONS, *_LANGCHAIN_ONLY))
        max_attempts = check_attempts(options.pop("max_attempts", 1))
        llm = self._client_of(options.pop("model", None) or options.pop("model_path", None))
        if options.get("response_format") is not None:
            options.setdefault("continue_final_message", False)  # agents append the request for it to the last answer
        return ChatRequest(
            llm,
            to_cyllama(messages, images=reads_images(llm)),
            options,
            self._call(kwargs, None),
            len(messages),
            exclusive=self.sessions == "exclusive",
            max_attempts=max_attempts,
        )

    def _options_of_trace(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a call for traces. Unlike `_call_options`, it does not warn."""
        return self._merge(stop, without(kwargs, *NOT_OPTIONS, *_LANGCHAIN_ONLY, *self._unused))


def reads_images(llm: LLM) -> bool:
    """Whether a model has a projector, and so reads images."""
    return llm.model_config.projector is not None


def without(kwargs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return arguments without those of the names."""
    return {name: value for name, value in kwargs.items() if name not in names}
