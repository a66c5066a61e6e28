"""Install the peers, each into an environment of its own, and record their versions: build/peers/NAME.json.

It needs the standard library alone. A peer that cannot be installed is recorded with the reason; the others go on.
llama-cpp-python is compiled, for this processor and with its own defaults. The versions are pinned, so that figures of
two machines are of the same.

    python benchmarks/peers/install.py [pip's options]
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers"


class Peer(NamedTuple):
    """What pip installs, and the package whose version counts."""

    package: str
    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()


INSTALLED = {
    "llama-cpp-python": Peer(
        "llama-cpp-python",
        ("llama-cpp-python==0.3.36", "langchain-community==0.4.2", "langchain==1.4.7"),
        ("--no-binary", "llama-cpp-python"),
    ),
    "xllamacpp": Peer("xllamacpp", ("xllamacpp==2026.10.11549",), ("--only-binary", ":all:")),
    "mistralrs": Peer("mistralrs", ("mistralrs==0.9.5",), ("--only-binary", ":all:")),
    "cyllama-cython": Peer("cyllama", ("cyllama==0.2.18",), ("--only-binary", ":all:")),
}


def install(name: str, peer: Peer, pip_options: list[str]) -> dict[str, str]:
    """Install a peer; return its version or its error."""
    folder, log = PEERS / name, PEERS / f"{name}.log"
    python = folder / "bin" / "python"
    commands = [] if python.exists() else [[sys.executable, "-m", "venv", str(folder)]]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands.append([*pip, *pip_options, *peer.options, *peer.requirements])
    script = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    with log.open("w") as output:
        for command in commands:
            if subprocess.run(command, stdout=output, stderr=output).returncode != 0:
                lines = log.read_text().strip().splitlines()
                return {"error": lines[-1] if lines else f"{command[0]} failed"}
    shown = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True)
    return {"version": shown.stdout.strip()}


def main() -> None:
    """Install all of them that are not there."""
    PEERS.mkdir(parents=True, exist_ok=True)
    for name, peer in INSTALLED.items():
        record = PEERS / f"{name}.json"
        print(f"Installing {name}" + (", which is compiled: some minutes" if "--no-binary" in peer.options else ""))
        result = install(name, peer, sys.argv[1:])
        record.write_text(json.dumps(result) + "\n")
        print("  " + "".join(f"{key} {value}" for key, value in result.items()), flush=True)


if __name__ == "__main__":
    main()
