"""The extension modules of named processors: which of them is loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cyllama.llama._variant import NEEDS, choose_variant
from cyllama.llama.llama_cpp import system_info

FLAGS = {
    "sse42": {"SSE3", "SSSE3"},
    "avx2": {"AVX2", "FMA", "F16C", "BMI2"},
    "avxvnni": {"AVX2", "AVX_VNNI"},
    "avx512": {"AVX2", "AVX512"},
    "avx512vnni": {"AVX512", "AVX512_VNNI"},
    "avx512bf16": {"AVX512", "AVX512_VNNI", "AVX512_BF16"},
}
#: What the wheel for x86-64 has; what processors of each generation can do, and the module that is the fastest there.
X86_64 = [name for name in NEEDS if name in FLAGS]
SSE42 = "sse42 popcnt"
AVX2 = f"{SSE42} avx f16c fma avx2 bmi2"
AVX512 = f"{AVX2} avx512f avx512cd avx512bw avx512dq avx512vl"
PROCESSORS = [
    pytest.param(SSE42, "sse42", id="Nehalem 2008, or a Celeron of 2019"),
    pytest.param(f"{SSE42} avx f16c", "sse42", id="Ivy Bridge 2012: AVX without AVX2"),
    pytest.param(f"{SSE42} avx f16c fma", "sse42", id="Piledriver 2012: FMA without AVX2"),
    pytest.param(AVX2, "avx2", id="Haswell 2013, Zen 2017"),
    pytest.param(f"{AVX2} avxvnni", "avxvnni", id="Alder Lake 2021"),
    pytest.param(AVX512, "avx512", id="Skylake-X 2017"),
    pytest.param(f"{AVX512} avx512vnni", "avx512vnni", id="Cascade Lake 2019, Ice Lake 2019"),
    pytest.param(f"{AVX512} avx512vnni avx512bf16", "avx512bf16", id="Zen 4 2022"),
    pytest.param(f"{AVX512} avxvnni avx512vnni avx512bf16", "avx512bf16", id="Sapphire Rapids 2023, Zen 5 2024"),
    pytest.param(f"{AVX2} avx512f avx512cd", "avx2", id="Knights Landing 2016: half of AVX-512"),
]


def enabled() -> set[str]:
    """Return what ggml-cpu was compiled with."""
    return {
        name.rpartition(":")[2].strip()  # the first follows the name of the backend: "CPU : SSE3 = 1"
        for name, _, on in (item.partition("=") for item in system_info().split("|"))
        if on.strip() == "1"
    }


@pytest.mark.skipif(not os.environ.get("CYLLAMA_CPU"), reason="CYLLAMA_CPU is not set: the usual module is loaded")
def test_the_named_module_computes_without_what_its_processor_lacks():
    name = os.environ["CYLLAMA_CPU"]
    assert enabled() >= FLAGS[name]
    allowed = set[str]().union(*(flags for other, flags in FLAGS.items() if NEEDS[other] <= NEEDS[name]))
    assert not {flag for flag in enabled() if flag.startswith("AVX")} - allowed - {"AVX"}
    assert name != "sse42" or not enabled() & {"AVX", *FLAGS["avx2"]}


def test_a_processor_that_the_extension_was_not_built_for_is_named():
    environment = os.environ | {"CYLLAMA_CPU": "z80"}
    child = subprocess.run(
        [sys.executable, "-c", "from cyllama import LLM"], env=environment, capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert "CYLLAMA_CPU='z80'" in child.stderr
    assert "CYLLAMA_CPU_VARIANTS=z80" in child.stderr


@pytest.mark.parametrize(("features", "best"), PROCESSORS)
def test_a_wheel_loads_the_fastest_module_that_the_processor_can_run(features: str, best: str):
    assert choose_variant(X86_64, features.split()) == best


@pytest.mark.parametrize(
    ("features", "best"),
    [("", "armv8"), ("fp16 dotprod", "dotprod"), ("fp16 dotprod i8mm", "i8mm")],
    ids=["Raspberry Pi 4", "Graviton 2, Raspberry Pi 5", "Graviton 3"],
)
def test_so_does_a_wheel_for_arm(features: str, best: str):
    assert choose_variant(["armv8", "dotprod", "i8mm"], features.split()) == best


def test_a_processor_that_can_run_none_is_told_what_it_lacks():
    with pytest.raises(ImportError, match=r"the processor lacks popcnt, sse42\. Build cyllama for it from source"):
        choose_variant(X86_64, ["avx"])
    with pytest.raises(ImportError, match=r"lacks avx2, bmi2, fma\."):  # a wheel for a GPU has one module
        choose_variant(["avx2"], f"{SSE42} avx f16c".split())


@pytest.mark.parametrize("name", NEEDS)
def test_each_module_is_listed_before_those_that_need_less(name: str):
    order = list(NEEDS)
    assert all(order.index(name) < order.index(other) for other in order if NEEDS[other] < NEEDS[name])
