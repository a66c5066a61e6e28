"""Lets LangChain load serialized objects of this package."""

from __future__ import annotations

import importlib
from typing import Any

from langchain_core.load.mapping import SERIALIZABLE_MAPPING
from langchain_core.load.serializable import Serializable

_NAMESPACE = __name__.partition(".")[0]


def register(cls: type[Serializable]) -> None:
    """Add a class to those that `loads(..., allowed_objects="all")` loads, as the classes of LangChain's partners are.

    LangChain lists the packages and classes of its partners by name, and loads no others.
    """
    loader: Any = importlib.import_module("langchain_core.load.load")  # its package has a function of that name
    path = tuple(cls.lc_id())
    for mapping in (SERIALIZABLE_MAPPING, loader.ALL_SERIALIZABLE_MAPPINGS):  # one is a copy of the other
        mapping[path] = path
    if _NAMESPACE not in loader.DEFAULT_NAMESPACES:
        loader.DEFAULT_NAMESPACES.append(_NAMESPACE)
    getattr(loader, "_default_class_paths_cache", {}).pop("all", None)
