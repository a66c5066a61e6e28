"""Loaded models that several objects use."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

from cyllama import LLM, ModelConfig
from cyllama.models import resolve_model_path


class SharedLLM:
    """A loaded model that is closed when its last user drops it.

    All users hold the same object, so Python's reference count counts them, copies included. The first user loads the
    model; others wait until it is loaded.

    Args:
        model_path: A GGUF file; ``None`` for the embedded model.
        config: How to load it.

    Attributes:
        pid: The process that loaded it. A forked child cannot use the model.
    """

    def __init__(self, model_path: str | None, config: ModelConfig) -> None:
        self._model_path = model_path
        self._config = config
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._llm: LLM | None = None

    def load(self, *, verbose: bool = False) -> LLM:
        """Return the model. The first call loads it.

        Raises:
            CyllamaError: The model cannot be loaded; the next call tries again.
        """
        with self._lock:
            if self._llm is None:
                self._llm = LLM(self._model_path, model_config=self._config, verbose=verbose)
            return self._llm

    def __del__(self) -> None:
        # The last reference frees the weights; the contexts are freed now, even if other references exist.
        llm = getattr(self, "_llm", None)
        if llm is not None:
            try:
                llm.close()
            except Exception:  # no caller could handle it
                return

    def __copy__(self) -> SharedLLM:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedLLM:
        return self


_shared: weakref.WeakValueDictionary[tuple[object, ...], SharedLLM] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def share(model_path: str | None, config: ModelConfig) -> SharedLLM:
    """Return the model that other objects of this process use with this file and these options, or a new one.

    Raises:
        CyllamaError: There is no such file, nor a model of that name.
    """
    if model_path is not None:
        model_path = os.fspath(resolve_model_path(model_path))
    key = (os.getpid(), _identity(model_path), config.model_dump_json())
    with _lock:
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = SharedLLM(model_path, config)
        return shared


def _identity(model_path: str | None) -> object:
    """Return a value that is equal for all paths of one file, and different after the file was replaced."""
    if model_path is None:
        return model_path
    path = os.path.realpath(model_path)
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # loading it raises an error that says why
        return path
    return path, status.st_size, status.st_mtime_ns


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that held the old one may not exist in this process


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
