"""Where models come from, and tiny-chat, the one that is embedded."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigTypeError, ModelNotFoundError

TINY_CHAT = Path(__file__).parent / "tiny-chat.gguf"


def resolve_model_path(model_path: str | os.PathLike[str] | None) -> Path:
    """Return the file to load: ``None`` stands for the embedded model, ``~`` for the home folder.

    Raises:
        ConfigTypeError: It is not a path.
        ModelNotFoundError: The path is empty, or not valid text for a file system.
    """
    if model_path is None:
        return TINY_CHAT
    try:
        path = os.fsdecode(model_path)
    except TypeError:
        raise ConfigTypeError(f"a model path is a str or a Path, not {type(model_path).__name__}") from None
    try:
        path.encode()
    except UnicodeEncodeError:
        path = ""
    if not path:
        raise ModelNotFoundError(f"there is no model file at {model_path!r}")
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for an unknown user
