"""The cores and the memory of this machine that the process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
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
    for folder in _cgroups("memory"):
        limit, used = _memory_limit(folder), _memory_used(folder)
        if limit is not None and used is not None:
            available = min(available, max(0, limit - used + _reclaimable(folder)))
    return available


def total_memory() -> int | None:
    """Return the bytes of memory that the machine or the container has, or ``None`` if that is unknown."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    return min(total, *(_memory_limit(folder) or total for folder in _cgroups("memory")))


def _core_of(cpu: int) -> tuple[str, str]:
    """Return what identifies the physical core of a logical one; without a known topology, each is a core."""
    topology = CPU / f"cpu{cpu}" / "topology"
    try:
        return (topology / "physical_package_id").read_text(), (topology / "core_id").read_text()
    except OSError:
        return ("", str(cpu))


def _cpu_quota() -> int | None:
    """Return the whole cores that all cgroups of the process grant, rounded up, or ``None`` for no limit."""
    quotas = [quota for folder in _cgroups("cpu") if (quota := _cpu_quota_of(folder)) is not None]
    return min(quotas, default=None)


def _cpu_quota_of(folder: Path) -> int | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota = _read_int(folder / "cpu.cfs_quota_us") or -1
        period = _read_int(folder / "cpu.cfs_period_us") or 100_000
    if quota == "max" or int(quota) <= 0:
        return None
    return max(1, -(-int(quota) // int(period)))


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of the process's cgroups for "cpu" or "memory", of both versions of cgroups.

    A limit of any of them holds: that of a container is at the mount's root, that of a systemd unit far below it.
    """
    try:
        lines = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        lines = []
    own = {names: path for _, names, path in (line for line in lines if len(line) == 3)}
    by_version = (("", CGROUP), (next((n for n in own if controller in n.split(",")), controller), CGROUP / controller))
    for names, root in by_version:
        yield root
        folder = root
        for part in Path(own.get(names, "/")).parts[1:]:  # not found in a container that sees its own cgroups only
            folder = folder / part
            yield folder


def _memory_limit(folder: Path) -> int | None:
    limit = _read_int(folder / "memory.max")
    return _read_int(folder / "memory.limit_in_bytes") if limit is None else limit


def _memory_used(folder: Path) -> int | None:
    used = _read_int(folder / "memory.current")
    return _read_int(folder / "memory.usage_in_bytes") if used is None else used


def _reclaimable(folder: Path) -> int:
    """Return the bytes of a cgroup's file cache that the kernel would drop first, such as pages of a mapped model."""
    try:
        fields = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return int(fields.get("total_inactive_file") or fields["inactive_file"])
    except (OSError, KeyError, ValueError):
        return 0


def _read_int(path: Path) -> int | None:
    """Return the integer in a file, ``None`` if there is no such file or it holds something else, such as "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
