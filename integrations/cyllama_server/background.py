"""A server in a thread of the program, for notebooks and tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from .app import create_app
from .settings import ServerSettings


@contextmanager
def serving(settings: ServerSettings | None = None, **given: Any) -> Iterator[str]:
    """Serve in a thread until the `with` block ends.

    >>> import httpx
    >>> with serving(port=0) as url:
    ...     httpx.get(f"{url}/health").json()
    {'status': 'ok'}

    Args:
        settings: What the server is configured with.
        **given: Settings by their names, where there are no `settings`.

    Yields:
        The URL of the server, without `/v1`.

    Raises:
        ValueError: A setting is not valid.
        RuntimeError: The server cannot start: the port is in use, or the model cannot be loaded.
    """
    settings = settings or ServerSettings(**given)
    config = uvicorn.Config(
        create_app(settings), host=settings.host, port=settings.port, log_level="warning", ws="none", http="h11"
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, name="cyllama-server", daemon=True)
    thread.start()
    try:
        server.ready.wait()
        if not server.started:
            raise RuntimeError(f"the server could not start at {settings.host}:{settings.port}: see its log")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://{settings.host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """A server that says when it has started, or could not."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    def run(self, sockets: Any = None) -> None:
        """Serve until `should_exit` is set."""
        try:
            super().run(sockets)
        except SystemExit:  # its way to say that it cannot start
            return
        finally:
            self.ready.set()

    async def startup(self, sockets: Any = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        self.ready.set()
