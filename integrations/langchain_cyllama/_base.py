"""What all classes of this package have in common: their arguments, and the model that they share."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, ValidationError
from typing_extensions import Self

from cyllama import LLM, ConfigError, ConfigTypeError, GenerationConfig, ModelConfig

from ._arguments import (
    ARGUMENTS,
    CALL_OPTIONS,
    LOADING,
    absolute_paths,
    override,
    read_grammar,
    translate,
)
from ._fields import GenerationFields, LoadingFields
from ._shared import SharedLLM, share
from ._unused import UNUSED, UNUSED_IN_CHATS, Unused, warn_unused, without_unused
from .sessions import conversations_of

FilePath = Annotated[str | Path, AfterValidator(os.fspath)]

N_PARALLEL = 16
"""Most generations in a step, unless `n_parallel` says otherwise.

Enough for a usual `batch`, and a processor multiplies for 16 tokens in little more time than for 12.
"""


class CyllamaModel(LoadingFields):
    """A model that is loaded at construction and shared by all objects that use the same file and loading options."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    llm: LLM | None = Field(default=None, exclude=True, repr=False)
    """A loaded `cyllama.LLM` to use. It stays yours: `close()` of this object leaves it alone."""

    model_path: FilePath | None = None
    """A GGUF file; `None` for tiny-chat, the embedded model. It is kept by its absolute path."""

    model: FilePath | None = None
    """Another name for `model_path`."""

    num_gpu: int | None = None
    """Another name for `n_gpu_layers`."""

    num_thread: int | None = None
    """Another name for `n_threads`."""

    use_mmap: bool | None = None
    """Whether to map the file into memory; together with `use_mlock` another way to say `load_mode`."""

    use_mlock: bool | None = None
    """Whether to keep the model in memory."""

    f16_kv: bool | None = None
    """Whether keys and values are cached as f16 rather than f32; another way to say `type_k` and `type_v`."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments, by name."""

    _held: tuple[dict[str, Any], SharedLLM] | None = PrivateAttr(default=None)  # what it was loaded with, and the model

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments and load the model.

        Raises:
            ModelNotFoundError: There is no such file.
            ModelLoadError: It is no model, or cannot be read.
            ConfigError: An argument has a value out of its range, or contradicts another one.
            ConfigTypeError: There is no such argument.
        """
        owner = type(self).__name__
        self._check_names(kwargs)
        given = absolute_paths(without_unused(owner, kwargs, self._unused))
        if isinstance(more := given.get("model_kwargs"), dict):
            given["model_kwargs"] = without_unused(owner, more, self._unused)
        try:
            super().__init__(*args, **given)
        except ValidationError as error:
            raise ConfigError(_describe(owner, error)) from None
        self._check_options()
        _ = self.client

    # -------------------- the model

    @property
    def client(self) -> LLM:
        """The loaded model.

        It is loaded at construction, and again by the first use after `close()`.
        """
        if self.llm is not None:
            return self.llm
        path, loading = self._path(), self._loading()
        wanted, held = {"model_path": path, **loading}, self._held
        if held is None or held[0] != wanted or held[1].pid != os.getpid():
            shared = share(path, ModelConfig(**{"n_parallel": N_PARALLEL, **loading}))
            held = self._held = wanted, shared
        return held[1].load(verbose=bool(getattr(self, "verbose", False)))

    def close(self) -> None:
        """Give the model back, at once if nobody shares it any more.

        What others still use stays; what this object generates ends as "cancelled" where nobody shares the model. A
        model that was given as `llm` belongs to the caller, who closes it. The object stays usable: the next call loads
        the model again.
        """
        self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show what was given."""
        fields = type(self).model_fields
        for name, value in super().__repr_args__():
            if name is None or name not in fields or value != fields[name].get_default(call_default_factory=True):
                yield name, value

    # -------------------- copies

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        if self.llm is not None:
            memo[id(self.llm)] = self.llm
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        private = state["__pydantic_private__"] or {}
        return {**state, "__pydantic_private__": {**private, "_held": None}}  # who unpickles it loads the model there

    # -------------------- arguments

    if not TYPE_CHECKING:  # its type is LangChain's

        def bind(self, **kwargs):
            """Bind arguments, of which files are those that their paths name now: see `Runnable.bind`."""
            return super().bind(**absolute_paths(kwargs))

    def _path(self) -> str | None:
        given = [os.fspath(path) for path in (self.model_path, self.model) if path is not None]
        if len(set(given)) > 1:
            raise ConfigError(
                f"model_path={given[0]!r} and model={given[1]!r} are two models: {type(self).__name__} has one, leave "
                "one of them out"
            )
        return given[0] if given else None

    def _given(self) -> dict[str, Any]:
        """Return the arguments that were given, by the names they were given by."""
        fields = type(self).model_fields
        given = {name: value for name in ARGUMENTS if name in fields and (value := getattr(self, name)) is not None}
        more = given.pop("model_kwargs", {})
        return {**given, **more}

    def _options(self) -> dict[str, Any]:
        """Return all of cyllama's options that were given."""
        return translate(self._given())

    def _loading(self) -> dict[str, Any]:
        return {name: value for name, value in self._options().items() if name in LOADING}

    def _check_options(self) -> None:
        """Raise the errors of cyllama's configs, for a wrong value or a name of `model_kwargs` that does not exist."""
        options = self._options()
        loading = ModelConfig(**{name: value for name, value in options.items() if name in LOADING})
        GenerationConfig(**{name: value for name, value in options.items() if name not in LOADING | CALL_OPTIONS})
        path = self._path()
        if self.llm is None:
            return
        for name in loading.model_fields_set:
            wanted, has = getattr(loading, name), getattr(self.llm.model_config, name)
            if wanted != has:
                raise ConfigError(f"{name} is {wanted!r}, but llm was loaded with {has!r}: leave one of them out")
        if path is not None and not _same_file(path, self.llm.model_path):
            raise ConfigError(f"model_path is {path!r}, but llm was loaded from {self.llm.model_path!r}: leave one out")

    def _check_names(self, arguments: Mapping[str, Any]) -> None:
        fields = type(self).model_fields
        known = {*fields, *(field.alias for field in fields.values() if field.alias), *self._unused}
        for name in arguments:
            if name not in known:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f": did you mean {nearest[0]!r}?" if nearest else ""
                raise ConfigTypeError(f"{type(self).__name__} has no argument {name!r}{hint}")


class CyllamaBase(GenerationFields, CyllamaModel):
    """A model that generates text, and the options that it does so with.

    To be combined with a class of LangChain: `class ChatCyllama(CyllamaBase, BaseChatModel)`.
    """

    session_id: str | None = None
    """The conversation that all calls belong to. By default, it is the one that a call's config names."""

    sessions: Literal["concurrent", "exclusive"] = "concurrent"
    """Whether all conversations keep their KV caches.

    "exclusive" keeps that of one conversation, for machines with no memory to spare: a call of another one waits until
    what is being generated has ended, and drops the context of the model with all that shares it
    (`LLM.reset_context()`).
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
    """GBNF that the text has to fit, or an object of llama-cpp-python that holds one."""

    grammar_path: FilePath | None = None
    """A file with GBNF that the text has to fit."""

    response_format: Any = None
    """What the text has to be: "json", a JSON schema, OpenAI's dict, or a pydantic model."""

    format: str | dict[str, Any] | None = None
    """Another name for `response_format`."""

    lora_path: FilePath | None = None
    """A LoRA adapter to compute with; with `lora_scale` another way to say `lora`."""

    lora_scale: float | None = None
    """The scale of the adapter at `lora_path`. (Default: `1.0`)"""

    top_logprobs: int | None = None
    """How many of the likeliest tokens to report beside every token; `logprobs` may be a `bool` then."""

    _grammars: dict[str, str] = PrivateAttr(default_factory=dict)

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED_IN_CHATS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments, and load the model and its adapters.

        Raises:
            CyllamaError: As for all models; also where an adapter cannot be loaded.
        """
        super().__init__(*args, **kwargs)
        self._load_adapters(self._options())

    # -------------------- sessions

    def reset_session(self, session_id: str) -> None:
        """Forget a conversation: what its KV caches hold, for all agents that share its id.

        Generations of it that are running end with the finish reason "cancelled". A conversation that is not known is
        no error.

        Args:
            session_id: Its `session_id` or `thread_id`.
        """
        for llm in self._loaded():
            conversations_of(llm).reset(llm, str(session_id))

    def reset_sessions(self) -> None:
        """Forget all conversations of all objects that share this model."""
        for llm in self._loaded():
            conversations_of(llm).reset_all(llm)

    def _loaded(self) -> list[LLM]:
        """Return the models that conversations may be held by; none that would have to be loaded for that."""
        return [] if self.llm is None and self._held is None else [self.client]

    # -------------------- adapters

    def _load_adapters(self, options: Mapping[str, Any]) -> None:
        """Load the adapters that are named by a path, unless they are loaded: again after `close()`, say."""
        client = self.client
        for name in options.get("lora") or ():
            if name in client.loras or not _is_path(name):  # what is unknown, the call itself refuses
                continue
            try:
                client.load_lora(name, name)
            except ConfigError:
                if name not in client.loras:  # another thread was faster otherwise
                    raise

    def _given(self) -> dict[str, Any]:
        given = super()._given()
        path = given.pop("grammar_path", None)
        if path is not None:
            if path not in self._grammars:
                self._grammars[path] = read_grammar(path)  # once, and not on an event loop
            if given.setdefault("grammar", self._grammars[path]) != self._grammars[path]:
                raise ConfigError(f"grammar and grammar_path={path!r} differ: leave one of them out")
        return given

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """What the text depends on, for caches and traces."""
        return {"model_path": self.client.model_path, **self._given()}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What a serialized copy is made with besides the fields: the file of a model that was given as `llm`."""
        return {} if self.llm is None else {"model_path": self.llm.model_path}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return that it can be serialized."""
        return True

    def get_token_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, the same as a prompt of it would have."""
        custom: Callable[[str], list[int]] | None = getattr(self, "custom_get_token_ids", None)
        return self.client.tokenize(text) if custom is None else custom(text)

    def _call_options(self, stop: list[str] | None = None, kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the options of one call, by cyllama's names.

        Options of this object come first, then those of `kwargs`, by any name that the constructor takes and in a dict
        `options` too. `stop` replaces the stop words of this object, as LangChain's models do. What is not known here
        is returned as it is.

        Args:
            stop: Stop words of this call.
            kwargs: What `bind` and the call itself were given. `None` is as if it were not there.

        Raises:
            ConfigError: Two names of one option have different values.
        """
        call = absolute_paths(without_unused(type(self).__name__, _flat(kwargs or {}), self._unused))
        options = self._merge(stop, call)
        self._drop_loading(options)
        self._load_adapters(options)
        return options

    def _merge(self, stop: list[str] | None, call: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of this object with those of a call put over them."""
        own = {name: value for name, value in self._options().items() if name not in LOADING}
        over = translate(call)
        if stop is not None:
            over["stop_sequences"] = [*stop, *_as_list(over.get("stop_sequences", ()))]
        return override(own, over)

    def _drop_loading(self, call: dict[str, Any]) -> None:
        """Take out of a call's options those of loading, and warn of each that the model was loaded with otherwise."""
        for name in LOADING & call.keys():
            value, has = call.pop(name), getattr(self.client.model_config, name)
            if value != has:
                reason = f"the model is loaded already, with {name}={has!r}; give it to the constructor"
                warn_unused(f"{type(self).__name__}.invoke", name, value, reason)


def _flat(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call, also those that ChatOllama takes in a dict of their own."""
    more = kwargs.get("options") or {}
    return {name: value for name, value in {**kwargs, **more}.items() if name not in ("options", "stream")}


def _is_path(name: object) -> bool:
    """Whether the name of an adapter is rather the path of one."""
    return isinstance(name, str) and (name.endswith(".gguf") or os.path.exists(os.path.expanduser(name)))  # noqa: PTH110, PTH111


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(other)  # noqa: PTH111


def _describe(owner: str, error: ValidationError) -> str:
    """One line for each wrong value, with the value itself."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in item["loc"])
        lines.append(f"{owner}.{path}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r:.80}")
    return "\n".join(lines)
