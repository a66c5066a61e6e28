"""Projectors, which make embeddings of images: files of their own, beside the models that they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import ModelNotFoundError
from .names import parse_name, quantization_of
from .paths import expand_user, path_exists
from .place import Place, PlacedPath

AUTO = "auto"
_MARK = "mmproj"  # what llama.cpp knows the names of projectors by


class _Cached(NamedTuple):
    """A model's file in the cache of the hub: its repository, commit and name there, and the cache."""

    repo: str
    commit: str
    file: str
    cache: Path


def resolve_projector(projector: str | os.PathLike[str], model: Path) -> Path:
    """Return the file of a model's projector.

    Args:
        projector: Its path; a name on the hub, ``hf:owner/repo/mmproj-F16.gguf``; or "auto" for the one beside the
            model: in its folder, or in its repository on the hub, from which it is downloaded if it is not cached.
        model: The file of the model; of a split one, the first file. A :class:`PlacedPath` says with
            what token, and whether it may be downloaded.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelDownloadError: It cannot be downloaded.
    """
    text = os.fspath(projector)
    if text == AUTO:
        return _found_with(model)
    path = Path(expand_user(text))
    name = None if path_exists(path) else parse_name(text)
    if name is None or name.file is None:
        return path
    from .hub import find, require_library  # here, since a path does without

    require_library()
    return find(name, _place_of(model)._replace(revision=None))


def _found_with(model: Path) -> Path:
    cached = _in_cache(model)
    if cached is not None:
        return _of_repository(cached, _place_of(model))
    name = choose_projector((each.name for each in model.parent.glob("*.gguf")), model.name)
    if name is None:
        raise ModelNotFoundError(
            f"projector='auto': there is no file *{_MARK}*.gguf beside {str(model)!r}: give the path of the projector"
        )
    return model.with_name(name)


def _place_of(model: Path) -> Place:
    return model.place if isinstance(model, PlacedPath) else Place()


def _in_cache(model: Path) -> _Cached | None:
    """Return what the path of a file in the cache says of it; ``None`` for other paths."""
    parts = model.parts
    for i in range(len(parts) - 3):
        if parts[i].startswith("models--") and parts[i + 1] == "snapshots":
            repo = parts[i].removeprefix("models--").replace("--", "/")
            return _Cached(repo, parts[i + 2], "/".join(parts[i + 3 :]), Path(*parts[:i]))
    return None


def _of_repository(model: _Cached, found_in: Place) -> Path:
    from .cache import repository_folder
    from .hub import require_library

    snapshot = repository_folder(model.cache, model.repo) / "snapshots" / model.commit
    there = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf")]
    if (name := choose_projector(there, model.file)) is not None:
        return snapshot / name
    require_library()
    place = found_in._replace(revision=model.commit, cache_dir=model.cache)
    if place.offline:
        raise ModelNotFoundError(
            f"the projector of {model.repo!r} is not in the cache at {str(model.cache)!r}, and "
            "local_files_only or HF_HUB_OFFLINE forbids to download it"
        )
    from .download import UnreachableError, download, list_files

    try:
        repository = list_files(model.repo, place)
    except UnreachableError as error:
        raise ModelNotFoundError(f"{error}, and the projector of {model.repo!r} is not in the cache") from error
    name = choose_projector(repository.files, model.file)
    if name is None:
        raise ModelNotFoundError(f"{model.repo!r} has no projector for {model.file!r}: no file of it is named {_MARK}")
    return download(repository, [name], place)


def choose_projector(files: Iterable[str], model: str) -> str | None:
    """Return the projector for a model among files of its repository; ``None`` if it has no projector.

    As in llama.cpp, it is in the folder of the model or one above: the deepest counts, then the quantization whose
    number of bits is nearest to the model's, then the order of the files.

    >>> choose_projector(["mmproj-F16.gguf", "mmproj-Q8_0.gguf"], "model-Q4_K_M.gguf")
    'mmproj-Q8_0.gguf'

    Args:
        files: Names of files, with their folders.
        model: The file of the model.
    """
    folders = model.split("/")[:-1]
    bits = _bits(model)
    found = [
        name
        for name in sorted(files)
        if name.endswith(".gguf") and _MARK in name and name.split("/")[:-1] == folders[: name.count("/")]
    ]
    return min(found, key=lambda name: (-name.count("/"), abs(_bits(name) - bits)), default=None)


def _bits(name: str) -> int:
    """Return the number in the name of a file's quantization, or 0."""
    found = re.search(r"\d+", quantization_of(name))
    return int(found[0]) if found else 0
