"""The LoRA adapters of one model that are loaded, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .config import GenerationConfig
from .engine import NO_ADAPTERS, Adapter, AdapterSet
from .errors import ConfigError, ConfigTypeError
from .llama.llama_cpp import LlamaModel
from .loading import load_adapter
from .models import expand_user


class LoadedAdapters:
    """Adapters by the names that callers gave them. To be used with the runtime's lock held, except :meth:`load`."""

    def __init__(self, model: LlamaModel) -> None:
        self._model = model
        self._by_name: dict[str, Adapter] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_name))

    def __getitem__(self, name: str) -> Adapter:
        return self._by_name[name]

    def load(self, name: str, path: str | os.PathLike[str]) -> Adapter:
        """Load an adapter, for :meth:`add`.

        Raises:
            AdapterNotFoundError: There is no such file.
            AdapterAccessError: It is a directory, or it may not be read.
            AdapterLoadError: It is not an adapter, or damaged, or was made for another model.
            ConfigError: The name is in use.
            ConfigTypeError: The name or the path has the wrong type, or the name is empty.
        """
        if not isinstance(name, str) or not name:
            raise ConfigTypeError(f"the name of an adapter is a str that is not empty, not {name!r:.80}")
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigTypeError(f"the path of an adapter is a str or a Path, not {type(path).__name__}")
        self._check_free(name)  # before the file is read
        return load_adapter(name, expand_user(os.fsdecode(path)), self._model)

    def add(self, adapter: Adapter) -> None:
        """Let generations use an adapter by its name.

        Raises:
            ConfigError: The name is in use.
        """
        self._check_free(adapter.name)
        self._by_name[adapter.name] = adapter

    def remove(self, name: str) -> None:
        """Make the name of an adapter free again. The engine frees the adapter after its last generation.

        Raises:
            ConfigError: There is no adapter of that name.
        """
        adapter = self._by_name.pop(name, None)
        if adapter is None:
            raise ConfigError(self._unknown(name))
        adapter.unloaded = True

    def set_of(self, config: GenerationConfig) -> AdapterSet:
        """Return the adapters that ``config.lora`` names, with their scales. The set keeps them loaded.

        Raises:
            ConfigError: There is no adapter of one of the names.
        """
        if not config.lora:
            return NO_ADAPTERS
        for name in config.lora:
            if name not in self._by_name:
                raise ConfigError(f"lora: {self._unknown(name)}")
        return AdapterSet((self._by_name[name], scale) for name, scale in config.lora.items())

    def _check_free(self, name: str) -> None:
        if name in self._by_name:
            raise ConfigError(f"there is an adapter {name!r} already: unload_lora() it, or choose another name")

    def _unknown(self, name: object) -> str:
        loaded = ", ".join(repr(known) for known in self._by_name) or "none"
        return f"there is no adapter {name!r:.80}: load_lora() has loaded {loaded}"
