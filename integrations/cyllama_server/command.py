"""`cyllama serve`."""

from __future__ import annotations

import inspect
import logging
import math
import ssl
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import uvicorn
from pydantic import SecretStr, ValidationError

from cyllama import ConfigError, CyllamaError

from .app import create_app
from .errors import ApiError
from .settings import ServerSettings, read_settings

_FAILED = "lifespan.startup.failed"
_IDLE_S = 75  # a connection may rest: httpx and proxies rest theirs for 5 to 60 seconds, and have to be who closes it
_SECRETS = ("api_key", "admin_key")  # what is in no message


def make_command(doc: str) -> Callable[..., None]:
    """Return the command, whose flags are the settings.

    Args:
        doc: What its help begins with.
    """

    def serve(**flags: Any) -> None:
        file = flags.pop("config", None)
        given = {name: value for name, value in flags.items() if value not in (None, [])}
        try:
            settings = read_settings(file, **given)
        except ValidationError as error:
            raise ConfigError(_describe(error)) from None
        except (OSError, TypeError, ValueError) as error:  # TypeError: a file that holds a list
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot read the settings in {str(file)!r}: {reason}") from None
        run(settings)

    keyword = inspect.Parameter.KEYWORD_ONLY
    config = typer.Option(None, help="A file of settings, TOML or JSON, by the names of the flags with underscores.")
    parameters = [inspect.Parameter("config", keyword, default=config, annotation=Path | None)]
    for name, field in ServerSettings.model_fields.items():
        default = field.get_default()
        shown = default if isinstance(default, (int, float, str)) and not isinstance(default, bool) else None
        text = f"{field.description or ''} Variable: CYLLAMA_{name.upper()}."
        if shown is not None:
            text += f" Default: {shown}."
        option = typer.Option(None, f"--{_flag(name, field.annotation)}", help=text)
        parameters.append(inspect.Parameter(name, keyword, default=option, annotation=_flag_type(field.annotation)))
    serve.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess] - typer reads it
    serve.__annotations__ = {each.name: each.annotation for each in parameters}
    serve.__doc__ = doc
    return serve


def run(settings: ServerSettings) -> None:
    """Serve until a signal ends it: running answers have `shutdown_s` seconds to end.

    Raises:
        CyllamaError: The server cannot start, since its first model cannot be loaded, or TLS has no valid files.
    """
    _check_tls(settings)
    app = _Startup(create_app(settings))
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("cyllama.server").setLevel(settings.log_level.upper())
    try:
        _run(app, settings)
    except SystemExit:
        if app.error is None:
            raise
        raise ConfigError(f"the server does not start: {app.error}") from app.error


def _run(app: Any, settings: ServerSettings) -> None:
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,  # the server has a log of its own
        server_header=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key and str(settings.tls_key),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_s),
        timeout_keep_alive=_IDLE_S,
        ws="none",
        http="h11",  # httptools, where it is installed, has no limit for the size of headers
    )


class _Startup:
    """The app, whose start may fail by an error for a person: that is kept, and no traceback is logged.

    Attributes:
        error: The error, if there was one.
    """

    def __init__(self, app: Any) -> None:
        self.error: Exception | None = None
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_briefly(message: Any) -> None:
            await send({"type": message["type"], "message": ""} if message["type"] == _FAILED else message)

        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send_briefly)
        except (CyllamaError, ApiError) as error:
            self.error = error


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # ssl.SSLError is one
        files = f"tls_cert={str(settings.tls_cert)!r} and tls_key={str(settings.tls_key)!r}"
        raise ConfigError(f"{files} are not a certificate and its key, PEM files: {error.strerror or error}") from None


def _flag(name: str, annotation: Any) -> str:
    flag = name.replace("_", "-")
    return f"{flag}/--no-{flag}" if annotation is bool else flag


def _flag_type(annotation: Any) -> Any:
    """Return the type of a flag: that of a setting, or `None` where the flag is not given."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        return list[str]
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] or [annotation]
    kind = str if kinds[0] is SecretStr else kinds[0]
    return Union[kind, None] if not isinstance(kind, types.UnionType) else kind  # noqa: UP007 - a value


def _describe(error: ValidationError) -> str:
    lines = []
    for each in error.errors(include_url=False, include_context=False):
        name = ".".join(str(part) for part in each["loc"])
        text = each["msg"].removeprefix("Value error, ")
        text = f"{text[:1].lower()}{text[1:]}"
        if name not in ("", *_SECRETS) and isinstance(each["input"], (str, int, float, Path)):
            value = each["input"]
            text += f", not {str(value) if isinstance(value, Path) else value!r:.80}"
        lines.append(f"{name}: {text}" if name else text)
    return "; ".join(lines)
