"""The application: routes, what is checked before them, and its begin and end."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cyllama import CyllamaError, __version__

from . import chat, completions, embeddings, live, messages, native, responses, session_routes, tokens
from .connection import ClientGoneError, prompt_logger
from .errors import ApiError, explain
from .middleware import Guard, Observer
from .server import Server
from .settings import ServerSettings

_EVERYWHERE = ("0.0.0.0", "::", "")
_ROUTERS = tuple(
    each.router for each in (chat, completions, embeddings, messages, native, responses, session_routes, tokens)
)


def create_app(settings: ServerSettings | None = None) -> FastAPI:
    """Return the application that serves the models of some settings, for any server of ASGI.

    >>> app = create_app(ServerSettings(preload=False))
    >>> app.title
    'cyllama'

    Args:
        settings: What it is configured with; by default what the environment says.
    """
    settings = settings or ServerSettings()
    # Not by `disabled`: uvicorn configures logging when it starts, which enables all loggers again.
    prompt_logger.setLevel(logging.INFO if settings.log_prompts else logging.CRITICAL + 1)
    server = Server(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.preload:
            async with server.models.keep_loaded(None):
                pass
        yield
        await server.close()

    app = FastAPI(title="cyllama", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    for router in _ROUTERS:
        app.include_router(router)
    if settings.page:
        app.include_router(live.router)
    for kind in (HTTPException, ApiError, CyllamaError, ValidationError):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(ClientGoneError, _client_gone)
    _add_middleware(app, server)
    return app


def _add_middleware(app: FastAPI, server: Server) -> None:
    """Put around the routes what is checked before them; what is added last is asked first."""
    settings = server.settings
    hosts = None if settings.host in _EVERYWHERE else [settings.host, *settings.allowed_host]
    if settings.host in _EVERYWHERE and settings.allowed_host:
        hosts = settings.allowed_host
    limits = {"max_body": int(settings.max_body_mb * 2**20), "max_body_s": settings.max_body_s}
    app.add_middleware(Guard, hosts=hosts, origins=settings.cors_origin, **limits)
    if settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Observer, metrics=server.metrics)


async def _refuse(request: Request, error: Exception) -> Response:
    """Return an error in the form of the API that the request is for."""
    if isinstance(error, HTTPException):
        error = ApiError(error.status_code, _http_message(request, error), headers=error.headers)
    found = explain(error)
    body: dict[str, Any] = found.body(request.url.path)
    return JSONResponse(body, found.status, found.headers)


def _http_message(request: Request, error: HTTPException) -> str:
    where = f"{request.method} {request.url.path[:200]}"
    return {404: f"there is no {where}", 405: f"{where} is not possible: another method is"}.get(
        error.status_code, str(error.detail)
    )


async def _client_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
