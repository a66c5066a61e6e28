"""Models of a hub by their names: which files a name stands for, and where they are after a download.

The hub is that of ``huggingface_hub``, which this module needs and which is imported at the first name. Its cache, its
environment variables (``HF_HOME``, ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``) and its log-in apply.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..errors import ConfigError, ConfigTypeError, ModelDownloadError, ModelNotFoundError
from .cache import CachedModel, cached_models, find_cached
from .names import ModelName, choose, files_of, matching, models_in, name_of_address, parse_name, quantization_of
from .place import Place

INSTALL = "pip install 'huggingface_hub>=1.2,<3'"
_SHOWN = 12  # names in a message, at most
_log = logging.getLogger("cyllama")


def find_model(text: str, place: Place | None = None) -> Path:
    """Return the file of a model, which is downloaded if it is not in the cache; of a split model, the first file.

    Args:
        text: Its name: ``owner/repo``, ``owner/repo:QUANTIZATION`` or ``hf:owner/repo/file.gguf``.
        place: Where to look for it.

    Raises:
        ModelNotFoundError: There is no such model.
        ModelAccessError: Its repository is private, or its files are available on request only.
        ModelDownloadError: It cannot be downloaded.
    """
    name = parse_name(text)
    if name is None:
        meant = name_of_address(text)
        hint = f": did you mean {meant!r}?" if meant else ""
        raise ModelNotFoundError(
            f"there is no model file at {text!r}, and models on the hub are named 'owner/repo', "
            f"'owner/repo:QUANTIZATION' or 'hf:owner/repo/file.gguf'{hint}"
        )
    try:
        require_library()
        return find(name, place or Place())
    except ModelNotFoundError as error:
        raise (
            error if text.startswith("hf:") else ModelNotFoundError(f"there is no model file at {text!r}, and {error}")
        ) from error.__cause__


class HubFile(os.PathLike[str]):
    """The path of a file of a repository. It is downloaded when the path is asked for: after all arguments are checked.

    Args:
        repo_id: The repository.
        filename: The file's name or a pattern; ``None`` to choose by the quantization.
        place: Where to look for it.
    """

    def __init__(self, repo_id: str, filename: str | None, place: Place) -> None:
        self._repo_id, self._filename, self.place = repo_id, filename, place

    def __fspath__(self) -> str:
        return os.fspath(find_file(self._repo_id, self._filename, self.place))


def find_file(repo_id: str, filename: str | None, place: Place) -> Path:
    """Return a file of a repository as :func:`find_model` does, given the file's name or a pattern."""
    place.check()
    for what, value in (("repo_id", repo_id), ("filename", filename)):
        if not isinstance(value, str) and (what == "repo_id" or value is not None):
            raise ConfigTypeError(f"{what} is a str, not {type(value).__name__}: {value!r:.80}")
    name = parse_name(repo_id)
    if name is None or name.file is not None:
        raise ConfigError(f"repo_id is 'owner/repo' or 'owner/repo:QUANTIZATION', not {repo_id!r:.80}")
    if name.quantization is not None and filename is not None:
        raise ConfigError(f"repo_id={repo_id!r} and filename={filename!r} both choose a file: leave one of them out")
    require_library()
    return find(name._replace(file=filename), place)


def require_library() -> None:
    """Check that ``huggingface_hub`` is installed.

    Raises:
        ModelNotFoundError: It is not.
    """
    try:
        import huggingface_hub  # noqa: F401 - is it there?
    except ImportError as error:
        raise ModelNotFoundError(
            f"models are found by name with huggingface_hub, which is missing: {INSTALL}"
        ) from error


def find(name: ModelName, place: Place) -> Path:
    """Return the file of a model, as :func:`find_model` does."""
    from .download import UnreachableError, download, list_files

    if place.offline:
        cached = find_cached(place.cache, name, place.revision)
        if cached is None:
            raise _not_cached(name, place)
        return cached.paths[0]
    try:
        repository = list_files(name.repo, place)
    except UnreachableError as error:
        cached = find_cached(place.cache, name, place.revision)
        if cached is None:
            raise ModelDownloadError(f"{error}, and {_not_cached(name, place)}") from error.__cause__
        _log.warning("%s: using what is in the cache, %s", error, cached.paths[0])
        return cached.paths[0]
    return download(repository, choose_files(name, list(repository.files)), place)


def choose_files(name: ModelName, files: list[str]) -> list[str]:
    """Return the files of a model among those of its repository.

    Raises:
        ModelNotFoundError: There is no such model, or a part of it is missing.
        ConfigError: A pattern fits several models.
    """
    models = models_in(files)
    if name.file is not None:
        found = matching(files, name.file)
        if len(found) > 1:
            raise ConfigError(f"{name.file!r} fits {len(found)} models of {name.repo!r}: {_some(found)}. Name one")
        chosen = found[0] if found else None
    else:
        chosen = choose(models, name.quantization)
    if chosen is None:
        raise _not_there(name, models, files)
    missing = [part for part in files_of(chosen) if part not in files]
    if missing:
        raise ModelNotFoundError(
            f"{chosen!r} of {name.repo!r} has {len(files_of(chosen))} parts, and the repository has no {_some(missing)}"
        )
    return files_of(chosen)


def _not_there(name: ModelName, models: list[str], files: list[str]) -> ModelNotFoundError:
    if not models:
        kinds = sorted({Path(file).suffix for file in files if Path(file).suffix})
        return ModelNotFoundError(
            f"{name.repo!r} has no GGUF model, but {_some(kinds) or 'no files'}: look for a repository with GGUF "
            f"files, often called '{name.repo.partition('/')[2]}-GGUF', or convert the model with llama.cpp"
        )
    if name.file is not None:
        return ModelNotFoundError(f"{name.repo!r} has no file {name.file!r}: there is {_some(models)}")
    there = list(dict.fromkeys(filter(None, map(quantization_of, models)))) or models
    example = ModelName(name.repo, there[0]) if there is not models else ModelName(name.repo, file=there[0])
    return ModelNotFoundError(
        f"{name.repo!r} has no quantization {name.quantization!r}: there is {_some(there)}; take one as "
        f"{str(example)!r}"
    )


def _not_cached(name: ModelName, place: Place) -> ModelNotFoundError:
    there = [_name_of(model) for model in cached_models(place.cache, name.repo)]
    why = ", and local_files_only or HF_HUB_OFFLINE forbids to download it" if place.offline else ""
    only = f"; of this repository, there is {_some(there)}" if there else ""
    return ModelNotFoundError(
        f"{str(name)!r} is not in the cache at {str(place.cache)!r}{why}{only}: download it once with a network, as "
        f"`cyllama pull {name}` does"
    )


def _name_of(model: CachedModel) -> str:
    return model.quantization or model.file


def _some(names: list[str]) -> str:
    """Return names as a list for a message, which is cut if they are many."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
