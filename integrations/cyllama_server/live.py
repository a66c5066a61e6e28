"""`/`: a page with a chat and what the engine does, and the state that it shows."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from .errors import ApiError
from .live_state import state_of
from .server import server_of

router = APIRouter()

FOLDER = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*.*") if path.suffix in _TYPES}

#: A page runs the scripts of this server and no others: a text of a model that became markup could do nothing.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


@router.get("/", response_model=None)
async def page() -> Response:
    """Return the page."""
    return _file("index.html")


@router.get("/page/{name:path}", response_model=None)
async def page_file(name: str) -> Response:
    """Return a style, a script or a picture of the page."""
    return _file(name)


@router.get("/live/state", response_model=None)
async def live_state(request: Request) -> Response:
    """Say what the engine does: for the client's tenant, or for all with the operator's key."""
    server = server_of(request)
    viewer = server.tenants.viewer(request)
    state = state_of(server.models.served.values(), viewer)
    return JSONResponse(state, headers={"Cache-Control": "no-store"})


def _file(name: str) -> Response:
    path = _FILES.get(name)
    if path is None:
        raise ApiError(404, f"the page has no file {name!r:.80}")
    return FileResponse(path, media_type=f"{_TYPES[path.suffix]}; charset=utf-8", headers=_HEADERS)
