"""`/v1/sessions`: the sessions of a client, to see, fork, save, load and delete."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import SessionLease

from .connection import read_body
from .conversations import MOST_CHARACTERS
from .errors import ApiError
from .models import LoadedModel
from .server import Server, server_of
from .sessions import Asked, KnownSession
from .tenants import Tenant

router = APIRouter()

Name = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS)]
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)


class ForkRequest(BaseModel):
    """What a fork is called."""

    model_config = ConfigDict(strict=True)

    conversation: Name


class SaveRequest(BaseModel):
    """Where a session is saved."""

    model_config = ConfigDict(strict=True)

    file: str


class LoadRequest(SaveRequest):
    """What is loaded, and what its conversation is called."""

    conversation: Name
    model: str | None = None


class _Found(NamedTuple):
    model: LoadedModel
    session: KnownSession


@router.get("/v1/sessions", response_model=None)
async def list_sessions(request: Request) -> Response:
    """List the sessions of the client's tenant, the latest of each model first."""
    server = server_of(request)
    found = _all(server, server.identify(request))
    return JSONResponse({"object": "list", "data": [_describe(each) for each in found]})


@router.get("/v1/sessions/{name:path}", response_model=None)
async def get_session(request: Request, name: str) -> Response:
    """Describe a session, by its id or by the name of its conversation."""
    server = server_of(request)
    return JSONResponse(_describe(_find(server, server.identify(request), name)))


@router.delete("/v1/sessions/{name:path}", response_model=None)
async def delete_session(request: Request, name: str) -> Response:
    """Forget a session, or all sessions of a conversation; what they generate ends."""
    server = server_of(request)
    tenant = server.identify(request)
    model, session = _find(server, tenant, name)
    if name == session.id:
        model.llm.reset_context(session=session.name)
    else:
        model.pool.reset(session.conversation, tenant=tenant.id)
    return JSONResponse({"id": name, "object": "session.deleted", "deleted": True})


@router.post("/v1/sessions/load", response_model=None)
async def load_session(request: Request) -> Response:
    """Make a conversation of a file that a session was saved to."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, LoadRequest)
    path = _path(server, tenant, body.file)
    if not path.is_file():
        raise ApiError(404, f"there is no file {body.file!r:.140}", code="file_not_found", param="file")
    async with server.models.keep_loaded(body.model) as model, _reserved(model, tenant, body.conversation) as lease:
        await asyncio.to_thread(model.llm.load_session, path, lease.name)
        found = _note(model, tenant, body.conversation, lease)
        found.session.saved = body.file
        return JSONResponse(_describe(found))


@router.post("/v1/sessions/{name:path}/fork", response_model=None)
async def fork_session(request: Request, name: str) -> Response:
    """Make another conversation that holds the same, and goes on by itself. Nothing is evaluated again."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, ForkRequest)
    model, session = _find(server, tenant, name)
    async with server.models.keep_loaded(model.name), _reserved(model, tenant, body.conversation) as lease:
        model.llm.session(session.name).fork(lease.name)
        return JSONResponse(_describe(_note(model, tenant, body.conversation, lease)))


@router.post("/v1/sessions/{name:path}/save", response_model=None)
async def save_session(request: Request, name: str) -> Response:
    """Write a session to a file in the server's folder."""
    server = server_of(request)
    tenant = server.identify(request)
    body = await read_body(request, SaveRequest)
    path = _path(server, tenant, body.file)
    model, session = _find(server, tenant, name)
    async with server.models.keep_loaded(model.name):
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(model.llm.session(session.name).save, path)
        session.saved = body.file
    return JSONResponse(_describe(_Found(model, session)) | {"file": body.file, "bytes": path.stat().st_size})


def _all(server: Server, tenant: Tenant) -> list[_Found]:
    models = [served.loaded for served in server.models.served.values() if served.loaded is not None]
    return [_Found(model, session) for model in models for session in model.sessions.of(tenant)]


def _find(server: Server, tenant: Tenant, name: str) -> _Found:
    """Return the session of an id, or the latest one of a conversation."""
    found = next((each for each in _all(server, tenant) if name in (each.session.id, each.session.conversation)), None)
    if found is None:
        raise ApiError(404, f"there is no session {name!r:.80}: GET /v1/sessions lists them", code="session_not_found")
    return found


def _reserved(model: LoadedModel, tenant: Tenant, conversation: str) -> SessionLease:
    """Return a lease of a session for a conversation that does not exist yet."""
    known = model.sessions.of(tenant)
    if any(session.conversation == conversation for session in known):
        raise ApiError(
            409, f"there is a conversation {conversation!r:.80} already: take another name", code="session_conflict"
        )
    return model.pool.lease([], conversation, tenant=tenant.id)


def _note(model: LoadedModel, tenant: Tenant, conversation: str, lease: SessionLease) -> _Found:
    return _Found(model, model.sessions.note(str(lease.name), Asked(tenant, conversation, [], {})))


def _path(server: Server, tenant: Tenant, file: str) -> Path:
    """Return the path of a file of a tenant."""
    folder = server.settings.session_dir
    if folder is None:
        raise ApiError(403, "sessions are not saved here: start the server with --session-dir", code="no_session_dir")
    if not _FILE.fullmatch(file):
        raise ApiError(
            400, f"the name of a file is 1 to 128 letters, digits, or any of . _ -, not {file!r:.80}", param="file"
        )
    return folder / (tenant.id or "all") / file


def _describe(found: _Found) -> dict[str, Any]:
    model, session = found
    return {
        "id": session.id,
        "object": "session",
        "conversation": session.conversation,
        "model": model.name,
        "tokens": model.llm.session(session.name).tokens,
        "requests": session.n_requests,
        "created_at": int(session.created),
        "last_used_at": int(session.last_used),
    }
