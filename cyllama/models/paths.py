"""Paths as callers write them, which may be no paths at all."""

from __future__ import annotations

import os


def expand_user(path: str | os.PathLike[str]) -> str:
    """Return a path with ``~`` as the home folder. That of an unknown user stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises for an unknown user


def path_exists(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a file or folder. There is none at a text that cannot be a path."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for a text that is too long
