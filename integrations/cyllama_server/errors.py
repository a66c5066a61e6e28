"""Errors in the form of the APIs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cyllama import (
    BusyError,
    ConfigError,
    ContextMemoryError,
    ContextSizeError,
    CyllamaError,
    EmbeddingCancelledError,
    ImageError,
    ModelLoadError,
    ModelNotFoundError,
    SessionError,
    UnsupportedModelError,
)

logger = logging.getLogger("cyllama.server")

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


class ApiError(Exception):
    """An error that a client gets.

    Attributes:
        status: The status of HTTP.
        message: What went wrong, and the way out.
        code: OpenAI's code of it.
        param: The field of the request that it is about.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """The type of the error, as Anthropic's API calls it; OpenAI's has most of these, too."""
        return _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")

    def to_openai(self) -> dict[str, Any]:
        """Return the body of OpenAI's API."""
        kind = self.kind if self.status not in (404, 413) else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def to_anthropic(self) -> dict[str, Any]:
        """Return the body of Anthropic's API."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}}

    def body(self, path: str) -> dict[str, Any]:
        """Return the body in the form of the API that a path belongs to."""
        return self.to_anthropic() if path.startswith("/v1/messages") else self.to_openai()


def too_busy(message: str, seconds: float) -> ApiError:
    """Return the error of a request that may come again after some seconds."""
    headers = {"Retry-After": str(max(1, round(seconds)))}
    return ApiError(429, message, code="rate_limit_exceeded", headers=headers)


def cancelled() -> ApiError:
    """Return the error of a request whose answer was cancelled by the server."""
    return ApiError(503, "the server ended the answer: it shuts down, or the session was deleted", code="cancelled")


def as_api_error(error: Exception) -> ApiError | None:
    """Return what a client is told of an error; `None` for one that is the server's own fault."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ValidationError):
        return _invalid(error)
    if isinstance(error, ContextSizeError):
        return ApiError(400, str(error), code="context_length_exceeded", param="messages")
    if isinstance(error, ContextMemoryError):
        return ApiError(503, str(error), code="out_of_memory", headers={"Retry-After": "5"})
    if isinstance(error, BusyError):
        return too_busy(str(error), 1)
    if isinstance(error, EmbeddingCancelledError):
        return cancelled()
    if isinstance(error, (ModelLoadError, ModelNotFoundError)):
        return ApiError(503, f"the model cannot be loaded: {error}", code="model_not_available")
    if isinstance(error, UnsupportedModelError):
        return ApiError(400, str(error), code="unsupported_model", param="model")
    if isinstance(error, ImageError):
        return ApiError(400, str(error), code="invalid_image", param="messages")
    if isinstance(error, SessionError):
        return ApiError(409, str(error), code="session_conflict")
    if isinstance(error, ConfigError):
        message = str(error).replace("GenerationConfig.", "")
        return ApiError(400, message, code="invalid_value", param=_param(message))
    if isinstance(error, CyllamaError) and isinstance(error, (ValueError, TypeError)):
        return ApiError(400, str(error), code="invalid_value", param=_param(str(error)))
    return None


def explain(error: Exception) -> ApiError:
    """Return what a client is told of any error. One that is the server's own fault is logged, without its message."""
    found = as_api_error(error)
    if found is None:
        place = (type(error), RuntimeError("(its message may have a part of a prompt)"), error.__traceback__)
        logger.error("a request failed: %s", type(error).__name__, exc_info=place)
        found = ApiError(500, f"the server failed: {type(error).__name__}", code="internal_error")
    return found


def _param(message: str) -> str | None:
    """Return the field that a message begins with, if it does."""
    found = re.match(r"([^\W\d]\w*)[:=]", message)  # "top_k: ...", or "speculation='draft' ..."
    return None if found is None else found[1]


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(str(part) for part in first["loc"]) or None
    what = first["msg"][0].lower() + first["msg"][1:]
    message = f"{param}: {what}, not {first['input']!r:.80}" if param else what
    return ApiError(400, message, code="invalid_type" if "type" in first["type"] else "invalid_value", param=param)
