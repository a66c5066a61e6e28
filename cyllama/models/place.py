"""Where models of the hub are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError, ConfigTypeError
from .paths import expand_user


class Place(NamedTuple):
    """Where a model is looked for.

    Attributes:
        revision: A branch, a tag or a commit; ``None`` for the main branch.
        token: An access token; ``None`` for the one of the environment or of the log-in.
        cache_dir: The cache; ``None`` for the one that all tools share.
        local_files_only: Whether only the cache is looked into.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False

    def check(self) -> None:
        """Check the types, and that the token can be sent: it is in no message.

        Raises:
            ConfigTypeError: A value has the wrong type.
            ConfigError: The token has characters that no token has.
        """
        for name, types in (("revision", str), ("token", str), ("cache_dir", (str, os.PathLike))):
            value = getattr(self, name)
            if value is not None and not isinstance(value, types):
                raise ConfigTypeError(f"{name} is a str or None, not {type(value).__name__}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise ConfigError("token has a line break or another character that no token has: pass the token alone")

    @property
    def cache(self) -> Path:
        """The folder of the cache."""
        from huggingface_hub import constants

        return Path(expand_user(self.cache_dir or constants.HF_HUB_CACHE))

    @property
    def offline(self) -> bool:
        """Whether nothing may be downloaded."""
        from huggingface_hub import constants

        return self.local_files_only or constants.HF_HUB_OFFLINE


_Path = Path if TYPE_CHECKING else type(Path())  # before Python 3.12, only the class for this system has subclasses


class PlacedPath(_Path):
    """The path of a model's file, with the place where it was looked for: its projector is looked for there too."""

    place = Place()

    @classmethod
    def of(cls, path: Path, place: Place) -> PlacedPath:
        """Return a path with its place."""
        placed = cls(path)
        placed.place = place
        return placed
