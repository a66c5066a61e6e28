"""Where a warning belongs: the line of the program that called this library."""

from __future__ import annotations

import sys

_LIBRARIES = (
    "cyllama",
    "cyllama_server",
    "ray_cyllama",
    "langchain_cyllama",
    "langchain_core",
    "langgraph",
    "pydantic",
    "concurrent",
    "threading",
    "contextvars",
)


def levels_to_the_program() -> int:
    """Return how many frames above the caller the program is: the first frame outside of these libraries."""
    levels, frame = 0, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _LIBRARIES:
        levels, frame = levels + 1, frame.f_back
    return levels
