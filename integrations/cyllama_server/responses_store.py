"""Responses that may be continued."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import to_json

from .errors import ApiError
from .tenants import Tenant

logger = logging.getLogger("cyllama.server")

MOST_RESPONSES = 1024
"""How many are kept of each tenant; those that were unused for longest are forgotten."""

MOST_BYTES = 256 << 20
"""How many bytes they have at most, about those of JSON, with images; the latest one is kept however large it is."""

_MARKS = 12  # bytes of quotation marks, commas, and the names that values have

_ID = re.compile(r"resp_[0-9a-f]{8,64}", re.ASCII)


class StoredResponse(NamedTuple):
    """A response, and all that was said up to it.

    Attributes:
        body: What the client got.
        messages: The messages, those of the answer included, without instructions.
        conversation: The name of the conversation.
    """

    body: dict[str, Any]
    messages: list[dict[str, Any]]
    conversation: str | None


class _Kept(NamedTuple):
    n_bytes: int
    response: StoredResponse | None  # `None`: in its file only


class _KeptResponses:
    """The responses of one tenant, the one that was unused for longest first, and how many bytes all have."""

    def __init__(self, found: Iterable[tuple[str, int]]) -> None:
        """Begin with responses that are in files: their ids and sizes."""
        self._by_id = OrderedDict((name, _Kept(size, None)) for name, size in found)
        self._n_bytes = sum(each.n_bytes for each in self._by_id.values())

    def __contains__(self, response_id: str) -> bool:
        return response_id in self._by_id

    def find(self, response_id: str) -> StoredResponse | None:
        """Return a response, unless it is in its file only."""
        kept = self._by_id.get(response_id)
        return None if kept is None else kept.response

    def use(self, response_id: str, response: StoredResponse) -> None:
        """Keep a response in memory too, as the latest one."""
        self._by_id[response_id] = self._by_id[response_id]._replace(response=response)
        self._by_id.move_to_end(response_id)

    def add(self, response_id: str, response: StoredResponse) -> list[str]:
        """Keep one more; return the ids of those that are forgotten."""
        self.remove(response_id)
        self._by_id[response_id] = _Kept(_size_of(response), response)
        self._n_bytes += self._by_id[response_id].n_bytes
        forgotten: list[str] = []
        while len(self._by_id) > MOST_RESPONSES or (self._n_bytes > MOST_BYTES and len(self._by_id) > 1):
            forgotten.append(next(iter(self._by_id)))
            self.remove(forgotten[-1])
        return forgotten

    def remove(self, response_id: str) -> None:
        """Forget a response, if there is one of that id."""
        kept = self._by_id.pop(response_id, None)
        self._n_bytes -= 0 if kept is None else kept.n_bytes


class StoredResponses:
    """The latest responses of each tenant. An event loop uses them, and no other thread.

    Args:
        folder: Where they are written too, so that they are there after a restart; `None` for memory alone.
        shared: Whether any number of servers write to the folder. Then each response is in its file alone, which stays
            until a client deletes it: none of the servers knows what there is, and what others have removed.
    """

    def __init__(self, folder: Path | None = None, *, shared: bool = False) -> None:
        self._folder = folder
        self._shared = shared
        self._of_tenant: dict[Tenant, _KeptResponses] = {}
        self._writer = None if folder is None else ThreadPoolExecutor(1, "cyllama-responses")
        self._writing: list[Future[None]] = []  # the latest write, which follows all others

    async def find(self, tenant: Tenant, response_id: str, *, status: int = 404) -> StoredResponse:
        """Return the response of an id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        kept = self._kept(tenant)
        found = kept.find(response_id)
        if found is None:
            await self.written()
            found = await asyncio.to_thread(self._read, tenant, response_id)
        if found is None:
            otherwise = "" if status == 404 else "; send the conversation as input"
            raise ApiError(
                status,
                f"there is no response {response_id!r:.80}: it is not stored, or was forgotten{otherwise}",
                code="response_not_found" if status == 404 else "previous_response_not_found",
                param=None if status == 404 else "previous_response_id",
            )
        if response_id in kept:  # it was not removed meanwhile, nor is it another server's
            kept.use(response_id, found)
        return found

    def add(self, tenant: Tenant, response: StoredResponse) -> None:
        """Keep a response, which does not change any more. Another thread encodes it and writes its file."""
        response_id = response.body["id"]
        kept = None if self._shared else self._kept(tenant)  # before its file is there
        self._write(tenant, response_id, response)
        for old_id in [] if kept is None else kept.add(response_id, response):
            self._write(tenant, old_id, None)

    async def remove(self, tenant: Tenant, response_id: str) -> None:
        """Forget a response, if there is one of that id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        await self.find(tenant, response_id)
        self._kept(tenant).remove(response_id)
        self._write(tenant, response_id, None)
        await self.written()  # otherwise the next request might find the file

    async def written(self) -> None:
        """Wait until all that was added or removed is so in the folder as well."""
        for writing in self._writing:
            await asyncio.shield(asyncio.wrap_future(writing))  # it goes on when the request is cancelled

    def close(self) -> None:
        """Wait until all files are written."""
        if self._writer is not None:
            self._writer.shutdown()

    def _kept(self, tenant: Tenant) -> _KeptResponses:
        kept = self._of_tenant.get(tenant)
        if kept is None:
            has_files = self._folder is not None and not self._shared
            files = self._path(tenant, "*").parent.glob("*.json") if has_files else ()
            found = sorted((*_time_and_size(file), file.stem) for file in files)
            kept = self._of_tenant[tenant] = _KeptResponses((name, size) for _, size, name in found)
        return kept

    def _path(self, tenant: Tenant, response_id: str) -> Path:
        assert self._folder is not None
        return self._folder / (tenant.id or "all") / f"{response_id}.json"

    def _read(self, tenant: Tenant, response_id: str) -> StoredResponse | None:
        """Return a response of which there is a file only: from before a restart, or of another server."""
        if self._folder is None or not _ID.fullmatch(response_id):
            return None
        try:
            found = json.loads(self._path(tenant, response_id).read_text(encoding="utf-8"))
            return StoredResponse(found["body"], found["messages"], found["conversation"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("the file of the response %s cannot be read: %s", response_id, type(error).__name__)
            return None

    def _write(self, tenant: Tenant, response_id: str, response: StoredResponse | None) -> None:
        if self._writer is not None:
            self._writing = [self._writer.submit(_write_file, self._path(tenant, response_id), response)]


def _size_of(value: Any) -> int:
    """Return about how many bytes of JSON a value has, without encoding it: an image has megabytes."""
    n_bytes, found = 0, [value]
    for each in found:
        if isinstance(each, str):
            n_bytes += len(each)
        elif isinstance(each, dict):
            found.extend(each.values())
        elif isinstance(each, (list, tuple)):
            found.extend(each)
    return n_bytes + _MARKS * len(found)


def _write_file(path: Path, response: StoredResponse | None) -> None:
    """Write a file as a whole; without a response, remove it."""
    try:
        if response is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(to_json(response._asdict()))
        unfinished.replace(path)
    except (OSError, ValueError) as error:  # unless servers share the folder, the response is still in memory
        logger.warning("the file of the response %s cannot be written: %s", path.stem, type(error).__name__)


def _time_and_size(path: Path) -> tuple[float, int]:
    try:
        status = path.stat()
    except OSError:  # another server has just removed it
        return 0.0, 0
    return status.st_mtime, status.st_size
