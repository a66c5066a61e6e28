"""What the build is and what it runs on."""

from __future__ import annotations

from cyllama.llama import llama_cpp


def test_there_is_a_cpu():
    (cpu,) = [device for device in llama_cpp.devices() if device.type == "cpu"]
    assert cpu.name == "CPU"
    assert cpu.backend in llama_cpp.backends()
    assert 0 < cpu.memory_free <= cpu.memory_total


def test_the_build_says_what_it_is():
    assert llama_cpp.build_info().startswith(f"b{llama_cpp.build_number()}")
    assert llama_cpp.build_number() > 10_000
    assert llama_cpp.compiler()
    assert "CPU" in llama_cpp.system_info()
    assert llama_cpp.max_parallel_sequences() == 256
    assert llama_cpp.max_devices() >= 1
    assert llama_cpp.supports_mmap()
    for answer in (llama_cpp.supports_gpu_offload(), llama_cpp.supports_mlock(), llama_cpp.supports_rpc()):
        assert isinstance(answer, bool)
