"""Which extension module is loaded, where there is one for each kind of processor.

A build from source has one module, for the machine that built it, and those that CMake's ``CYLLAMA_CPU_VARIANTS`` adds.
A wheel has one in each of several folders, and ``_processor``, which says what the processor can do.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Collection, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, FileFinder
from pathlib import Path

_PACKAGE = "cyllama.llama"
_MODULE = f"{_PACKAGE}.llama_cpp"

_SSE42 = frozenset({"sse42", "popcnt"})
_AVX2 = _SSE42 | {"avx", "avx2", "f16c", "fma", "bmi2"}
_AVX512 = _AVX2 | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_DOTPROD = frozenset({"dotprod", "fp16"})
#: What the module of each name needs of the processor, the fastest first: see llama.cpp/cmake/Processors.cmake.
NEEDS: Mapping[str, frozenset[str]] = {
    "avx512bf16": _AVX512 | {"avx512vnni", "avx512bf16"},
    "avx512vnni": _AVX512 | {"avx512vnni"},
    "avx512": _AVX512,
    "avxvnni": _AVX2 | {"avxvnni"},
    "avx2": _AVX2,
    "sse42": _SSE42,
    "i8mm": _DOTPROD | {"i8mm"},
    "dotprod": _DOTPROD,
    "armv8": frozenset(),
}


def choose_variant(built: Collection[str], features: Collection[str]) -> str:
    """Return the fastest module that a processor can run.

    Args:
        built: Names of the modules that there are.
        features: What the processor can do, as ``_processor.features()`` returns it.

    Raises:
        ImportError: It can run none of them.
    """
    for name, needs in NEEDS.items():
        if name in built and needs <= frozenset(features):
            return name
    least = min((NEEDS[name] for name in built if name in NEEDS), key=len, default=frozenset[str]())
    missing = ", ".join(sorted(least - frozenset(features)))
    raise ImportError(
        f"This wheel of cyllama has no extension module that the processor can run: the processor lacks {missing}. "
        "Build cyllama for it from source: `pip install .` in a checkout of its repository."
    )


def load_variant(name: str | None) -> None:
    """Import an extension module that was built for a named processor as :mod:`cyllama.llama.llama_cpp`.

    Args:
        name: A key of :data:`NEEDS`. ``None``: in a wheel, the fastest that the processor can run; elsewhere, the one
            module that there is, whose import is left to the caller.

    Raises:
        ImportError: The extension was not built for that processor, or this processor cannot run it.
    """
    spec = importlib.util.find_spec(_MODULE)
    folder = Path(spec.origin if spec is not None and spec.origin is not None else __file__).parent
    features = _features()
    if features is not None:
        built = [variant for variant in NEEDS if (folder / variant).is_dir()]
        if name in built and not NEEDS[name] <= features:
            missing = ", ".join(sorted(NEEDS[name] - features))
            raise ImportError(f"CYLLAMA_CPU={name!r}: the processor lacks {missing}. Unset CYLLAMA_CPU.")
        name = name or choose_variant(built, features)
    elif name is None or spec is None:
        return  # the import that follows loads the one module, or raises the error
    _load(name, folder / name)


def _features() -> frozenset[str] | None:
    try:
        processor = importlib.import_module(f"{_PACKAGE}._processor")
    except ModuleNotFoundError:
        return None  # only wheels have it
    return frozenset(processor.features())


def _load(name: str, folder: Path) -> None:
    spec = FileFinder(str(folder), (ExtensionFileLoader, EXTENSION_SUFFIXES)).find_spec(_MODULE)
    if spec is None or spec.loader is None:
        raise ImportError(
            f"CYLLAMA_CPU={name!r}: there is no extension module for this processor in {folder}. Build it with "
            f"the CMake option CYLLAMA_CPU_VARIANTS={name}, or unset CYLLAMA_CPU."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    spec.loader.exec_module(module)
    vars(sys.modules[_PACKAGE])["llama_cpp"] = module  # as an import statement does with a submodule
