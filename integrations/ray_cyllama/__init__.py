"""`cyllama_server` on several machines, as an application of Ray Serve.

`build_app` returns it. Needs the extra `cyllama[ray]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import build_app

__all__ = ["build_app"]


def __getattr__(name: str) -> Any:
    """Import what needs Ray when it is used: the rest of the package does without."""
    if name != "build_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .application import build_app

    return build_app
