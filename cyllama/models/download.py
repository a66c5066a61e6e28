"""What is asked of the hub: the files of a repository, and their contents. Needs ``huggingface_hub``."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of the library that it uses, whose name depends on the version
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_token

from ..errors import ModelAccessError, ModelDownloadError, ModelNotFoundError
from .cache import PARTIAL, repository_folder
from .place import Place
from .progress import Transfer, show_transfers

_CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class UnreachableError(Exception):
    """The hub does not answer."""


class File(NamedTuple):
    """A file of a repository.

    Attributes:
        size: Bytes; ``None`` if the hub does not say.
        etag: The name of its content in the cache: its SHA-256, or git's SHA-1 for a file that git itself stores.
    """

    size: int | None
    etag: str


class Repository(NamedTuple):
    """A repository at one commit.

    Attributes:
        name: ``owner/repo``.
        commit: The commit.
        files: What is in it, by name.
    """

    name: str
    commit: str
    files: dict[str, File]


def list_files(repo: str, place: Place) -> Repository:
    """Return what is in a repository.

    Raises:
        UnreachableError: The hub does not answer.
        ModelNotFoundError: There is no such repository or revision.
        ModelAccessError: It is private.
    """
    with _explained(repo, place):
        try:
            info = HfApi().model_info(
                repo,
                revision=place.revision,
                token=place.token,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
                files_metadata=True,
            )
        except HFValidationError:
            raise
        except HfHubHTTPError as error:
            if not _is_busy(error):
                raise
            raise UnreachableError(f"{_hub()} does not answer now ({_reason(error)})") from error
        except (HTTPError, ConnectionError, TimeoutError) as error:
            raise UnreachableError(f"{_hub()} cannot be reached ({_reason(error)})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # such as the page of a proxy
            raise UnreachableError(f"what answers at {constants.ENDPOINT} is not a hub ({_reason(error)})") from error
    files = {
        each.rfilename: File(each.size, each.lfs.sha256 if each.lfs else each.blob_id or "")
        for each in info.siblings or ()
    }
    return Repository(repo, info.sha or "", files)


def download(repository: Repository, names: Sequence[str], place: Place) -> Path:
    """Download files that are not in the cache; return the path of the first one.

    Each is checked before it gets its name in the cache. One that is not complete continues where it ended.

    Raises:
        ModelAccessError: The files may not be had.
        ModelDownloadError: They cannot be downloaded, or are damaged.
    """
    folder = repository_folder(place.cache, repository.name)
    snapshot = folder / "snapshots" / repository.commit
    needed = [name for name in names if not _is_there(snapshot / name, repository, name)]
    for name in needed:
        if not _CHECKSUM.fullmatch(repository.files[name].etag):
            raise ModelDownloadError(
                f"the hub has no checksum of {name!r} in {repository.name!r}: it is not downloaded"
            )
    with _explained(repository.name, place):
        _check_space(folder, [repository.files[name] for name in needed])
        with show_transfers() as transfers:
            for name in needed:
                _fetch(repository, name, place, transfers)
        for name in needed:
            hf_hub_download(repository.name, name, revision=repository.commit, cache_dir=place.cache, token=place.token)
        _remember(folder, place.revision or constants.DEFAULT_REVISION, repository.commit)
    return snapshot / names[0]


def _is_there(path: Path, repository: Repository, name: str) -> bool:
    """Return whether a file is in the cache.

    Raises:
        ModelDownloadError: It has another size than on the hub.
    """
    if not path.exists():
        return False
    size, wanted = path.stat().st_size, repository.files[name].size
    if wanted is not None and size != wanted:
        raise ModelDownloadError(
            f"{str(path)!r} is damaged: it has {size:,} bytes, and {wanted:,} on the hub. Delete it with `cyllama rm "
            f"hf:{repository.name}/{name}`, and download it again"
        )
    return True


def _needs_xet(file: File) -> bool:
    """Whether a file is too large for HTTP. The hub has it in its Xet storage only, which huggingface_hub reads."""
    return (file.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE


def _check_space(folder: Path, files: Sequence[File]) -> None:
    """Check that the disk has space for what is still to be downloaded."""
    if not files:
        return
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    partial = [_partial(folder, file) for file in files]
    blobs = [folder / "blobs" / file.etag for file in files]
    needed = sum(
        (file.size or 0) - (path.stat().st_size if path.exists() else 0)
        for file, path, blob in zip(files, partial, blobs, strict=True)
        if not blob.exists()
    )
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:,.1f} GB are to be downloaded")


def _fetch(repository: Repository, name: str, place: Place, transfers: Transfer) -> None:
    """Download a file's content into the cache."""
    folder, file = repository_folder(place.cache, repository.name), repository.files[name]
    blob, partial = folder / "blobs" / file.etag, _partial(folder, file)
    lock = folder.parent / ".locks" / folder.name / f"{file.etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):  # the one that huggingface_hub holds for the same file
        if blob.exists():
            return
        with partial.open("ab") as target:
            if file.size is not None and target.tell() > file.size:
                target.truncate(target.seek(0))
            _receive(repository, name, target, place, transfers)
        _check_content(partial, repository, name)
        partial.replace(blob)


def _receive(repository: Repository, name: str, target: BinaryIO, place: Place, transfers: Transfer) -> None:
    """Write what is missing of a file behind what is there. A connection that breaks is made again while that helps."""
    size = repository.files[name].size
    bar = transfers.of_file(name, size)
    while True:
        done = target.tell()
        try:
            http_get(
                hf_hub_url(repository.name, name, revision=repository.commit),
                target,
                resume_size=done,
                headers=build_hf_headers(token=place.token),
                expected_size=size,
                tqdm_class=bar,
            )
        except HfHubHTTPError:
            raise
        except HTTPError as error:
            if target.tell() <= done:
                raise _broken(repository, name, done, error) from error
        else:
            return


def _partial(folder: Path, file: File) -> Path:
    """Return where the content of a file is until it is complete."""
    return folder / "blobs" / f"{file.etag}{PARTIAL}"


def _check_content(path: Path, repository: Repository, name: str) -> None:
    """Compare a file with the checksum that the hub has of it. A damaged one is deleted."""
    file = repository.files[name]
    size, is_sha256 = path.stat().st_size, len(file.etag) == 64
    digest = hashlib.sha256() if is_sha256 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            digest.update(chunk)
    if digest.hexdigest() != file.etag:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ModelDownloadError(
            f"the download of {name!r} from {repository.name!r} is damaged: its {digest.name.upper()} is "
            f"{digest.hexdigest()}, and {file.etag} on the hub. It was deleted: download it again"
        )


def _remember(folder: Path, revision: str, commit: str) -> None:
    """Note which commit a branch or a tag stands for, for when there is no network."""
    path = folder / "refs" / revision
    if revision == commit or (path.is_file() and path.read_text(encoding="utf-8") == commit):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit, encoding="utf-8")
    except OSError:  # a cache that can only be read is used as it is
        return


def _broken(repository: Repository, name: str, done: int, error: Exception) -> ModelDownloadError:
    size = repository.files[name].size
    total = "" if size is None else f" of {size:,}"
    return ModelDownloadError(
        f"the download of {name!r} from {repository.name!r} ended after {done:,}{total} bytes "
        f"({_reason(error)}): try again, and it continues there"
    )


@contextmanager
def _explained(repo: str, place: Place) -> Iterator[None]:
    """Turn the errors of ``huggingface_hub`` and of the file system into ours."""
    try:
        yield
    except (ModelNotFoundError, ModelAccessError, ModelDownloadError):
        raise
    except HFValidationError as error:
        raise ModelNotFoundError(f"{repo!r} cannot be a repository on the hub: {error}") from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{repo!r} has no revision {place.revision!r}: give a branch, a tag or a commit"
        ) from error
    except GatedRepoError as error:
        raise ModelAccessError(
            f"the files of {repo!r} are for users whom its owner has given access: ask for it on its page, and "
            f"{_log_in(place)}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub shows no repository {repo!r}: check its name; if it is private, {_log_in(place)}"
        ) from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise ModelAccessError(
                f"the hub refuses access to {repo!r} ({_reason(error)}): {_log_in(place)}"
            ) from error
        raise ModelDownloadError(f"the hub does not serve {repo!r} ({_reason(error)}): try again later") from error
    except ValueError as error:  # a file that needs a package which is not installed
        raise ModelDownloadError(f"cannot download from {repo!r}: {_reason(error)}") from error
    except OSError as error:
        raise _of_disk(error, repo, place) from error


def _of_disk(error: OSError, repo: str, place: Place) -> ModelDownloadError:
    """Return the error for a file that could not be written."""
    cache = f"the cache at {str(place.cache)!r}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ModelDownloadError(
            f"cannot download from {repo!r} into {cache}: {_reason(error)}; HF_HOME or cache_dir names another folder"
        )
    free = shutil.disk_usage(place.cache).free
    return ModelDownloadError(
        f"the disk of {cache} has too little space for {repo!r}: {error.strerror}, and {free / 1e9:,.1f} GB are free. "
        "Delete something, as `cyllama rm` does with models, or set HF_HOME or cache_dir to a folder on another disk"
    )


def _hub() -> str:
    return f"the hub at {constants.ENDPOINT}"


def _is_busy(error: HfHubHTTPError) -> bool:
    """Whether the hub could answer the same request later."""
    status = getattr(error.response, "status_code", 0)
    return status in (408, 429) or status >= 500


def _log_in(place: Place) -> str:
    if place.token or get_token():
        return "use a token that may read it: the one in use is not accepted"
    return "give token=, set HF_TOKEN, or log in with `hf auth login`"


def _reason(error: Any) -> str:
    """Return the first line of an error, without the addresses that follow it."""
    text = str(error).strip().partition("\n")[0].partition(" for url")[0].strip().rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
