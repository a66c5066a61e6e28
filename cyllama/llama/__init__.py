"""The binding to llama.cpp: :mod:`cyllama.llama.llama_cpp`, compiled from ``ext/``.

A wheel has an extension module for each of several processors, and the fastest that this one can run is loaded. The
environment variable ``CYLLAMA_CPU`` names another one to load, such as "avx2".
"""

from __future__ import annotations

import os

from ._variant import load_variant

load_variant(os.environ.get("CYLLAMA_CPU") or None)

try:
    from . import llama_cpp
except ImportError as error:
    if "cannot import name" not in str(error):  # the module exists, but a library that it needs does not
        raise
    # the source tree was never built, or shadows the installed package
    raise ImportError(
        "cyllama's extension module is not beside its Python files. If this is a source tree, build it with `make`, or "
        "`pip install -e .`; if cyllama is installed elsewhere, run Python from another folder than its source tree.",
        name=error.name,
    ) from error

__all__ = ["llama_cpp"]
