"""Where models come from, and tiny-chat, the one that is embedded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import ConfigTypeError, CyllamaError, ModelNotFoundError
from .paths import expand_user, path_exists
from .place import Place, PlacedPath

__all__ = [
    "TINY_CHAT",
    "expand_user",
    "hub_file",
    "path_exists",
    "resolve_model_path",
]

#: Texts for which an error says how names look: "hf:...", addresses, and names as other programs have them, "name:tag".
_MEANT_AS_A_NAME = re.compile(r"hf:|\w+://|[\w.-]{2,}:[\w.-]+$")
TINY_CHAT = Path(__file__).parent / "tiny-chat.gguf"


def hub_file(
    repo_id: str,
    filename: str | None,
    revision: str | None,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> os.PathLike[str]:
    """Return the path of a file on the hub; the arguments are those of :class:`HubFile` and :class:`Place`."""
    from .hub import HubFile  # here, since the path of a file on the disk does without

    return HubFile(repo_id, filename, Place(revision, token, cache_dir, local_files_only))


def resolve_model_path(model_path: str | os.PathLike[str] | None) -> Path:
    """Return the file to load: ``None`` stands for the embedded model, ``~`` for the home folder.

    A ``str`` that is not the path of anything may name a model on the hub, which is downloaded if it is not in
    the cache.

    Raises:
        ConfigTypeError: It is not a path.
        ModelNotFoundError: The path is empty, or not valid text for a file system, or no model has that name.
        ModelAccessError: The model's repository is private.
        ModelDownloadError: The model cannot be downloaded.
    """
    if model_path is None:
        return TINY_CHAT
    try:
        path = os.fsdecode(model_path)
    except CyllamaError:  # of a HubFile
        raise
    except TypeError:
        raise ConfigTypeError(f"a model path is a str or a Path, not {type(model_path).__name__}") from None
    try:
        path.encode()
    except UnicodeEncodeError:
        path = ""
    if not path:
        raise ModelNotFoundError(f"there is no model file at {model_path!r}")
    expanded = Path(expand_user(path))
    place = getattr(model_path, "place", None)  # of a HubFile
    if place is not None:
        return PlacedPath.of(expanded, place)
    if not isinstance(model_path, str) or path_exists(expanded):
        return expanded
    from .hub import find_model  # here, since a path does without
    from .names import parse_name

    if parse_name(path) is not None or _MEANT_AS_A_NAME.match(path):
        return find_model(path)
    return expanded
