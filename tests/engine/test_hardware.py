"""What of the machine the process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cyllama import LLM
from cyllama.engine import hardware

CAPITAL = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four logical cores, of which pairs share a physical one, in a folder instead of /sys."""
    for cpu in range(4):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{cpu // 2}\n")
    monkeypatch.setattr(hardware, "CPU", tmp_path)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    return tmp_path


def test_hyper_threads_of_a_core_count_once(machine: Path):
    assert hardware.physical_cores() == 2


def test_affinity_is_respected(machine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3})
    assert hardware.physical_cores() == 1


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 2), ("100000 100000", 1), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_a_containers_quota_is_respected(machine: Path, quota: str, cores: int):
    (machine / "cpu.max").write_text(quota)
    assert hardware.physical_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [(-1, 2), (100_000, 1)])
def test_the_older_kind_of_quota_too(machine: Path, quota: int, cores: int):
    (machine / "cpu").mkdir()
    (machine / "cpu" / "cpu.cfs_quota_us").write_text(str(quota))
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert hardware.physical_cores() == cores


@pytest.mark.parametrize(
    ("own", "folder", "name"),
    [
        ("0::/system.slice/llm.service", "system.slice/llm.service", "cpu.max"),
        ("0::/system.slice/llm.service", "system.slice", "cpu.max"),
        ("4:cpu,cpuacct:/docker/1a", "cpu/docker/1a", "cpu.cfs_quota_us"),
        ("1:name=systemd:/\n0::/a:b", "a:b", "cpu.max"),
    ],
)
def test_quotas_of_systemd_units_and_of_their_parents_are_respected(machine: Path, own: str, folder: str, name: str):
    (machine / "own").write_text(own)
    (machine / folder).mkdir(parents=True)
    assert hardware.physical_cores() == 2
    (machine / folder / name).write_text("100000 100000" if name == "cpu.max" else "100000")
    assert hardware.physical_cores() == 1


def test_a_memory_limit_of_a_systemd_unit_is_respected(machine: Path):
    (machine / "own").write_text("0::/llm.service")
    (machine / "llm.service").mkdir()
    (machine / "llm.service" / "memory.max").write_text("1000000")
    (machine / "llm.service" / "memory.current").write_text("900000")
    (machine / "llm.service" / "memory.stat").write_text("inactive_file 300000\n")
    assert hardware.available_memory() == 400_000
    assert hardware.total_memory() == 1_000_000


def test_the_older_kind_of_memory_limit_too(machine: Path):
    (machine / "memory").mkdir()
    (machine / "memory" / "memory.limit_in_bytes").write_text("1000000")
    (machine / "memory" / "memory.usage_in_bytes").write_text("900000")
    (machine / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 300000\n")
    assert hardware.available_memory() == 400_000
    assert hardware.total_memory() == 1_000_000


def test_an_unknown_topology_makes_every_logical_core_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "CPU", tmp_path)
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert hardware.physical_cores() == 3


def test_a_containers_memory_limit_is_respected(machine: Path):
    (machine / "memory.max").write_text("1000000")
    (machine / "memory.current").write_text("400000")
    assert hardware.available_memory() == 600_000
    (machine / "memory.max").write_text("max")
    assert (hardware.available_memory() or 10**9) > 600_000


def test_this_machine_has_cores_and_memory():
    assert hardware.physical_cores() >= 1
    assert (hardware.available_memory() or 2**30) > 2**20


def test_a_context_uses_the_cores_by_default(tiny_chat: Path):
    with LLM(tiny_chat) as llm:
        llm(CAPITAL, max_tokens=1)
        engine = llm._runtime.engine
        assert engine is not None
        context = engine._context.context
        assert context is not None
        assert context.n_threads == context.n_threads_batch == hardware.physical_cores()
