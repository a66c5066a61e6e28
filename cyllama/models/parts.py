"""Split models on the disk: a model in files such as ``model-00001-of-00003.gguf``."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ModelLoadError, ModelNotFoundError
from .names import parse_part


def part_paths(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files of a model, given its first one."""
    path = Path(path)
    part = parse_part(path.name)
    return [path] if part is None or part.index > 1 else [path.with_name(name) for name in part.names]


def check_parts(path: str | os.PathLike[str]) -> None:
    """Check that all files of a split model are there.

    Raises:
        ModelLoadError: The path is not the first part.
        ModelNotFoundError: A part is missing.
    """
    path = Path(path)
    part = parse_part(path.name)
    if part is None or not path.is_file():
        return
    paths = [path.with_name(name) for name in part.names]
    missing = [each for each in paths if not each.is_file()]
    if missing:
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelNotFoundError(
            f"{os.fspath(path)!r} is part {part.index} of a model in {part.count} files, and there is no "
            f"{os.fspath(missing[0])!r}{others}: put all parts into one folder"
        )
    if part.index > 1:
        raise ModelLoadError(
            f"{os.fspath(path)!r} is part {part.index} of {part.count}: a model is loaded by its first part, "
            f"{os.fspath(paths[0])!r}"
        )
