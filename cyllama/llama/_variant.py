"""Load the extension module that was built for a named processor."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PACKAGE = "cyllama.llama"
_MODULE = f"{_PACKAGE}.llama_cpp"


def load_variant(name: str) -> None:
    """Import the extension module of a processor as :mod:`cyllama.llama.llama_cpp`.

    Args:
        name: "avx2" or "sse42", as in CMake's ``CYLLAMA_CPU_VARIANTS``.

    Raises:
        ImportError: The extension was not built for it.
    """
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        return  # not built at all: the import that follows raises the error
    default = Path(spec.origin)
    path = default.parent / name / default.name
    if not path.is_file():
        raise ImportError(
            f"CYLLAMA_CPU={name!r}: there is no extension module for this processor in {path.parent}. Build it with "
            f"the CMake option CYLLAMA_CPU_VARIANTS={name}, or unset CYLLAMA_CPU."
        )
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    vars(sys.modules[_PACKAGE])["llama_cpp"] = module  # as an import statement does with a submodule
