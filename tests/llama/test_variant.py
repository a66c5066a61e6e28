"""The extension modules of named processors: which of them is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cyllama.llama.llama_cpp import system_info

FLAGS = {"avx2": {"AVX2", "FMA", "F16C"}, "sse42": {"SSE3", "SSSE3"}}


def enabled() -> set[str]:
    """Return what ggml-cpu was compiled with."""
    return {
        name.strip() for name, _, on in (item.partition("=") for item in system_info().split("|")) if on.strip() == "1"
    }


@pytest.mark.skipif(not os.environ.get("CYLLAMA_CPU"), reason="CYLLAMA_CPU is not set: the usual module is loaded")
def test_the_named_module_computes_without_what_its_processor_lacks():
    name = os.environ["CYLLAMA_CPU"]
    assert enabled() >= FLAGS[name]
    assert not any(flag.startswith("AVX512") for flag in enabled())
    assert name != "sse42" or not enabled() & FLAGS["avx2"]


def test_a_processor_that_the_extension_was_not_built_for_is_named():
    environment = os.environ | {"CYLLAMA_CPU": "z80"}
    child = subprocess.run(
        [sys.executable, "-c", "import cyllama"], env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert "CYLLAMA_CPU='z80'" in child.stderr
    assert "CYLLAMA_CPU_VARIANTS=z80" in child.stderr
