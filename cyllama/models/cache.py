"""The models in the cache of ``huggingface_hub``, which llama.cpp and other tools read and write too.

A repository has a folder ``models--owner--repo`` there: ``blobs`` with the contents of files, ``snapshots/COMMIT`` with
a link to one of them for every file of a commit, and ``refs`` with the commits of branches.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ModelNotFoundError
from .names import ModelName, choose, files_of, matching, models_in, quantization_of

PARTIAL = ".cyllama.incomplete"  # how the names of downloads that are not complete end


class CachedModel(NamedTuple):
    """A model in the cache.

    Attributes:
        repo: Its repository, ``owner/repo``.
        file: Its file in the repository; of a split model, the first one.
        paths: All of its files.
    """

    repo: str
    file: str
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.paths)

    @property
    def quantization(self) -> str:
        """The quantization that the name says; empty if it does not."""
        return quantization_of(self.file)


def repository_folder(cache: Path, repo: str) -> Path:
    """Return the folder of a repository."""
    return cache / f"models--{repo.replace('/', '--')}"


def find_cached(cache: Path, name: ModelName, revision: str | None = None) -> CachedModel | None:
    """Return the model of that name, or ``None`` where it is not in the cache, or not all of it.

    Args:
        cache: The cache.
        name: The model.
        revision: A branch, a tag or a commit. ``None`` stands for the main branch, else the commit that was used last.
    """
    folder = repository_folder(cache, name.repo)
    for snapshot in _snapshots(folder, revision):
        models = {model.file: model for model in _models_of(snapshot, name.repo)}
        if name.file is None:
            wanted = choose(models_in(models), name.quantization)
        else:
            wanted = next(iter(matching(models, name.file)), None)
        if wanted is not None:
            return models[wanted]
    return None


def cached_models(cache: Path, repo: str | None = None) -> list[CachedModel]:
    """Return the models in the cache, or those of one repository, each once."""
    found: dict[tuple[str, str, Path], CachedModel] = {}
    for folder in sorted(cache.glob("models--*--*")) if repo is None else [repository_folder(cache, repo)]:
        owner = folder.name.removeprefix("models--").replace("--", "/")
        for snapshot in _snapshots(folder, None):
            for model in _models_of(snapshot, owner):
                found.setdefault((owner, model.file, _blob(model.paths[0])), model)
    return sorted(found.values(), key=lambda model: (model.repo.lower(), model.file))


def remove_cached(cache: Path, name: ModelName) -> list[CachedModel]:
    """Delete models: the one of a file or a quantization, or all of a repository; return what they were.

    Files that are not models, and those of other models, stay. So do the files of a name without quantization that are
    not complete only until the last model is deleted.

    Raises:
        ModelNotFoundError: There is no such model in the cache.
        OSError: A file cannot be deleted.
    """
    folder = repository_folder(cache, name.repo)
    models = cached_models(cache, name.repo)
    files = [model.file for model in models]
    if name.file is not None:
        files = matching(files, name.file)
    elif name.quantization is not None:
        files = [file for file in files if choose([file], name.quantization)]
    doomed = [model for model in models if model.file in files]
    partial = list(folder.glob(f"blobs/*{PARTIAL}")) if name == ModelName(name.repo) else []
    if not doomed and not partial:
        there = f"of {name.repo!r}, there is {', '.join(each.file for each in models)}" if models else ""
        there = there or "`cyllama models` shows what there is"
        raise ModelNotFoundError(f"there is no model {str(name)!r} in the cache at {str(cache)!r}: {there}")
    names = {name for model in doomed for name in files_of(model.file)}
    links = {path: _blob(path) for path in folder.glob("snapshots/*/**/*") if path.is_symlink() or path.is_file()}
    removed = {path for path in links if "/".join(path.relative_to(folder).parts[2:]) in names}
    kept = {blob for path, blob in links.items() if path not in removed}
    for path in [*removed, *({links[path] for path in removed} - kept), *partial]:
        path.unlink(missing_ok=True)
    _remove_empty(folder)
    return doomed


def _snapshots(folder: Path, revision: str | None) -> Iterator[Path]:
    """Yield the folders of the commits that a revision may mean, the best one first."""
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    named = [snapshots / commit] if commit and (snapshots / commit).is_dir() else []
    others: list[Path] = []
    if revision is None and snapshots.is_dir():
        others = sorted(snapshots.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    yield from named + [path for path in others if path not in named]


def _models_of(snapshot: Path, repo: str) -> Iterator[CachedModel]:
    """Yield the models of a commit of which all files are there."""
    paths = {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*") if path.is_file()}
    ggufs = sorted({files_of(name)[0] for name in paths if name.lower().endswith(".gguf")})
    for name in ggufs:
        if all(file in paths for file in files_of(name)):
            yield CachedModel(repo, name, tuple(paths[file] for file in files_of(name)))


def _blob(path: Path) -> Path:
    """Return the file that holds the content of a file of a snapshot. It may itself be a link into a shared store."""
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else path


def _remove_empty(folder: Path) -> None:
    """Delete the folders of a repository that hold nothing, and all of it where no file is left."""
    for path in sorted(folder.glob("snapshots/**/"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    if not (folder / "snapshots").is_dir() and not any((folder / "blobs").glob("*")):
        shutil.rmtree(folder, ignore_errors=True)
