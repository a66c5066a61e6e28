"""Lets LangChain load what it has saved of this package's classes."""

from __future__ import annotations

import sys

from langchain_core.load.mapping import SERIALIZABLE_MAPPING
from langchain_core.load.serializable import Serializable


def register(cls: type[Serializable]) -> None:
    """Add a class to those that `load(..., allowed_objects="all", valid_namespaces=["langchain_cyllama"])` loads.

    LangChain lists the classes of its partners by name; what is not in the list is never loaded.
    """
    path = tuple(cls.lc_id())
    SERIALIZABLE_MAPPING[path] = path
    loader = sys.modules.get("langchain_core.load.load")
    if loader is not None:  # it has a copy, and perhaps another one of that
        loader.ALL_SERIALIZABLE_MAPPINGS[path] = path
        getattr(loader, "_default_class_paths_cache", {}).pop("all", None)
