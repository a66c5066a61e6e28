"""The cores and the memory of this machine that the process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
CPU = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Return the number of physical cores that this process may use, at least 1.

    These are the cores of its CPU affinity, the hyper-threads of a core counted once, limited by a container's quota.
    """
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # not Linux: no affinity, no quota
        return max(1, os.cpu_count() or 1)
    cores = {_core_of(cpu) for cpu in cpus}
    return max(1, min(len(cores), _cpu_quota() or len(cores)))


def available_memory() -> int | None:
    """Return the bytes that this process can still allocate, or ``None`` if that is unknown."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    limit, used = _read_int(CGROUP / "memory.max"), _read_int(CGROUP / "memory.current")
    if limit is None or used is None:
        return available
    return min(available, max(0, limit - used + _reclaimable()))


def total_memory() -> int | None:
    """Return the bytes of memory that the machine or the container has, or ``None`` if that is unknown."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return min(total, _read_int(CGROUP / "memory.max") or total)


def _core_of(cpu: int) -> tuple[str, str]:
    """Return what identifies the physical core of a logical one; without a known topology, each is a core."""
    topology = CPU / f"cpu{cpu}" / "topology"
    try:
        return (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
    except OSError:
        return ("", str(cpu))


def _cpu_quota() -> int | None:
    """Return the whole cores that a cgroup grants, rounded up, or ``None`` for no limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota = _read_int(CGROUP / "cpu" / "cpu.cfs_quota_us") or -1
        period = _read_int(CGROUP / "cpu" / "cpu.cfs_period_us") or 100_000
    if quota == "max" or int(quota) <= 0:
        return None
    return max(1, -(-int(quota) // int(period)))


def _reclaimable() -> int:
    """Return the bytes of a cgroup's file cache that the kernel would drop first, such as pages of a mapped model."""
    try:
        fields = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return int(fields["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0


def _read_int(path: Path) -> int | None:
    """Return the integer in a file, ``None`` if there is no such file or it holds something else, such as "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
