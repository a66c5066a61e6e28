"""The binding to llama.cpp: :mod:`cyllama.llama.llama_cpp`, compiled from ``ext/``.

Where the extension was built for several processors (CMake's ``CYLLAMA_CPU_VARIANTS``), the environment variable
``CYLLAMA_CPU`` names the one to load: "avx2" or "sse42".
"""

from __future__ import annotations

import os

from ._variant import load_variant

if variant := os.environ.get("CYLLAMA_CPU"):
    load_variant(variant)

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
