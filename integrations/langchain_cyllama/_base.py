"""What all classes of this package have in common: arguments, and the loaded model that they share."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, ValidationError
from typing_extensions import Self

from cyllama import LLM, ConfigError, ConfigTypeError, GenerationConfig, ModelConfig
from cyllama.declaration import describe_errors
from cyllama.models import expand_user

from ._arguments import ARGUMENTS, CALL_OPTIONS, LOADING, absolute_paths, translate
from ._fields import LoadingFields
from ._shared import SharedLLM, share
from ._unused import UNUSED, Unused, without_unused

FilePath = Annotated[str | Path, AfterValidator(os.fspath)]

N_PARALLEL = 16
"""Most generations in a step, unless `n_parallel` says otherwise.

Enough for a usual `batch`, and a processor multiplies for 16 tokens in little more time than for 12.
"""


class CyllamaModel(LoadingFields):
    """A model that is loaded at construction, and shared by all objects with the same file and loading options."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    llm: LLM | None = Field(default=None, exclude=True, repr=False)
    """A loaded `cyllama.LLM` to use. The caller closes it: `close()` of this object does not."""

    model_path: FilePath | None = None
    """A GGUF file (its absolute path is stored), or a model on the hub: "owner/repo:Q4_K_M"; `None` for tiny-chat."""

    model: FilePath | None = None
    """Another name for `model_path`."""

    num_gpu: int | None = None
    """Another name for `n_gpu_layers`."""

    num_thread: int | None = None
    """Another name for `n_threads`."""

    use_mmap: bool | None = None
    """Whether to map the file into memory. Together with `use_mlock`, it sets `load_mode`."""

    use_mlock: bool | None = None
    """Whether to lock the model in memory."""

    f16_kv: bool | None = None
    """Whether keys and values are cached as f16 (else f32). It sets `type_k` and `type_v`."""

    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """More arguments, by name."""

    _held: tuple[dict[str, Any], SharedLLM] | None = PrivateAttr(default=None)  # loading options, and the model

    _unused: ClassVar[Mapping[str, Unused]] = UNUSED

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Check the arguments and load the model.

        Raises:
            ModelNotFoundError: There is no such file, nor a model of that name.
            ModelDownloadError: It cannot be downloaded.
            ModelLoadError: The file is not a model, or cannot be read.
            ConfigError: An argument has a value out of its range, or two arguments contradict each other.
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
            raise ConfigError(describe_errors(owner, error)) from None
        self._check_options()
        _ = self.client

    # -------------------- the model

    @property
    def client(self) -> LLM:
        """The loaded model: loaded at construction, and again by the first use after `close()`.

        >>> from langchain_cyllama import CyllamaLLM
        >>> CyllamaLLM().client.n_ctx_train
        2048

        Raises:
            CyllamaError: The model cannot be loaded.
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
        """Release the model. It is freed at once if no other object uses it.

        In that case, generations in progress end with the finish reason "cancelled". A model that was given as `llm`
        belongs to the caller, who closes it. The object stays usable: the next call loads the model again.

        >>> from langchain_cyllama import CyllamaLLM
        >>> llm = CyllamaLLM(temperature=0, max_tokens=4)
        >>> text = llm.invoke("Once upon a time")
        >>> llm.close()
        """
        self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the arguments that differ from their defaults."""
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
        return {**state, "__pydantic_private__": {**private, "_held": None}}  # unpickling loads the model

    # -------------------- arguments

    if not TYPE_CHECKING:  # its type is LangChain's

        def bind(self, **kwargs):
            """Return a model with arguments for every call: see `Runnable.bind`. Relative paths become absolute now.

            >>> from langchain_cyllama import ChatCyllama
            >>> short = ChatCyllama(temperature=0).bind(max_tokens=4)
            >>> short.invoke("Count from 3 to 15.").response_metadata["finish_reason"]
            'length'
            """
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
        """Return the arguments that were given, by the names that the caller used."""
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


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(expand_user(one)) == os.path.realpath(other)
