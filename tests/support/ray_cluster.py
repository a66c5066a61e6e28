"""A local cluster of Ray in a process of its own, with the application of `ray_cyllama`.

As a program, it starts the cluster and does what the lines on its standard input say. So no test imports Ray, whose
imports warn.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from typing_extensions import Self

SECONDS = 240  # after which something hangs


class RayCluster:
    """The cluster; leaving the `with` block ends it.

    Args:
        folder: For what it writes.
        **arguments: Arguments of `build_app`, with `settings` as those of `ServerSettings`.

    Attributes:
        url: Where it listens.
        http: A client of it.
    """

    def __init__(self, folder: Path, **arguments: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder / "ray.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # By default, Ray's processes have a niceness of 15.
                env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"},
            )
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS)
        self._arguments = arguments
        self._do("run", arguments)

    def change(self, **arguments: Any) -> None:
        """Change some arguments of `build_app`; those that are not given are as at the begin."""
        self._do("run", self._arguments | arguments)

    def replicas(self) -> list[dict[str, Any]]:
        """Describe all replicas."""
        return self._do("describe", {})

    def kill(self, replica: str) -> None:
        """End a replica as a machine without memory or without power does."""
        [pid] = [each["pid"] for each in self.replicas() if each["replica"] == replica]
        os.kill(pid, signal.SIGKILL)

    def wait_for_replicas(self, number: int) -> list[dict[str, Any]]:
        """Wait until there are so many replicas, and return them."""
        return self.wait_for(lambda replicas: len(replicas) == number)

    def wait_for(self, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait until something is true of the replicas, and return them."""
        deadline = time.monotonic() + SECONDS
        while not condition(found := self.replicas()):
            assert time.monotonic() < deadline, f"there are {found}: {self._log.read_text()[-4000:]}"
            time.sleep(0.2)
        return found

    def _do(self, command: str, arguments: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        hanging = threading.Timer(SECONDS, self._process.kill)  # which ends the lines
        hanging.start()
        for line in self._process.stdout:
            if line.startswith("done "):
                hanging.cancel()
                return json.loads(line.removeprefix("done "))
        raise AssertionError(f"the cluster ended: {self._log.read_text()[-4000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(SECONDS)
        self._process.stdout.close()


def main() -> None:
    """Start a cluster, do what the lines say, and end it."""
    import ray  # pyright: ignore[reportMissingImports] - types are also checked where Ray is not installed
    from ray import serve  # pyright: ignore[reportMissingImports] - the same

    from cyllama_server import ServerSettings
    from ray_cyllama import build_app

    ray.init(num_cpus=8, object_store_memory=100 * 2**20, include_dashboard=False, logging_level=30)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    try:
        for line in sys.stdin:
            command, arguments = json.loads(line)
            found: Any = None
            if command == "run":
                replicas = arguments.pop("replicas")
                replicas = tuple(replicas) if isinstance(replicas, list) else replicas
                settings = ServerSettings(**arguments.pop("settings"))
                serve.run(build_app(settings, replicas=replicas, **arguments))
            else:
                handles = [serve.get_deployment_handle(name, "default") for name in _models(serve)]
                answers = [handle.broadcast("describe").results(return_exceptions=True) for handle in handles]
                found = [each for answer in answers for each in answer if isinstance(each, dict)]
            print("done", json.dumps(found), flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()


def _models(serve: Any) -> list[str]:
    return [name for name in serve.status().applications["default"].deployments if name != "ingress"]


if __name__ == "__main__":
    main()
