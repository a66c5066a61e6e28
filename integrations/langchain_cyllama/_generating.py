"""What chat models and completions have in common: options of generations, sessions, adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from pydantic import PrivateAttr

from cyllama import LLM, ConfigError, SessionPool
from cyllama.models import expand_user, path_exists

from ._arguments import LOADING, absolute_paths, override, read_grammar, translate
from ._base import CyllamaModel, FilePath
from ._calls import SessionMethods
from ._fields import GenerationFields
from ._unused import UNUSED_IN_CHATS, Unused, warn_unused, without_unused


class CyllamaBase(SessionMethods, GenerationFields, CyllamaModel):
    """A model that generates text, and the options that it does so with.

    A subclass also derives from a class of LangChain: `class CyllamaLLM(CyllamaBase, BaseLLM)`.
    """

    session_id: str | None = None
    """The conversation that all calls belong to. By default, the config of each call names it."""

    sessions: Literal["concurrent", "exclusive"] = "concurrent"
    """Whether all conversations keep their KV caches.

    "exclusive" keeps the KV cache of one conversation only, for machines with little memory: a call of another
    conversation waits until no generation runs, and drops the context of the model (`LLM.reset_context()`), which all
    objects on this model share.
    """

    stop: list[str] | str | None = None
    """Generation ends before the first of these; another name for `stop_sequences`."""

    num_ctx: int | None = None
    """Another name for `n_ctx`."""

    num_predict: int | None = None
    """Another name for `max_tokens`."""

    last_n_tokens_size: int | None = None
    """Another name for `penalty_last_n`."""

    repeat_last_n: int | None = None
    """Another name for `penalty_last_n`."""

    streaming: bool | None = None
    """Whether `invoke` reports every chunk to callbacks, as `stream` does."""

    grammar: Any = None
    """GBNF that the text has to fit, or a `LlamaGrammar` of llama-cpp-python."""

    grammar_path: FilePath | None = None
    """A file with GBNF that the text has to fit."""

    response_format: Any = None
    """The format of the text: "json", a JSON schema, OpenAI's dict, or a pydantic model."""

    format: str | dict[str, Any] | None = None
    """Another name for `response_format`."""

    lora_path: FilePath | None = None
    """The file of a LoRA adapter. Together with `lora_scale`, it sets `lora`."""

    lora_scale: float | None = None
    """The scale of the adapter at `lora_path`. (Default: `1.0`)"""

    top_logprobs: int | None = None
    """How many of the most likely tokens to report for every token; `logprobs` may then be a `bool`."""

    _grammars: dict[str, str] = PrivateAttr(default_factory=dict)

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_CHATS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments, and load the model and its adapters.

        Raises:
            CyllamaError: The model or an adapter cannot be loaded, or an argument is wrong.
        """
        super().__init__(*args, **kwargs)
        self._load_adapters(self._options())

    # -------------------- sessions

    def reset_session(self, session_id: str) -> None:
        """Forget a conversation: drop its KV caches, for all agents that share its id.

        Its generations in progress end with the finish reason "cancelled". An unknown conversation is not an error.

        >>> from langchain_cyllama import ChatCyllama
        >>> model = ChatCyllama(temperature=0)
        >>> answer = model.invoke("My name is Ada.", session_id="ada")
        >>> model.reset_session("ada")
        >>> model.client.sessions
        []

        Args:
            session_id: Its `session_id` or `thread_id`.
        """
        for llm in self._loaded():
            SessionPool(llm).reset(str(session_id))

    def reset_sessions(self) -> None:
        """Forget all conversations of all objects that share this model.

        >>> from langchain_cyllama import ChatCyllama
        >>> model = ChatCyllama(temperature=0)
        >>> answers = [model.invoke("Hello!", session_id=name) for name in ("ada", "ben")]
        >>> model.reset_sessions()
        >>> model.client.sessions
        []
        """
        for llm in self._loaded():
            SessionPool(llm).reset_all()

    def _loaded(self) -> list[LLM]:
        """Return the loaded models that may hold conversations. It loads none."""
        return [] if self.llm is None and self._held is None else [self.client]

    # -------------------- adapters

    def _load_adapters(self, options: Mapping[str, Any]) -> None:
        """Load the adapters that are named by a path and not loaded, for example after `close()`."""
        client = self.client
        for name in options.get("lora") or ():
            if name in client.loras or not _is_path(name):  # the call itself refuses unknown names
                continue
            try:
                client.load_lora(name, name)
            except ConfigError:
                if name not in client.loras:  # else another thread has just loaded it
                    raise

    def _given(self) -> dict[str, Any]:
        given = super()._given()
        path = given.pop("grammar_path", None)
        if path is not None:
            if path not in self._grammars:
                self._grammars[path] = read_grammar(path)  # once, at construction: reading a file blocks an event loop
            if given.setdefault("grammar", self._grammars[path]) != self._grammars[path]:
                raise ConfigError(f"grammar and grammar_path={path!r} differ: leave one of them out")
        return given

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """The arguments that the text depends on, for caches and traces."""
        return {"model_path": self.client.model_path, **self._given()}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The arguments of a serialized copy besides the fields: the file of a model that was given as `llm`."""
        return {} if self.llm is None else {"model_path": self.llm.model_path}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return that it can be serialized."""
        return True

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, as a prompt of this text has them.

        >>> from langchain_cyllama import CyllamaLLM
        >>> len(CyllamaLLM().get_token_ids("Once upon a time"))
        4

        Args:
            text: The text.
        """
        custom: Callable[[str], list[int]] | None = getattr(self, "custom_get_token_ids", None)
        return self.client.tokenize(text) if custom is None else custom(text)

    def _call_options(self, stop: list[str] | None = None, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the options of one call, by cyllama's names.

        Options in `kwargs` override those of this object. They have any name that the constructor takes, and may also
        be in a dict `options`. `stop` replaces the stop sequences of this object, as in all models of LangChain.
        Unknown names are returned unchanged.

        Args:
            stop: Stop sequences of this call.
            kwargs: The arguments of `bind` and of the call. Arguments that are `None` count as not given.

        Raises:
            ConfigError: Two names of one option have different values.
        """
        call = absolute_paths(without_unused(type(self).__name__, _flat(kwargs or {}), self._unused))
        options = self._merge(stop, call)
        self._drop_loading(options)
        self._load_adapters(options)
        return options

    def _merge(self, stop: list[str] | None, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of this object, overridden by those of a call."""
        own = {name: value for name, value in self._options().items() if name not in LOADING}
        over = translate(call)
        if stop is not None:
            over["stop_sequences"] = [*stop, *_as_list(over.get("stop_sequences", ()))]
        return override(own, over)

    def _drop_loading(self, call: dict[str, Any]) -> None:
        """Remove loading options from the options of a call, and warn of each that differs from the loaded model."""
        for name in LOADING & call.keys():
            value, has = call.pop(name), getattr(self.client.model_config, name)
            if value != has:
                reason = f"the model is loaded already, with {name}={has!r}; give it to the constructor"
                warn_unused(f"{type(self).__name__}.invoke", name, value, reason)


def _flat(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call, including those in the dict `options`, as ChatOllama takes them."""
    more = kwargs.get("options") or {}
    return {name: value for name, value in {**kwargs, **more}.items() if name not in ("options", "stream")}


def _is_path(name: object) -> bool:
    """Whether the name of an adapter is a path."""
    return isinstance(name, str) and (name.endswith(".gguf") or path_exists(expand_user(name)))


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)
