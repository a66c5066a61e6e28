"""`cyllama serve`: models over HTTP."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

from ..errors import ConfigError

INSTALL = "pip install 'fastapi>=0.115' 'uvicorn>=0.30' 'prometheus-client>=0.20' 'pydantic-settings>=2.7' 'tomli>=2'"


class _Serve:
    """Serve models over HTTP, by the APIs of OpenAI and Anthropic."""

    __name__ = "serve"

    @cached_property
    def _command(self) -> Callable[..., None]:
        """The command with all of its flags. They are the settings of a library that other commands do without."""
        try:
            from cyllama_server.command import make_command
        except ImportError as error:
            raise ConfigError(f"cyllama serve needs {error.name}, which is missing: {INSTALL}") from error
        return make_command(self.__doc__ or "")

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._command)

    @property
    def __annotations__(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._command.__annotations__

    def __call__(self, **flags: Any) -> None:
        self._command(**flags)


serve = _Serve()
