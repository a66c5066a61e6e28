"""A conversation in a file."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
import zlib
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .errors import SessionFileError

MAGIC = b"cyllama session\n"
VERSION, VERSION_WITH_IMAGES = 1, 2
MAX_IMAGES = 2000  # whose token ids are numbers of 32 bits in a file
DIGEST_SIZE = 32
HEADER_SIZE = struct.Struct("<Q")


class SavedImage(NamedTuple):
    """An image as a file holds it."""

    width: int
    height: int
    rgb: bytes


class SavedSession(NamedTuple):
    """A conversation as a file holds it. In token ids below zero, the key of an image is its number in ``images``.

    Attributes:
        name: Its name.
        model: Identity of the model.
        cache_key: Options and adapters that the content of a KV cache depends on.
        tokens: Its token ids.
        text: Its text, if known.
        replies: Where answers end: pairs of a number of tokens and a number of characters.
        cached_tokens: Token ids whose keys and values are in ``state``.
        state: The KV cache's state, in llama.cpp's format; ``None`` if there is none.
        adapters: Digests of the LoRA adapters that the state was computed with, and their scales.
        images: Its images.
        projector: Identity of the projector that its images are seen with; empty without images.
    """

    name: str
    model: str
    cache_key: str
    tokens: list[int]
    text: str | None
    replies: list[tuple[int, int]]
    cached_tokens: list[int]
    state: bytes | None
    adapters: tuple[tuple[str, float], ...] = ()
    images: tuple[SavedImage, ...] = ()
    projector: str = ""

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file. After an error, the file is as it was before.

        Raises:
            OSError: It cannot be written.
        """
        target = Path(path)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".cyllama-", delete=False) as file:
            try:
                digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
                for part in self._parts():
                    digest.update(part)
                    file.write(part)
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(target)
            except BaseException:
                with suppress(OSError):
                    Path(file.name).unlink()
                raise

    def _parts(self) -> list[bytes]:
        images = [zlib.compress(image.rgb, level=1) for image in self.images]
        header = {
            "version": VERSION_WITH_IMAGES if images else VERSION,
            "name": self.name,
            "model": self.model,
            "cache_key": self.cache_key,
            "adapters": self.adapters,
            "text": self.text,
            "replies": self.replies,
            "n_tokens": len(self.tokens),
            "n_cached_tokens": len(self.cached_tokens),
            "projector": self.projector,
            "images": [(image.width, image.height, len(data)) for image, data in zip(self.images, images, strict=True)],
        }
        head = json.dumps(header).encode()
        ids = array("i", [*self.tokens, *self.cached_tokens]).tobytes()
        return [MAGIC, HEADER_SIZE.pack(len(head)), head, ids, *images, self.state or b""]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> SavedSession:
        """Read a file.

        Raises:
            SessionFileError: It is damaged, or of another version, or not a session.
            OSError: It cannot be read.
        """
        data = memoryview(Path(path).read_bytes())
        where = os.fspath(path)
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise SessionFileError(f"{where!r} holds no session")
        content, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
        if hashlib.blake2b(content, digest_size=DIGEST_SIZE).digest() != digest:
            raise SessionFileError(f"{where!r} is damaged: its checksum is wrong")
        try:
            return cls._parse(content, where)
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise SessionFileError(f"{where!r} is damaged: {error}") from error

    @classmethod
    def _parse(cls, content: memoryview, where: str) -> SavedSession:
        start = len(MAGIC) + HEADER_SIZE.size
        (size,) = HEADER_SIZE.unpack(content[len(MAGIC) : start])
        header: dict[str, Any] = json.loads(bytes(content[start : start + size]))
        if header["version"] not in (VERSION, VERSION_WITH_IMAGES):
            raise SessionFileError(
                f"{where!r} has version {header['version']}, but this is version {VERSION_WITH_IMAGES}"
            )
        n_tokens, n_cached = header["n_tokens"], header["n_cached_tokens"]
        ids = array("i")
        end = start + size + (n_tokens + n_cached) * ids.itemsize
        ids.frombytes(content[start + size : end])
        images: list[SavedImage] = []
        for width, height, n_bytes in header.get("images", ()):
            images.append(SavedImage(width, height, _pixels(content[end : end + n_bytes], width, height)))
            end += n_bytes
        return cls(
            header["name"],
            header["model"],
            header["cache_key"],
            ids[:n_tokens].tolist(),
            header["text"],
            [(a, b) for a, b in header["replies"]],
            ids[n_tokens:].tolist(),
            bytes(content[end:]) or None,
            tuple((str(identity), float(scale)) for identity, scale in header.get("adapters", ())),
            tuple(images),
            header.get("projector", ""),
        )


def _pixels(data: memoryview, width: int, height: int) -> bytes:
    """Return the pixels of an image that a file holds.

    Raises:
        ValueError: They are not as many as the image has.
    """
    reader = zlib.decompressobj()
    try:
        rgb = reader.decompress(data, 3 * width * height + 1)
    except zlib.error as error:
        raise ValueError(f"an image of it cannot be read: {error}") from error
    if len(rgb) != 3 * width * height:
        raise ValueError(f"an image of it does not have {width} x {height} pixels")
    return rgb
