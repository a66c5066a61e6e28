"""Telling models and adapters apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .parts import part_paths

HEAD = 2**16  # bytes from the beginning of the file
SAMPLES, SAMPLE = 16, 2**12  # pieces spread over the rest, and bytes in each


def model_identity(path: str | os.PathLike[str]) -> str:
    """Return what tells a model's file from any other: a digest of its size, its head and samples of its weights.

    Reading all of it would take as long as loading it; two models with the same samples are the same model. Of a split
    model, all files count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in part_paths(path):
        with part.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(size.to_bytes(8, "little"))
            digest.update(file.read(HEAD))
            for i in range(1, SAMPLES + 1):
                file.seek(max(0, size * i // SAMPLES - SAMPLE))
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a digest of all of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with Path(path).open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
