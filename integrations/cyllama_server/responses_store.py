"""Responses that may be continued."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ApiError
from .tenants import Tenant

logger = logging.getLogger("cyllama.server")

MOST_RESPONSES = 1024
"""How many are kept of each tenant; those that were unused for longest are forgotten."""

MOST_BYTES = 256 << 20
"""How many bytes of JSON they have at most, which images are a part of; the latest one is kept however large it is."""

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
        self._of_tenant: dict[Tenant, OrderedDict[str, _Kept]] = {}
        self._writer = None if folder is None else ThreadPoolExecutor(1, "cyllama-responses")
        self._writing: list[Future[None]] = []  # the latest write, which follows all others

    async def find(self, tenant: Tenant, response_id: str, *, status: int = 404) -> StoredResponse:
        """Return the response of an id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        kept = self._kept(tenant)
        found = kept[response_id].response if response_id in kept else None
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
            kept[response_id] = kept[response_id]._replace(response=found)
            kept.move_to_end(response_id)
        return found

    def add(self, tenant: Tenant, response: StoredResponse) -> None:
        """Keep a response. Its file is written by another thread."""
        response_id, text = response.body["id"], json.dumps(response._asdict())
        self._write(tenant, response_id, text)
        if self._shared:
            return
        kept = self._kept(tenant)
        kept[response_id] = _Kept(len(text), response)
        n_bytes = sum(each.n_bytes for each in kept.values())
        while len(kept) > MOST_RESPONSES or (n_bytes > MOST_BYTES and len(kept) > 1):
            old_id, old = kept.popitem(last=False)
            n_bytes -= old.n_bytes
            self._write(tenant, old_id, None)

    async def remove(self, tenant: Tenant, response_id: str) -> None:
        """Forget a response, if there is one of that id.

        Raises:
            ApiError: No response has this id, or it is another tenant's.
        """
        await self.find(tenant, response_id)
        self._kept(tenant).pop(response_id, None)
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

    def _kept(self, tenant: Tenant) -> OrderedDict[str, _Kept]:
        kept = self._of_tenant.get(tenant)
        if kept is None:
            has_files = self._folder is not None and not self._shared
            files = self._path(tenant, "*").parent.glob("*.json") if has_files else ()
            found = sorted((*_time_and_size(file), file.stem) for file in files)
            kept = self._of_tenant[tenant] = OrderedDict((name, _Kept(size, None)) for _, size, name in found)
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

    def _write(self, tenant: Tenant, response_id: str, text: str | None) -> None:
        if self._writer is not None:
            self._writing = [self._writer.submit(_write_file, self._path(tenant, response_id), text)]


def _write_file(path: Path, text: str | None) -> None:
    """Write a file as a whole; without a text, remove it."""
    try:
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:  # unless servers share the folder, the response is still in memory
        logger.warning("the file of the response %s cannot be written: %s", path.stem, type(error).__name__)


def _time_and_size(path: Path) -> tuple[float, int]:
    try:
        status = path.stat()
    except OSError:  # another server has just removed it
        return 0.0, 0
    return status.st_mtime, status.st_size
