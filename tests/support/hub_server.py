"""A server on this machine that speaks the hub's protocol, with repositories and faults as a test wants them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

TOKEN = "a token that may read everything"


@dataclass
class Repository:
    """A repository.

    Attributes:
        files: Its files by name.
        private: Whether only those see it who have the token.
        gated: Whether only those may have its files.
        checksums: Of files, others than they have.
        sizes: Of files, others than they have.
        commit: The commit of the main branch.
    """

    files: dict[str, bytes]
    private: bool = False
    gated: bool = False
    checksums: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    commit: str = "1" * 40

    def checksum(self, name: str) -> str:
        """Return what the hub says of a file: its SHA-256, or git's SHA-1 of a file that is not large."""
        data = self.files[name]
        computed = hashlib.sha256(data) if is_large(name) else hashlib.sha1(b"blob %d\0" % len(data) + data)
        return self.checksums.get(name, computed.hexdigest())

    def size(self, name: str) -> int:
        """Return the bytes of a file, as the hub says."""
        return self.sizes.get(name, len(self.files[name]))


class Request(NamedTuple):
    """What a client asked for."""

    method: str
    path: str
    range: str | None


class Hub:
    """The hub.

    Attributes:
        repositories: What it has, by name.
        requests: What it was asked for.
        broken_at: Of downloads to come, after how many bytes each one breaks.
        refuses: The HTTP status of every answer; 0 where it answers.
        refuses_downloads: The same for downloads only.
        not_a_hub: Whether it answers everything with a page, as a proxy does before a log-in.
        stall_at: After how many bytes a download waits until ``go_on`` is set; ``stalled`` is set then.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.broken_at: list[int] = []
        self.refuses = self.refuses_downloads = 0
        self.not_a_hub = False
        self.stall_at: int | None = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.address = ""

    @property
    def downloads(self) -> list[Request]:
        """The downloads among the requests."""
        return [request for request in self.requests if request.method == "GET" and "/resolve/" in request.path]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Let a hub answer on a port of this machine."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def is_large(name: str) -> bool:
    """Whether a file is kept apart from git, as large ones are."""
    return name.endswith(".gguf") and "small" not in name


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, self.headers["Range"]))
        if self.hub.refuses:
            return self._send(self.hub.refuses)
        if self.hub.refuses_downloads and "/resolve/" in path:
            return self._send(self.hub.refuses_downloads)
        if self.hub.not_a_hub:
            return self._send(200, {"Content-Type": "text/html"}, b"<p>Log in first.</p>")
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        repository = self._visible(name)
        if repository is None:
            return None
        if path.startswith("/api/models/"):
            revision = path.partition("/revision/")[2]
            return self._describe(name, repository, revision or "main")
        revision, _, file = path.partition("/resolve/")[2].partition("/")
        if file not in repository.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        if repository.gated and not self._has_token():
            return self._send(403, {"X-Error-Code": "GatedRepo"})
        return self._deliver(repository, file, with_body=with_body)

    def _has_token(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def _visible(self, name: str) -> Repository | None:
        """Return a repository, or answer that there is none. Without a token, private ones look as missing ones do."""
        repository = self.hub.repositories.get(name)
        if self.headers["Authorization"] is not None and not self._has_token():
            self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        if repository is None or (repository.private and not self._has_token()):
            self._send(404 if self._has_token() else 401, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _describe(self, name: str, repository: Repository, revision: str) -> None:
        if revision not in ("main", repository.commit):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        siblings = []
        for file in repository.files:
            checksum, size = repository.checksum(file), repository.size(file)
            sibling = {"rfilename": file, "size": size, "blobId": checksum}
            if is_large(file):
                sibling["lfs"] = {"sha256": checksum, "size": size, "pointerSize": 100}
            siblings.append(sibling)
        body = json.dumps({"id": name, "sha": repository.commit, "siblings": siblings}).encode()
        return self._send(200, {"Content-Type": "application/json"}, body)

    def _deliver(self, repository: Repository, name: str, *, with_body: bool) -> None:
        data = repository.files[name]
        checksum = repository.checksum(name)
        headers = {"ETag": f'"{checksum}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if is_large(name):
            headers |= {"X-Linked-Etag": f'"{checksum}"', "X-Linked-Size": str(repository.size(name))}
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._send(206 if start else 200, headers, data[start:], with_body=with_body)

    def _send(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if "ETag" in (headers or {}) and self.hub.broken_at:
            body = body[: self.hub.broken_at.pop(0)]
        if "ETag" in (headers or {}) and self.hub.stall_at is not None:
            self.wfile.write(body[: self.hub.stall_at])
            self.hub.stalled.set()
            self.hub.go_on.wait()
            return
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the client has gone
            return
