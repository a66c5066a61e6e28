"""`cyllama serve`."""

from __future__ import annotations

import inspect
import logging
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
import uvicorn
from pydantic import SecretStr, ValidationError

from .app import create_app
from .settings import ServerSettings, read_settings


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
            raise typer.BadParameter(_describe(error)) from None
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{file}: {error}") from None
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
    """Serve until a signal ends it: running answers have `shutdown_s` seconds to end."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("cyllama.server").setLevel(settings.log_level.upper())
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,  # the server has a log of its own
        server_header=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key and str(settings.tls_key),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_s),
        ws="none",
    )


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
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        name = ".".join(str(part) for part in each["loc"])
        lines.append(f"{name}: {each['msg']}" if name else each["msg"])
    return "; ".join(lines)
